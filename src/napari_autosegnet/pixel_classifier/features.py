"""What a pixel's surroundings look like at several scales: brightness, edges, ridges and blobs.

The same kinds as `skimage.feature.multiscale_basic_features`, and as in ilastik. Each pixel depends on its
surroundings up to `reach` alone, and on nothing but them, so tiles with that halo give what the whole section gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Features = npt.NDArray[np.float32]

#: Widths (pixels) of the Gaussians that an image is smoothed by.
SIGMAS = (0.7, 1.2, 2.0, 3.5, 6.0, 10.0)
#: Smoothed value, gradient magnitude, larger and smaller eigenvalue of the Hessian.
PER_SCALE = 4
#: Gaussians are cut at so many sigmas.
_TRUNCATE = 4.0
#: Side of the parts of a section whose features are computed together.
_TILE = 512


def pixel_features(images: npt.NDArray[np.float32], sigmas: Sequence[float] = SIGMAS, *, threads: int = 1) -> Features:
    """Features of every pixel of a section.

    Parameters
    ----------
    images : (c, y, x)
        Normalized channels; those of neighboring sections may follow. At the border the last pixels repeat.
    sigmas : sequence of float
    threads : int
        The result is the same for any number.

    Returns
    -------
    (c * len(sigmas) * 4, y, x)
        Per channel and scale: smoothed value, gradient magnitude, larger and smaller eigenvalue of the Hessian.
    """
    features = np.empty((len(images), len(sigmas), PER_SCALE, *images.shape[1:]), np.float32)

    def compute(place: tuple[int, int]) -> None:
        channel, scale = place
        _fill(features[channel, scale], images[channel], sigmas[scale])

    # The widest scales take longest, so they come first.
    places = sorted(itertools.product(range(len(images)), range(len(sigmas))), key=lambda place: -sigmas[place[1]])
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, places))
    return features.reshape(-1, *images.shape[1:])


def features_at(
    read: Callable[[slice, slice], npt.NDArray[np.float32]],
    places: npt.NDArray[np.int64],
    width: int,
    *,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Features (n, f) of some pixels of a section; only what lies around them is read and computed.

    Parameters
    ----------
    read : callable
        Gives rows and columns of the normalized section (c, y, x), cut at its borders.
    places : (n,)
        Their numbers in the flattened section; at least one.
    width : int
        Of the section.
    """
    y, x = np.divmod(places, width)
    tiles = (y // _TILE) * (width // _TILE + 1) + x // _TILE
    margin = reach()
    parts = []
    order = np.argsort(tiles, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(tiles[order])) + 1):
        top, left = max(0, int(y[here].min()) - margin), max(0, int(x[here].min()) - margin)
        window = read(slice(top, int(y[here].max()) + margin + 1), slice(left, int(x[here].max()) + margin + 1))
        features = pixel_features(window, threads=threads)
        parts.append(features[:, y[here] - top, x[here] - left].T)
    in_order = np.empty((len(places), parts[0].shape[1]), np.float32)
    in_order[order] = np.concatenate(parts)
    return in_order


def reach(sigmas: Sequence[float] = SIGMAS) -> int:
    """Largest distance (pixels) between a pixel and another that its features depend on."""
    # As scipy rounds the Gaussian's radius; the derivatives see one pixel further.
    return int(_TRUNCATE * max(sigmas) + 0.5) + 1


def _fill(features: Features, image: npt.NDArray[np.float32], sigma: float) -> None:
    """Compute the features of one channel and scale, (4, y, x), in place."""
    smooth, gradient, larger, smaller = features
    ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=_TRUNCATE, output=smooth)
    padded = np.pad(smooth, 1, mode="edge")
    above, below, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    np.hypot(below - above, right - left, out=gradient)
    twice = 2 * smooth
    yy, xx = above + below - twice, left + right - twice
    xy = (padded[2:, 2:] - padded[2:, :-2] - padded[:-2, 2:] + padded[:-2, :-2]) / 4
    middle, distance = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    np.add(middle, distance, out=larger)
    np.subtract(middle, distance, out=smaller)
