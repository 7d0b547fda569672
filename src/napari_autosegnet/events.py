"""What a run reports: every kind of event as a model, and the line of ``events.jsonl`` that it becomes.

::

    report(Epoch(step="train", epoch=3, loss=0.4))      # whoever works
    {"event": "epoch", "time": "2026-…", "step": "train", "epoch": 3, "loss": 0.4}
    match event:                                        # whoever listens
        case Epoch(): ...

An event is checked once, where it is made or read, so that no listener has to. Numbers are finite or None.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)

from napari_autosegnet.quality import Quality

#: Steps that learn from labeled images.
LearningStep = Literal["fit", "search", "train"]
Step = Literal["fit", "search", "train", "predict", "evaluate", "convert", "resample"]


def _encodable(text: str) -> str:
    r"""The text with bytes that are no UTF-8, as names of files may have them, written out (``\xff``)."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _finite(number: float | None) -> float | None:
    """None for NaN and infinity, which other programs cannot read, and for what no plot can show."""
    return number if number is not None and abs(number) < 1e300 else None


def _parse_time(time: Any) -> datetime | None:
    """None for a time that cannot be read: the event is worth more than its time."""
    if isinstance(time, datetime):
        return time
    try:
        return datetime.fromisoformat(time).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _format_time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


Text = Annotated[str, AfterValidator(_encodable)]
Number = Annotated[float | None, AfterValidator(_finite)]
Count = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Scores = dict[Text, Number]
Time = Annotated[datetime | None, BeforeValidator(_parse_time), PlainSerializer(_format_time, when_used="json")]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    event: str
    #: When it was written; None before that.
    time: Time = None


class Started(_Event):
    """A step began."""

    event: Literal["started"] = "started"
    step: Step


class Finished(_Event):
    """A step did all that it was to do."""

    event: Literal["finished"] = "finished"
    step: Step
    seconds: Number = None


class Stopped(_Event):
    """A step ended because somebody asked for it."""

    event: Literal["stopped"] = "stopped"
    step: Step | None = None
    reason: Text = ""


class Failed(_Event):
    """A step ended with an error."""

    event: Literal["failed"] = "failed"
    step: Step | None = None
    text: Text


class Paused(_Event):
    """A pause began."""

    event: Literal["paused"] = "paused"


class Resumed(_Event):
    """A pause ended."""

    event: Literal["resumed"] = "resumed"


class DeviceChosen(_Event):
    """What is computed on."""

    event: Literal["device"] = "device"
    name: Text


class DataRead(_Event):
    """Classes, and where they were counted the annotated pixels of each in every region of the parts."""

    event: Literal["data"] = "data"
    text: Text
    classes: tuple[Text, ...] = ()
    training_pixels: tuple[tuple[Count, ...], ...] = ()
    validation_pixels: tuple[tuple[Count, ...], ...] = ()


class PairMatched(_Event):
    """An image and its labels; ``more`` pairs follow that are not listed."""

    event: Literal["pair"] = "pair"
    image: Text
    labels: Text
    more: Count = 0


class Epoch(_Event):
    """An epoch of a search or a training.

    Attributes
    ----------
    phase
        Of a search: ``warm-up`` or ``search``.
    network
        Of a fit: the size of the network that was trained, in words.
    iou
        On the validation part, by class name; None for a class that is not there.
    seconds
        Computing time so far, without pauses.
    memory
        Most bytes of the device that were in use.
    """

    event: Literal["epoch"] = "epoch"
    step: Step
    epoch: Count
    epochs: Count | None = None
    phase: Text = ""
    network: Text = ""
    loss: Number = None
    validation_loss: Number = None
    mean_iou: Number = None
    best_mean_iou: Number = None
    iou: Scores = Field(default_factory=dict)
    learning_rate: Number = None
    reward: Number = None
    best_reward: Number = None
    baseline: Number = None
    population_mean: Number = None
    entropy: Number = None
    least_entropy: Number = None
    largest_entropy: Number = None
    identity_fraction: Number = None
    largest_identity_fraction: Number = None
    seconds: Number = None
    seconds_left: Number = None
    memory: Count | None = None


class CandidatesRated(_Event):
    """A search rated its candidates with the shared weights."""

    event: Literal["candidates"] = "candidates"
    count: Count
    best: Number = None
    worst: Number = None


class RoundBegun(_Event):
    """A round of a fit, in which these networks compete."""

    event: Literal["round"] = "round"
    round: Count
    rounds: Count
    networks: tuple[Text, ...]


class CandidateRated(_Event):
    """A network of a fit was trained for a round.

    Attributes
    ----------
    network
        Its size in words.
    milliseconds
        For 512 x 512 pixels.
    seconds
        That it has been trained for so far.
    """

    event: Literal["candidate"] = "candidate"
    network: Text
    round: Count
    rounds: Count
    milliseconds: Number = None
    parameters: Count | None = None
    mean_iou: Number = None
    seconds: Number = None


