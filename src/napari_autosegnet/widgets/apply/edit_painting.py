"""Edits of objects painted into the annotation of the image that the objects are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.layers.axes import full_resolution
from napari_autosegnet.widgets.layers.section_layers import image_behind
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_autosegnet.inference.proofreading.annotation import EditAnnotation
    from napari_autosegnet.widgets.layers.class_colors import LabelClass


def paint_edits(
    session: Session, objects: Labels, edits: EditAnnotation, classes: tuple[LabelClass, ...]
) -> tuple[str, int]:
    """Paint where nothing is painted, as one step to undo: the annotation's name, and the number of voxels.

    Parameters
    ----------
    objects : napari.layers.Labels
        The layer that was edited.
    classes : tuple of LabelClass
        Of the result.

    Raises
    ------
    UserError
        When there is no annotation to paint in, and none can be made.
    """
    viewer = session.viewer
    image = image_behind(viewer, objects)
    if image is None:
        raise UserError(f"the image behind '{objects.name}' is not open; open it and use the edits again")
    target = session.annotation.annotation_of(image)
    if target is not None and session.annotation.class_list.zero_is_class:
        raise UserError(
            f"all of '{target.name}' is annotated, as unpainted pixels are a class; edits are painted only where "
            "nothing is annotated"
        )
    if target is None:
        target = session.annotation.new_labels(image)
        # Whoever mends objects goes on clicking at them.
        target.mode = "pan_zoom"
        viewer.layers.selection.active = objects
    values = session.annotation.values_of(classes)
    painted = edits.numbered(values).astype(full_resolution(target).dtype)
    target.visible = True  # napari keeps no slice of a hidden layer, and cannot change it then
    where = tuple(edits.places.T[3 - target.ndim :].astype(np.int64))
    free = np.asarray(full_resolution(target)[where] == 0)
    target.data_setitem(tuple(axis[free] for axis in where), painted[free])
    target.refresh()
    return target.name, int(free.sum())
