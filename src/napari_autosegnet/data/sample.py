"""The sample that is shipped with the program."""

from __future__ import annotations

from pathlib import Path


def sample_folder() -> Path:
    """Folder of the axon and myelin SEM sample.

    ``axon-sem-a.png`` is for training, ``axon-sem-b.png`` for prediction, each 512 x 512 uint8 with a
    ``-labels.png`` beside it: 0 background, 1 myelin, 2 axon. From data_axondeepseg_sem, sub-rat6
    (Zaimi et al. 2018; MIT, see ``LICENSE-data.txt`` there).
    """
    return Path(__file__).parent / "sample"


#: How the values of the sample's label files are read (for `parse_classes`).
SAMPLE_CLASSES = "0:background,1:myelin,2:axon"
