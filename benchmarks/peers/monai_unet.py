"""The peers' two commands by MONAI's BasicUNet: train DATA OUT SECONDS, predict DATA OUT.

Random crops of 128 x 128, flips, quarter turns, contrast, noise, cross-entropy and Dice, Adam at 0.001 and sliding
windows, as in MONAI's tutorials of 2D segmentation. What is not annotated counts in neither loss.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from monai.inferers import SlidingWindowInferer
from monai.losses import MaskedDiceLoss
from monai.networks.nets import BasicUNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    NormalizeIntensityd,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandSpatialCropd,
)

SIDE, BATCH = 128, 8


def network(data: Path) -> torch.nn.Module:
    classes = len(json.loads((data / "classes.json").read_text(encoding="utf-8")))
    torch.manual_seed(0)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=classes)


def train(data: Path, out: Path, seconds: float) -> None:
    began = time.monotonic()
    images = tifffile.imread(data / "train-images.tif").astype(np.float32)
    labels = tifffile.imread(data / "train-labels.tif")
    both = ["image", "label"]
    change = Compose(
        [
            EnsureChannelFirstd(both, channel_dim="no_channel"),
            NormalizeIntensityd("image"),
            RandSpatialCropd(both, (SIDE, SIDE), random_size=False),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandRotate90d(both, prob=0.5),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            RandGaussianNoised("image", prob=0.3, std=0.1),
        ]
    ).set_random_state(0)
    generator = np.random.default_rng(0)
    model = network(data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    dice = MaskedDiceLoss(softmax=True)
    entropy = torch.nn.CrossEntropyLoss(ignore_index=-1)
    steps = 0
    while time.monotonic() - began < seconds:
        drawn = generator.integers(len(images), size=BATCH)
        batch = [change({"image": images[index], "label": labels[index]}) for index in drawn]
        image = torch.stack([each["image"].as_tensor() for each in batch])
        target = torch.stack([each["label"].as_tensor() for each in batch])[:, 0].long() - 1
        logits = model(image)
        truth = torch.nn.functional.one_hot(target.clamp_min(0), logits.shape[1]).movedim(-1, 1).float()
        loss = entropy(logits, target) + dice(logits, truth, mask=(target >= 0)[:, None].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    torch.save(model.state_dict(), out / "weights.pt")
    print(steps, "steps")


def predict(data: Path, out: Path) -> None:
    images = tifffile.imread(data / "test-images.tif").astype(np.float32)
    model = network(data).eval()
    model.load_state_dict(torch.load(out / "weights.pt", weights_only=True))
    slide = SlidingWindowInferer((SIDE, SIDE), sw_batch_size=8, overlap=0.25, mode="gaussian")
    labels = []
    with torch.inference_mode():
        for image in images:
            normalized = torch.from_numpy((image - image.mean()) / image.std())[None, None]
            labels.append(slide(normalized, model)[0].argmax(0).numpy().astype(np.uint8) + 1)
    tifffile.imwrite(out / "predicted.tif", np.stack(labels))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        predict(Path(sys.argv[2]), Path(sys.argv[3]))
