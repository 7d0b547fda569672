"""Where is the network unsure? There new annotation helps most."""

# %% A model and an image that it has not seen (the run is the one of whole_way.py)
from pathlib import Path

import zarr

from napari_autosegnet import api
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.sample import sample_folder
from napari_autosegnet.figures import draw_uncertainty, normalized_entropy
from napari_autosegnet.settings import PredictSettings

image = sample_folder() / "axon-sem-b.png"

# %% Probabilities are stored as uint8: 255 is certain
api.predict(Path("runs/whole-way/model"), image, Path("unsure.zarr"), settings=PredictSettings(probabilities=True))
stored = zarr.open_group("unsure.zarr", mode="r")["probabilities/0"]
probabilities = stored[:].reshape(stored.shape[0], *stored.shape[-2:]) / 255

# %% The entropy of the classes, 0 (sure) to 1 (all alike), as a number and as a picture
print(f"mean uncertainty {normalized_entropy(probabilities).mean():.3f}")
draw_uncertainty(probabilities, Path("uncertainty.png"), image=open_image(image).section(0)[0])
