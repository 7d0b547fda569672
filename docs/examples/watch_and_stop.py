"""Hear of every epoch, and end a training when it no longer gets better."""

# %% A training to watch: U-Net needs no search
from pathlib import Path

from napari_autosegnet import api
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.events import Epoch, Event
from napari_autosegnet.presets import train_settings

PATIENCE = 10
sample = sample_folder()


# %% A listener: it is called with every event
class Patience:
    """Asks for an end when the best score is `PATIENCE` epochs old."""

    def __init__(self) -> None:
        self.best, self.since = 0.0, 0

    def report(self, event: Event) -> None:
        if not isinstance(event, Epoch) or event.mean_iou is None:
            return
        score = event.mean_iou
        self.since = 0 if score > self.best else self.since + 1
        self.best = max(self.best, score)
        print(f"epoch {event.epoch}: {score:.3f}, best {self.best:.3f}")

    def should_stop(self) -> bool:
        return self.since >= PATIENCE


# %% What it learned is kept, whenever it ends; Ctrl-C in a shell and `napari-autosegnet runs stop` do the same
patience = Patience()
model = api.train(
    Path("runs/watched"),
    images=[sample / "axon-sem-a.png"],
    labels=[sample / "axon-sem-a-labels.png"],
    classes=SAMPLE_CLASSES,
    network="unet",
    settings=train_settings("fast", budget=600),
    report=patience.report,
    should_stop=patience.should_stop,
)
print(model.metrics["validation"])
