"""Which of a viewer's layers are images and annotation, and which of them belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_autosegnet.data.name_matching import partners
from napari_autosegnet.widgets.layers.axes import is_ambiguous
from napari_autosegnet.widgets.layers.layer_arrays import is_stack, sections, spatial_shape
from napari_autosegnet.widgets.layers.notes import role
from napari_autosegnet.widgets.layers.section_layers import image_behind
from napari_autosegnet.widgets.layers.view import lies_on, pixels_apart

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

#: Names that napari gives by itself; their numbers say nothing.
_NUMBERED = re.compile(r"Labels( \[\d+\])?")


@dataclass(frozen=True, eq=False)
class LayerPair:
    """An image layer and a Labels layer of its shape, in which classes are painted."""

    image: Image
    labels: Labels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerPair) and self.image is other.image and self.labels is other.labels

    def __hash__(self) -> int:
        return hash((id(self.image), id(self.labels)))

    @property
    def name(self) -> str:
        return f"{self.image.name} / {self.labels.name}"

    @property
    def sections(self) -> int:
        return sections(self.image)


@dataclass(frozen=True)
class Displacement:
    """Annotation that the viewer shows elsewhere than on its image, so that strokes land elsewhere than they are seen.

    Pixels belong together by their number. ``pixels`` of the image is how far they are apart, where it is most.
    """

    pair: LayerPair
    pixels: float

    def __str__(self) -> str:
        return (
            f"'{self.pair.labels.name}' is shown up to {self.pixels:.3g} pixels away from where it lies on "
            f"'{self.pair.image.name}'"
        )


class LayerPairs:
    """The user's layers, and what they chose: which image a Labels layer belongs to, and whether it is used.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self._unused: set[int] = set()
        self._of_classes: set[int] = set()
        self._chosen_image: dict[int, Image] = {}

    def images(self) -> list[Image]:
        """The user's image layers whose axes are known, from the bottom to the top."""
        from napari.layers import Image

        return [
            layer
            for layer in self.viewer.layers
            if type(layer) is Image and not role(layer) and is_stack(layer) and not is_ambiguous(layer)
        ]

    def labels(self) -> list[Labels]:
        """The user's Labels layers that lie on an image, used or not, from the bottom to the top."""
        return [layer for layer in self.viewer.layers if is_annotation(layer) and self.image_choices(layer)]

    def image_choices(self, labels: Labels) -> list[Image]:
        """Image layers of the same shape as a Labels layer."""
        shape = spatial_shape(labels)
        if len(shape) != labels.ndim:
            return []  # labels have no channels
        return [image for image in self.images() if spatial_shape(image) == shape]

    def strays(self) -> list[Labels]:
        """The user's Labels layers that fit no image, from the bottom to the top."""
        return [layer for layer in self.viewer.layers if is_annotation(layer) and not self.image_choices(layer)]

    def displacement(self) -> Displacement | None:
        """The topmost annotation in use that the viewer shows elsewhere than on its image."""
        for labels in reversed(self.labels()):
            image = self.image_of(labels) if self.is_used(labels) else None
            if image is not None and not lies_on(self.viewer, labels, image):
                return Displacement(LayerPair(image, labels), float(pixels_apart(self.viewer, labels, image).max()))
        return None

    def image_of(self, labels: Labels) -> Image | None:
        """Image that a Labels layer belongs to: as chosen or known before, by place and name, or the nearest below."""
        choices = self.image_choices(labels)
        chosen = self._chosen_image.get(id(labels))
        if any(chosen is image for image in choices):
            return chosen
        choices = [image for image in choices if lies_on(self.viewer, labels, image)] or choices
        named = self._image_by_name(labels, choices)
        if named is not None:
            return named
        order = {id(layer): place for place, layer in enumerate(self.viewer.layers)}
        place = order[id(labels)]
        below = [image for image in choices if order[id(image)] < place]
        return below[-1] if below else choices[0] if choices else None

    def _image_by_name(self, labels: Labels, choices: Sequence[Image]) -> Image | None:
        """The image whose name says that it belongs to a Labels layer, as files would be paired."""
        if _NUMBERED.fullmatch(labels.name):
            return None
        index = partners([labels.name], [image.name for image in choices])[0]
        return None if index is None else choices[index]

    def choose_image(self, labels: Labels, image: Image) -> None:
        self._chosen_image[id(labels)] = image

    def is_used(self, labels: Labels) -> bool:
        return id(labels) not in self._unused

    def use(self, labels: Labels, used: bool) -> None:
        """Count a Labels layer as annotation, or leave it out."""
        if used:
            self._unused.discard(id(labels))
        else:
            self._unused.add(id(labels))

    def holds_classes(self, labels: Labels) -> bool:
        """Whether somebody said that the values of a layer are classes, however much they look like objects."""
        return id(labels) in self._of_classes

    def take_for_classes(self, labels: Labels) -> None:
        """Say that the values of a layer are classes."""
        self._of_classes.add(id(labels))

    def follow(self) -> list[LayerPair]:
        """Forget layers that are gone, and remember what belongs together; returns the pairs that are used."""
        alive = {id(layer) for layer in self.viewer.layers}
        self._unused &= alive
        self._of_classes &= alive
        self._chosen_image = {
            key: image for key, image in self._chosen_image.items() if key in alive and id(image) in alive
        }
        pairs = []
        for labels in self.labels():
            image = self.image_of(labels)
            if image is not None:
                # The order of the layers may change: what belongs together does not.
                self._chosen_image.setdefault(id(labels), image)
                if self.is_used(labels):
                    pairs.append(LayerPair(image, labels))
        return pairs

    def image_in_view(self) -> Image | None:
        """The image that "the slice in view" means: the selected one, or that under the selected Labels layer."""
        from napari.layers import Labels

        images = self.images()
        active = self.viewer.layers.selection.active
        if any(active is image for image in images):
            return active
        image = None
        if active is not None and role(active):
            image = image_behind(self.viewer, active)
        elif isinstance(active, Labels):
            image = self.image_of(active)
        if image is not None:
            return image
        visible = [image for image in images if image.visible]
        return (visible or images or [None])[-1]


def is_annotation(layer: Any) -> bool:
    """Whether a layer is a Labels layer of the user's, and not one that a step made."""
    from napari.layers import Labels

    return isinstance(layer, Labels) and not role(layer)
