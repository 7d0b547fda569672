"""Search, train, apply and score on the sample that comes with the package."""

# %% What to work on: one image with labels to learn from, one to score on
from pathlib import Path

from napari_autosegnet import api
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.figures import draw_architecture, draw_curves, overlay
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.run import Run

sample = sample_folder()
run = Path("runs/whole-way")

# %% Search for five minutes; "fast" suits a laptop
architecture = api.search(
    run,
    [sample / "axon-sem-a.png"],
    [sample / "axon-sem-a-labels.png"],
    classes=SAMPLE_CLASSES,
    settings=search_settings("fast", budget=300),
)
draw_architecture(architecture, Path("architecture.svg"))

# %% Train what was found for ten minutes
model = api.train(run, settings=train_settings("fast", budget=600))
draw_curves(Run.open(run).events(), Path("curves.svg"))
print(model.metrics["validation"])

# %% Apply it to the other image
api.predict(run / "model", sample / "axon-sem-b.png", Path("axons.tif"))

# %% Score it, and look
scores = api.evaluate(prediction=Path("axons.tif"), labels=[sample / "axon-sem-b-labels.png"], classes=SAMPLE_CLASSES)
print(f"mean IoU {scores.mean_iou:.3f}", scores.iou)
image = open_image(sample / "axon-sem-b.png").section(0)[0]
labels = open_image("axons.tif").section(0)[0]
overlay(image, labels, model.classes, Path("overlay.png"))
