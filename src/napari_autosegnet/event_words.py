"""Events in words: a line for a terminal or a log, and what is under way in a few words, for the dock."""

from __future__ import annotations

from napari_autosegnet.duration import format_duration
from napari_autosegnet.events import (
    ArchitectureFound,
    BlocksPlanned,
    CandidateRated,
    CandidatesRated,
    DataRead,
    DeviceChosen,
    Epoch,
    Event,
    Failed,
    FinalistTrained,
    Finished,
    LabelsTaken,
    Note,
    PairMatched,
    Paused,
    ProgressMade,
    QualityMeasured,
    Resumed,
    RoundBegun,
    Started,
    Stopped,
    WarningRaised,
)
from napari_autosegnet.plain_text import counted, printable

_FIGURES = ("loss", "reward", "best_reward", "mean_iou", "entropy")
#: What is counted by a `ProgressMade` of this step.
_COUNTED = {
    "candidates rated": "choosing the best networks: {} rated",
    "finalists trained": "training the best few alone: {} trainings done",
    "cubes": "writing cubes: section {}",
    **dict.fromkeys(("seeds", "fragments", "contacts", "instances"), "numbering objects: block {}"),
}


def line(event: Event) -> str | None:
    """One line for the user about an event; None for events that need no line."""
    words = _line(event)
    return None if words is None else printable(words)


def _line(event: Event) -> str | None:
    match event:
        case DataRead(text=text):
            return text or None
        case PairMatched():
            more = f" (and {event.more} more pairs)" if event.more else ""
            return f"pair: {event.image} with {event.labels}{more}"
        case Note(text=text):
            return f"note: {text}"
        case WarningRaised(text=text):
            return f"warning: {text}"
        case DeviceChosen(name=name):
            return f"device: {name}"
        case Epoch():
            return ", ".join(filter(None, (epoch_figures(event), time_left(event))))
        case CandidatesRated():
            best = "" if event.best is None else f", best {event.best:.3f}"
            return f"search: {event.count} candidates rated{best}"
        case CandidateRated():
            score = "" if event.mean_iou is None else f"mean IoU {event.mean_iou:.3f}"
            speed = "" if event.milliseconds is None else f", {event.milliseconds:.0f} ms for 512 x 512 pixels"
            return f"fit: round {event.round} of {event.rounds}: {event.network}: {score}{speed}"
        case FinalistTrained():
            turn = f"{event.index} of {event.count}, round {event.round} of {event.rounds}"
            score = "" if event.score is None else f": {event.score:.3f}"
            parameters = "" if event.parameters is None else f", {event.parameters / 1e6:.2f} M parameters"
            return f"search: finalist {turn}{score}{parameters}"
        case ArchitectureFound(final=True):
            score = "" if event.score is None else f" (score {event.score:.3f})"
            remark = f"; {event.remark}" if event.remark else ""
            return f"search: architecture chosen{score}{remark}"
        case QualityMeasured():
            return f"{event.step}: {event.sentence()}"
        case LabelsTaken():
            return f"{event.step}: {labels_taken(event)}"
        case BlocksPlanned():
            skipped = f", {event.skipped} empty" if event.skipped else ""
            done = f", {event.done} done before" if event.done else ""
            return f"predict: {counted(event.blocks, 'block')}{done}{skipped}{_halo(event)}"
        case ProgressMade():
            total = "" if event.total is None else f" of {event.total}"
            parts = (f"{task(event)}: {event.done}{total}", pace(event), time_left(event))
            return ", ".join(filter(None, parts))
        case Paused() | Resumed():
            return event.event
        case Finished():
            return f"{event.step}: finished in {format_duration(event.seconds or 0)}"
        case Failed():
            return f"{event.step or 'job'}: failed: {event.text}"
        case Stopped():
            return f"{event.step or 'job'}: stopped" + (f" ({event.reason})" if event.reason else "")
        case _:
            return None


def under_way(event: Event) -> str | None:
    """What a job does from an event on, in a few words; None for events that do not say."""
    match event:
        case Started():
            return "preparing"
        case RoundBegun(networks=(_, _, *_)):
            return f"comparing {len(event.networks)} networks, round {event.round} of {event.rounds}"
        case RoundBegun():
            which = "the chosen one to the end" if event.round == event.rounds else "a network"
            return ": ".join([f"training {which}", *event.networks])
        case Epoch():
            return f"epoch {event.epoch}" + (", warming up" if event.phase == "warm-up" else "")
        case CandidateRated() if event.round == event.rounds:
            return "measuring and writing the networks"
        case ProgressMade(total=int(total)):
            return _COUNTED.get(event.step or "", "block {}").format(f"{event.done} of {total}")
        case _:
            return None


def labels_taken(event: LabelsTaken) -> str:
    """``new strokes are in: learns from 5,120 pixels, checks on 1,240``."""
    learned, checked = (sum(each.values()) for each in (event.training_pixels, event.validation_pixels))
    return f"new strokes are in: learns from {learned:,} pixels, checks on {checked:,}"


def epoch_figures(event: Epoch) -> str:
    """``train: epoch 3/10  loss 0.512  mean iou 0.700``."""
    values = ((name.replace("_", " "), getattr(event, name)) for name in _FIGURES)
    figures = [f"{name} {value:.3f}" for name, value in values if value is not None]
    count = f"{event.epoch}" + (f"/{event.epochs}" if event.epochs else "")
    network = [event.network] if event.network else []
    return "  ".join([f"{event.phase or event.step}: epoch {count}", *figures, *network])


def task(progress: ProgressMade) -> str:
    """What is counted: blocks of a prediction, or sections that are scored."""
    return progress.step or ("evaluate" if progress.voxels_per_second is None else "predict")


def pace(progress: ProgressMade) -> str:
    """``2.00 M voxels/s``, or nothing."""
    speed = progress.voxels_per_second
    return "" if speed is None else f"{speed / 1e6:.2f} M voxels/s"


def time_left(event: Epoch | ProgressMade) -> str:
    """``1 min 10 s left``, or nothing."""
    return "" if event.seconds_left is None else f"{format_duration(event.seconds_left)} left"


def _halo(plan: BlocksPlanned) -> str:
    if plan.halo is None:
        return ""
    agreement = plan.halo_agreement
    measured = "" if agreement is None else f" (labels agree with exact on {100 * agreement:.3f} % of pixels)"
    precision = ""
    if plan.precision_agreement is not None:
        percent = f"{100 * plan.precision_agreement:.3f} %"
        precision = f", {plan.precision} (labels agree with float32 on {percent} of pixels)"
    return f", halo {plan.halo} pixels{measured}{precision}"
