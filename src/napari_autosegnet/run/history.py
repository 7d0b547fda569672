"""The course of a run, folded from its events: what curves are drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from napari_autosegnet.events import Epoch, Event, Step, WarningRaised
from napari_autosegnet.run.status import step_after


@dataclass
class RunHistory:
    """The epochs of a search and of a training.

    An epoch replaces itself and all later ones: a run that was resumed repeats its last epoch, and one that began
    again with more labels starts from the first.

    Attributes
    ----------
    step
        What was worked on last.
    warnings
        Epochs of the search after which it warned.
    """

    step: Step | None = None
    warnings: list[int] = field(default_factory=list)
    _epochs: dict[Step, dict[int, Epoch]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event]) -> RunHistory:
        """The course that these events tell."""
        history = cls()
        for event in events:
            history.add(event)
        return history

    def add(self, event: Event) -> None:
        """Take the next event into account."""
        self.step = step_after(event, self.step)
        searched = self._epochs.get("search")
        if isinstance(event, Epoch):
            epochs = self._epochs.setdefault(event.step, {})
            while epochs and next(reversed(epochs)) >= event.epoch:
                epochs.popitem()
            epochs[event.epoch] = event
            if event.step == "search":
                self.warnings = [epoch for epoch in self.warnings if epoch < event.epoch]
        elif isinstance(event, WarningRaised) and self.step == "search" and searched:
            self.warnings.append(next(reversed(searched)))

    def epochs(self, step: Step) -> list[Epoch]:
        """The epochs of a step, in order."""
        return list(self._epochs.get(step, {}).values())

    def class_names(self, step: Step) -> list[str]:
        """Classes that have an IoU in any epoch of a step."""
        return list(dict.fromkeys(name for epoch in self.epochs(step) for name in epoch.iou))

    def networks(self, step: Step) -> list[str]:
        """Networks that were trained in a step which trains several."""
        return list(dict.fromkeys(epoch.network for epoch in self.epochs(step) if epoch.network))

    def points(self, step: Step, key: str, network: str = "") -> list[tuple[int, float]]:
        """Epochs and values of ``key`` (``iou/NAME``: of a class), where there is a value; of one network if given."""
        field_name, _, name = key.partition("/")
        epochs = (epoch for epoch in self.epochs(step) if network in ("", epoch.network))
        values = ((epoch.epoch, getattr(epoch, field_name)) for epoch in epochs)
        if name:
            values = ((epoch, scores.get(name)) for epoch, scores in values)
        return [(epoch, value) for epoch, value in values if value is not None]
