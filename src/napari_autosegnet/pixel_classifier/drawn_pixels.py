"""Which annotated pixels a forest is fitted on: as many of each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: So many pixels of a class and section are taken at least, where there are as many.
MIN_PER_CLASS = 20

#: Numbers of pixels in a flattened section.
Places = npt.NDArray[np.int64]


def drawn_by_class(target: npt.NDArray[np.uint8], most: int) -> Places:
    """Numbers of up to so many pixels of every class of a flattened section, 0 apart.

    They are scattered, and hardly change when some are painted anew, so that what is known of them stays of use.
    """
    annotated = np.flatnonzero(target)
    classes = target[annotated]
    drawn = [annotated[:0]]
    for number in np.unique(classes):
        places = annotated[classes == number]
        if len(places) > most:
            scattered = (places.astype(np.uint64) * np.uint64(2654435761)) % np.uint64(2**32)
            places = places[np.argpartition(scattered, most)[:most]]
        drawn.append(places)
    return np.sort(np.concatenate(drawn))
