"""The peers' two commands by nnU-Net's 2D configuration: train DATA OUT SECONDS, predict DATA OUT.

Nothing of what it plans is changed, but that it ends, with its rate, when the time is used.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

OUT = Path(sys.argv[3])
FOLDERS = {f"nnUNet_{name}": str(OUT / name) for name in ("raw", "preprocessed", "results")}
os.environ.update(FOLDERS, nnUNet_compile="0")  # nnU-Net reads them where it is imported
DATASET = "Dataset001_peers"


def train(data: Path, seconds: float) -> None:
    began = time.monotonic()
    import torch
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    raw = OUT / "raw" / DATASET
    names = json.loads((data / "classes.json").read_text(encoding="utf-8"))
    images, labels = tifffile.imread(data / "train-images.tif"), tifffile.imread(data / "train-labels.tif")
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    unlabeled = len(names)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(raw / "imagesTr" / f"s{index:03}_0000.png")
        classes_from_0 = np.where(label == 0, unlabeled, label - 1).astype(np.uint8)
        Image.fromarray(classes_from_0).save(raw / "labelsTr" / f"s{index:03}.png")
    classes = {"background" if number == 0 else name: number for number, name in enumerate(names)}
    if (labels == 0).any():
        classes["ignore"] = unlabeled
    generate_dataset_json(str(raw), {0: "gray"}, classes, len(images), ".png")
    extract_fingerprints([1], num_processes=2)
    plan_experiments([1])
    preprocess([1], configurations=["2d"], num_processes=[2])

    class UntilTimeIsUsed(nnUNetTrainer):
        """Polynomial fall of the rate by the time that is used; ends with it."""

        def run_training(self) -> None:
            self.on_train_start()
            self.network.train()
            steps = 0
            while (used := (time.monotonic() - began) / seconds) < 1:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.initial_lr * (1 - used) ** 0.9
                self.train_step(next(self.dataloader_train))
                steps += 1
            print(steps, "steps of", self.batch_size, "patches of", self.configuration_manager.patch_size)
            self.on_train_end()

    UntilTimeIsUsed.__name__ = nnUNetTrainer.__name__  # whoever predicts looks for the trainer by its name
    prepared = OUT / "preprocessed" / maybe_convert_to_dataset_name(1)
    plans = json.loads((prepared / "nnUNetPlans.json").read_text())
    dataset = json.loads((prepared / "dataset.json").read_text())
    trainer = UntilTimeIsUsed(plans | {"continue_training": False}, "2d", "all", dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.run_training()
    (OUT / "model").write_text(str(Path(trainer.output_folder).parent), encoding="utf-8")


def predict(data: Path) -> None:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    folder = (OUT / "model").read_text(encoding="utf-8")
    predictor.initialize_from_trained_model_folder(folder, ("all",), "checkpoint_final.pth")
    labels = []
    for image in tifffile.imread(data / "test-images.tif"):
        array = image[None, None].astype(np.float32)
        labels.append(predictor.predict_single_npy_array(array, {"spacing": (999, 1, 1)})[0].astype(np.uint8) + 1)
    tifffile.imwrite(OUT / "predicted.tif", np.stack(labels))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), float(sys.argv[4]))
    else:
        predict(Path(sys.argv[2]))
