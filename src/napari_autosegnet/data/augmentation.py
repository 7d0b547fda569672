"""Random changes of training patches, batch-wise on their device (AutoSegNet, section IV.A; ours adds
elastic deformation, blur and noise).

Every random number comes from the CPU generator handed in, so its state is all the state there is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from napari_autosegnet.settings import AugmentationSettings

#: Pixels between the control points of an elastic deformation.
ELASTIC_SPACING = 32


def is_exact(settings: AugmentationSettings) -> bool:
    """Whether only flips and quarter turns are asked for, which need no interpolation."""
    return settings.rotation != "any" and settings.scale == 0 and settings.elastic == 0


def canvas_size(size: int, settings: AugmentationSettings) -> int:
    """Side of the square that holds everything a warped patch of ``size`` can read."""
    if is_exact(settings):
        return size
    turned = size * math.sqrt(2) if settings.rotation == "any" else size
    # Two pixels more on each side for the interpolation's neighbors; and an even difference, so that
    # the patch's pixels lie on the canvas's when nothing is warped.
    side = math.ceil(turned / (1 - settings.scale) + 2 * settings.elastic) + 4
    return side + (side - size) % 2


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Values moved to a device, without waiting for it where that is safe."""
    return values.to(device, non_blocking=device.type != "mps")


def uniform(count: int, generator: torch.Generator, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Random numbers ``(count,)`` on the CPU."""
    return torch.rand(count, generator=generator) * (high - low) + low


def warp_grid(
    count: int, size: int, canvas: int, settings: AugmentationSettings, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Where in a canvas each pixel of a patch is read: flips, rotation, zoom and elastic in one.

    Returns
    -------
    Tensor
        ``(n, size, size, 2)``, x and y as `torch.nn.functional.grid_sample` takes them with
        ``align_corners=False``.
    """
    if settings.rotation == "any":
        angle = uniform(count, generator, -math.pi, math.pi)
    else:
        turns = torch.randint(4, (count,), generator=generator).float()
        angle = turns * (math.pi / 2) * (settings.rotation == "quarter")
    zoom = 1 / (1 + settings.scale * uniform(count, generator))
    mirror = 1.0 - 2.0 * torch.randint(2, (2, count), generator=generator).float()
    if not settings.flips:
        mirror = torch.ones_like(mirror)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # Rows: how far canvas x and y move for one pixel of patch x and y.
    matrix = torch.stack([cosine * mirror[0], -sine * mirror[1], sine * mirror[0], cosine * mirror[1]], 1)
    matrix = to_device(matrix.view(count, 2, 2), device)
    steps = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
    moved_x = steps[:, None] * matrix[:, None, :, 0]  # (n, size along x, 2)
    moved_y = steps[:, None] * matrix[:, None, :, 1]
    offset = moved_y[:, :, None, :] + moved_x[:, None, :, :]
    if settings.elastic > 0:
        offset = offset + _displacement(count, size, settings.elastic, generator, device)
    return offset * (2 / canvas)


def _displacement(count: int, size: int, largest: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Smooth random displacement ``(n, size, size, 2)``, at most ``largest`` pixels along each axis."""
    points = max(2, math.ceil(size / ELASTIC_SPACING)) + 1
    strength = torch.rand(count, 1, 1, 1, generator=generator) * largest
    control = (torch.rand(count, 2, points, points, generator=generator) * 2 - 1) * strength
    field = functional.interpolate(to_device(control, device), (size, size), mode="bicubic", align_corners=True)
    return field.clamp_(-largest, largest).permute(0, 2, 3, 1)  # bicubic overshoots


def warp(images: Tensor, targets: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Read patches from canvases: images bicubically, targets at the nearest pixel.

    Bilinear interpolation smooths away much of an image's noise, and a network that has not learned to see through
    noise is worse on the image itself.

    Parameters
    ----------
    images : Tensor
        ``(n, c, canvas, canvas)`` float.
    targets : Tensor
        ``(n, canvas, canvas)`` of any integer type; what lies outside the region must hold the value
        for "not annotated" already.
    grid : Tensor
        ``(n, size, size, 2)`` from `warp_grid`.
    """
    count, _, canvas, _ = images.shape
    # Apple's devices have no bicubic sampling.
    mode = "bilinear" if images.device.type == "mps" else "bicubic"
    warped = functional.grid_sample(images, grid, mode=mode, align_corners=False)
    nearest = ((grid + 1) * (canvas / 2) - 0.5).round_().clamp_(0, canvas - 1).long()
    flat = nearest[..., 1] * canvas + nearest[..., 0]
    picked = targets.reshape(count, -1).gather(1, flat.reshape(count, -1))
    return warped, picked.reshape(flat.shape)


def turn(patch: Tensor, quarter_turns: int, flip_y: bool, flip_x: bool) -> Tensor:
    """Exact quarter turns and flips over the last two axes."""
    if quarter_turns:
        patch = torch.rot90(patch, quarter_turns, (-2, -1))
    axes = [axis for axis, flipped in ((-2, flip_y), (-1, flip_x)) if flipped]
    return patch.flip(axes) if axes else patch


def change_gray_values(images: Tensor, settings: AugmentationSettings, generator: torch.Generator) -> Tensor:
    """Contrast and brightness, then blur, then noise, of normalized images ``(n, c, y, x)``."""
    count = images.shape[0]
    if settings.contrast > 0 or settings.brightness > 0:
        factor = 1 + settings.contrast * uniform(count, generator)
        shift = settings.brightness * uniform(count, generator)
        images = torch.addcmul(_per_patch(shift, images), images, _per_patch(factor, images))
    if settings.blur > 0:
        images = blur(images, uniform(count, generator, 0, settings.blur), largest=settings.blur)
    if settings.noise > 0:
        strength = uniform(count, generator, 0, settings.noise)
        # Drawn on the CPU, so that every device sees the same patches.
        noise = to_device(torch.randn(images.shape, generator=generator), images.device)
        images = images + _per_patch(strength, images) * noise
    return images


def blur(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """Gaussian blur of each image ``(n, c, y, x)`` with a sigma of its own, in pixels.

    Borders are reflected. ``largest`` bounds the sigmas and sets the kernel's width.
    """
    radius = max(1, min(math.ceil(2.5 * largest), images.shape[-1] - 1, images.shape[-2] - 1))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (steps / sigmas.clamp(min=1e-3)[:, None]) ** 2)
    kernels = to_device(kernels / kernels.sum(1, keepdim=True), images.device)
    for axis in (-2, -1):
        length = images.shape[axis]
        padding = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        padded = functional.pad(images, padding, mode="reflect")
        blurred = torch.zeros_like(images)
        # A few shifted additions: depthwise convolutions with few channels are slower on the CPU.
        for step in range(2 * radius + 1):
            blurred.addcmul_(padded.narrow(axis, step, length), _per_patch(kernels[:, step], images))
        images = blurred
    return images


def _per_patch(values: Tensor, images: Tensor) -> Tensor:
    return to_device(values, images.device).view(-1, 1, 1, 1)
