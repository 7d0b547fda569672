"""Fit, apply, and score on the sample that comes with the package."""

# %% What to work on: one image with labels to learn from, one to score on
from pathlib import Path

from napari_autosegnet import api
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.figures import draw_architecture, draw_curves, draw_menu, overlay
from napari_autosegnet.jobs.menu import read_menu
from napari_autosegnet.presets import fit_settings
from napari_autosegnet.run import Run

sample = sample_folder()
run = Path("runs/whole-way")

# %% Fit for fifteen minutes; "fast" suits a laptop
model = api.fit(
    run,
    [sample / "axon-sem-a.png"],
    [sample / "axon-sem-a-labels.png"],
    classes=SAMPLE_CLASSES,
    settings=fit_settings("fast", budget=900),
)
print(model.metrics["validation"])

# %% The networks that competed: quality against speed, and the curves
draw_menu(read_menu(Run.open(run)), Path("networks.png"))
draw_curves(Run.open(run).events(), Path("curves.svg"))
draw_architecture(model.specification.architecture, Path("architecture.svg"))

# %% Apply it to the other image
api.predict(run / "model", sample / "axon-sem-b.png", Path("axons.tif"))

# %% Score it, and look
scores = api.evaluate(prediction=Path("axons.tif"), labels=[sample / "axon-sem-b-labels.png"], classes=SAMPLE_CLASSES)
print(f"mean IoU {scores.mean_iou:.3f}", scores.iou)
image = open_image(sample / "axon-sem-b.png").section(0)[0]
labels = open_image("axons.tif").section(0)[0]
overlay(image, labels, model.classes, Path("overlay.png"))
