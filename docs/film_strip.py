"""The film strip of mended objects for the documentation: a real napari window in which objects are mended.

::

    xvfb-run -a -s "-screen 0 1700x1100x24" python docs/film_strip.py --data medulla --result RESULT.zarr

``--data`` has ``raw.tif`` and ``cells.tif``, the true cells, by which the script finds an object in two pieces and one
that is two cells; ``--result`` is what ``predict --instances`` made of ``raw.tif``. It is copied first, and stays as it
is. The medulla's images are by FlyEM, HHMI Janelia (CC BY 3.0 US).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt
from screenshots import Window
from strip import Strip

#: Pixels of a frame's side, and of the volume that it shows.
FRAME, SHOWN = 330, 96
#: Pixels of the larger and the smaller part that a section has to show.
LEAST = 250

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Site:
    """Two parts (z, y, x) of which one is to be made, or that are to be parted, and where they are seen."""

    parts: tuple[Array, Array]
    section: int

    @property
    def middle(self) -> tuple[float, float]:
        """Where the parts meet, or as near to it as a frame shows nothing beside the volume."""
        one, other = (part[self.section] for part in self.parts)
        gap = np.where(other, distance_transform_edt(~one), np.inf)
        y, x = np.unravel_index(int(gap.argmin()), gap.shape)
        ends = [size - SHOWN / 2 - 1 for size in one.shape]
        return float(np.clip(y, SHOWN / 2, ends[0])), float(np.clip(x, SHOWN / 2, ends[1]))

    def stroke(self, part: int) -> Array:
        """A line of points (z, y, x) along the middle of what a frame shows of a part."""
        y, x = (max(0, round(each - SHOWN / 2) + 8) for each in self.middle)
        window = np.zeros(self.parts[part][self.section].shape, bool)
        window[y : y + SHOWN - 16, x : x + SHOWN - 16] = True
        depth = distance_transform_edt(self.parts[part][self.section] & window)
        places = np.argwhere(depth >= 0.7 * depth.max())
        along = np.linalg.svd(places - places.mean(axis=0), full_matrices=False)[2][0]
        ends = places[np.argsort(places @ along)[[0, -1]]]
        line = ends[0] + (ends[1] - ends[0]) * np.linspace(0.1, 0.9, 20)[:, np.newaxis]
        return np.column_stack([np.full(len(line), self.section), line])


def site(one: Array, other: Array) -> Site | None:
    """Where two parts are best seen together; None where they are too small, or too far apart for a frame."""
    areas = np.minimum(one.sum(axis=(1, 2)), other.sum(axis=(1, 2)))
    found = Site((one, other), int(areas.argmax()))
    y, x = np.nonzero(one[found.section] | other[found.section])
    is_small = areas.max() < LEAST or max(np.ptp(y), np.ptp(x)) > 1.2 * SHOWN
    # They have to meet in that section, too.
    return None if is_small or distance_transform_edt(~one[found.section])[other[found.section]].min() > 2 else found


def sites(found: Array, true: Array) -> tuple[Site, Site]:
    """A cell that is two objects, and an object that is two cells."""
    numbers, counts = np.unique(found.astype(np.int64) << 32 | true, return_counts=True)
    objects, cells = numbers >> 32, numbers & (2**32 - 1)
    real = (objects > 0) & (cells > 0)
    objects, cells, counts = objects[real], cells[real], counts[real]
    sizes = dict(zip(*np.unique(found, return_counts=True), strict=True))

    def best(shared: Array, parts: Array, pure: bool) -> Site:
        pairs = []
        for number in np.unique(shared):
            of = np.flatnonzero(shared == number)
            if pure:
                of = of[[counts[each] > 0.9 * sizes[objects[each]] for each in of]]
            of = of[np.argsort(counts[of])[-2:]]
            if len(of) == 2:
                pairs.append((int(counts[of].min()), int(number), parts[of].tolist()))
        for _, number, (one, other) in sorted(pairs, reverse=True)[:40]:
            masks = (
                (found == one, found == other)
                if pure
                else (
                    (found == number) & (true == one),
                    (found == number) & (true == other),
                )
            )
            if (place := site(*masks)) is not None:
                return place
        sys.exit("no site for the film strip in this result; give another one")

    return best(cells, objects, True), best(objects, cells, False)


class SiteStrip(Strip):
    """Frames of what a window shows of a site."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window
        self._place: Site | None = None

    def show(self, place: Site) -> None:
        """Look at a site."""
        self._place = place
        viewer = self._window.viewer
        viewer.dims.set_point(0, place.section)
        viewer.scene.camera.center = (0, *place.middle)
        viewer.scene.camera.zoom = FRAME / SHOWN

    def take(self, caption: str, clicks: Sequence[Array] = ()) -> None:
        """Take a frame, with rings where the mouse clicked (z, y, x)."""
        window = self._window
        window.pause(0.6)
        pixels = window.viewer.screenshot(canvas_only=True, flash=False)
        top, left = ((side - FRAME) // 2 for side in pixels.shape[:2])
        frame = Image.fromarray(pixels[top : top + FRAME, left : left + FRAME]).convert("RGB")
        draw = ImageDraw.Draw(frame)
        assert self._place is not None
        for _, *place in clicks:
            y, x = (FRAME / 2 + (at - mid) * FRAME / SHOWN for at, mid in zip(place, self._place.middle, strict=True))
            draw.ellipse((x - 9, y - 9, x + 9, y + 9), outline="white", width=3)
        self.add(frame, caption)


def shoot(window: Window, store: Path, merge: Site, split: Site) -> None:
    """Mend objects, and take the frames."""
    viewer = window.viewer
    strip = SiteStrip(window)
    strip.show(merge)
    strip.take("the volume")
    (layer,) = (each for each in viewer.open(store, plugin="napari-autosegnet") if each.name == "instances")
    for each in viewer.layers:
        each.visible = each.name in ("instances", "medulla")
    layer.opacity = 0.45
    viewer.layers.selection.active = layer
    panel = window.dock.apply_step.proofreading
    window.dock.show_step("apply")
    strip.take("the objects that were found")

    def settle() -> None:
        window.pause(0.2)
        window.wait(lambda: not panel.is_busy)

    window.click(panel.begin_button)
    settle()
    whole = np.asarray(panel.objects.levels[0])
    panel.choose(tuple(int(np.bincount(whole[part]).argmax()) for part in merge.parts))
    strip.take("two clicks choose two pieces ...", [merge.stroke(part)[10] for part in (0, 1)])
    viewer.reset_view()
    window.take("mend", also=False)
    strip.show(merge)
    window.click(panel.merge_button)
    settle()
    strip.take("... and merged (F6)")
    strip.show(split)
    window.click(panel.split_button)
    panel.add_stroke(split.stroke(0))
    strokes = next(each for each in viewer.layers if each.name == "split strokes")
    kept = np.array(strokes.data)
    strokes.data = np.concatenate([kept, split.stroke(1)])  # as the mouse leaves them
    strip.take("two strokes (F7) ...")
    strokes.data = kept
    panel.add_stroke(split.stroke(1))
    settle()
    strip.take("... split the object")
    window.click(panel.undo_button)
    settle()
    strip.take("undone (F9)")
    window.click(panel.redo_button)
    settle()
    strip.take("redone (Shift+F9)")
    # In few colors, as pictures of a window are saved, gray values would show steps.
    strip.save(window.out / "mended-objects.png", columns=4)


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with raw.tif and cells.tif")
    parser.add_argument("--result", type=Path, required=True, help="store of predict --instances")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder of the pictures")
    given = parser.parse_args()
    from napari_autosegnet.inference.proofreading.proofreading import Proofreading

    with tempfile.TemporaryDirectory() as folder:
        for path in given.result.parent.glob(f"{given.result.name}*"):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, Path(folder) / path.name)
        store = Path(folder) / given.result.name
        found = np.asarray(Proofreading(store).levels[0])
        merge, split = sites(found, tifffile.imread(given.data / "cells.tif"))
        raw = tifffile.imread(given.data / "raw.tif")
        about = {"name": "medulla", "interpolation2d": "cubic", "metadata": {"napari-autosegnet": {"axes": "zyx"}}}
        window = Window(given.out, Path(folder) / "runs", [(raw, about, "image")])
        shoot(window, store, merge, split)
        window.viewer.close()


if __name__ == "__main__":
    main()