class FinalistTrained(_Event):
    """A finalist was trained for a round, by itself."""

    event: Literal["finalist"] = "finalist"
    index: Count
    count: Count
    round: Count
    rounds: Count
    rating: Number = None
    score: Number = None
    parameters: Count | None = None
    iou: Scores = Field(default_factory=dict)
    pixels: dict[Text, Count] = Field(default_factory=dict)
    sections: Count | None = None


class ArchitectureFound(_Event):
    """The best architecture so far, as JSON; ``final`` for the one that was chosen."""

    event: Literal["architecture"] = "architecture"
    architecture: dict[str, Any]
    score: Number = None
    final: bool = True
    remark: Text | None = None


class QualityMeasured(Quality, _Event):
    """What was reached at the end of a step, or so far in a fit."""

    event: Literal["quality"] = "quality"
    step: Step

    @property
    def quality(self) -> Quality:
        """The figures alone."""
        return Quality(pixels=self.pixels, sections=self.sections, mean_iou=self.mean_iou, iou=self.iou)


class BlocksPlanned(_Event):
    """How a volume is cut; ``done`` and ``skipped`` count blocks of earlier runs."""

    event: Literal["plan"] = "plan"
    blocks: Count
    done: Count = 0
    skipped: Count = 0
    tile: tuple[Count, ...] = ()
    halo: Count | None = None
    halo_agreement: Number = None
    precision: str | None = None
    precision_agreement: Number = None


class BlockWritten(_Event):
    """A block whose data and ledger entry are on the disk."""

    event: Literal["block"] = "block"
    index: Count
    origin: tuple[Count, ...]
    status: Literal["done", "skipped"]
    seconds: Number = None
    voxels: Count
    step: Text
    worker: Text | None = None


class ProgressMade(_Event):
    """How much of something long is done; ``total`` is None where nobody knows."""

    event: Literal["progress"] = "progress"
    step: Text | None = None
    done: Count
    total: Count | None = None
    voxels_per_second: Number = None
    seconds_left: Number = None


class LabelsTaken(_Event):
    """A fit learns from labels that were painted meanwhile, after so many of its epochs.

    Attributes
    ----------
    labels
        Files that hold them.
    training_pixels, validation_pixels
        Annotated pixels of each class that are learned from and checked from now on.
    """

    event: Literal["labels"] = "labels"
    step: Step = "fit"
    epoch: Count
    labels: tuple[Text, ...] = ()
    training_pixels: dict[Text, Count]
    validation_pixels: dict[Text, Count]


class PreviewDrawn(_Event):
    """A new result on the slice in view, which was written at ``input`` (nanoseconds)."""

    event: Literal["preview"] = "preview"
    shape: tuple[Count, ...]
    input: Count
    classes: tuple[dict[str, Any], ...] = ()


class Note(_Event):
    """A line for the reader."""

    event: Literal["note"] = "note"
    text: Text


class WarningRaised(_Event):
    """A line that the reader should not miss."""

    event: Literal["warning"] = "warning"
    text: Text


Event: TypeAlias = Annotated[
    Started
    | Finished
    | Stopped
    | Failed
    | Paused
    | Resumed
    | DeviceChosen
    | DataRead
    | PairMatched
    | Epoch
    | CandidatesRated
    | RoundBegun
    | CandidateRated
    | FinalistTrained
    | ArchitectureFound
    | QualityMeasured
    | BlocksPlanned
    | BlockWritten
    | ProgressMade
    | LabelsTaken
    | PreviewDrawn
    | Note
    | WarningRaised,
    Field(discriminator="event"),
]
#: How a step ends.
End: TypeAlias = Finished | Stopped | Failed
#: What a long function tells its progress to.
Report = Callable[[Event], None]

# Built now and without a cache: a process that ran out of memory must still be able to read and report.
_EVENT: TypeAdapter[Event] = TypeAdapter(Event, config=ConfigDict(cache_strings="none"))
SomeEvent = TypeVar("SomeEvent", bound=_Event)


def silent(event: Event) -> None:
    """A report that nobody listens to."""


def listeners(*reports: Report) -> Report:
    """One report that passes events on to several listeners."""

    def report(event: Event) -> None:
        for listener in reports:
            listener(event)

    return report


def format_event(event: Event, time: datetime) -> str:
    """The line of ``events.jsonl`` for an event: what was given of it, and the time."""
    given = {"event": event.event, "time": time}
    return event.model_copy(update=given).model_dump_json(exclude_unset=True)


def parse_event(line: str | bytes) -> Event | None:
    """The event in a line of ``events.jsonl``; None if it is damaged."""
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None
