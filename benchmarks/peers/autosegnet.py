"""The peers' two commands by ``napari-autosegnet fit``: train DATA OUT SECONDS, predict DATA OUT."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("napari-autosegnet")


def main(step: str, data: Path, out: Path, making: list[str]) -> None:
    """Train by the command ``making`` or apply what it made."""
    if step == "train":
        names = json.loads((data / "classes.json").read_text(encoding="utf-8"))
        classes = ",".join(f"{number}:{name}" for number, name in enumerate(names, 1))
        labeled = ["--image", data / "train-images.tif", "--labels", data / "train-labels.tif", "--classes", classes]
        subprocess.run([PROGRAM, *making, *labeled, "--run", out / "run"], check=True)
    else:
        applied = ["--model", out / "run", "--image", data / "test-images.tif", "--out", out / "predicted.tif"]
        subprocess.run([PROGRAM, "predict", *applied], check=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), ["fit", "--preset", "fast", "--budget", f"{sys.argv[4]}s"])
