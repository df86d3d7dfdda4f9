"""What a network is shown of a crop: plain cuts for masking and labels, strong augmentation for pairs of views.

Pixels come in as (B, 3, S, S) in [0, 1], with S about 1.5 times the side of a view, and go to the network
standardised by ImageNet's channel means and deviations. A plain view is a cut of one scale, at a random place and
mirrored or not: no pixel is resampled. A strong view is SimCLR's (Chen et al. 2020): a window of a random share of
the area and of random aspect, mirrored or not, with its colours changed, some without any, by Kornia's functions.
Views of 96 pixels or more are also blurred, as there; smaller ones are not, as in that paper's CIFAR-10 setting.

All numbers come from the generator that is given, on the CPU. Kornia's own augmentation modules draw from the global
generator, so a resumed run would draw others: only Kornia's functions are used.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import kornia
import torch
from kornia.geometry.transform import crop_and_resize
from torch import Generator, Tensor

from mimlab.probing.preprocessing import IMAGENET
from mimlab.training.masks import masked_count, random_masks

MEAN, STD = IMAGENET

BLURRED_FROM = 96


def source_side(image_size: int) -> int:
    """Side of the crops that views of `image_size` pixels are taken from: half as much again."""
    return image_size + image_size // 2


def standardise(pixels: Tensor) -> Tensor:
    """From [0, 1] to channels of mean about 0 and deviation about 1; any shape (..., 3, h, w)."""
    return (pixels - _channels(MEAN, pixels)) / _channels(STD, pixels)


def to_unit(pixels: Tensor) -> Tensor:
    """The inverse of `standardise`, not clipped."""
    return pixels * _channels(STD, pixels) + _channels(MEAN, pixels)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).reshape(3, 1, 1)


def centre(pixels: Tensor, side: int) -> Tensor:
    """The middle (B, 3, side, side) of crops: a view without chance, to watch and evaluate."""
    top, left = ((length - side) // 2 for length in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]


def plain(pixels: Tensor, side: int, generator: Generator) -> Tensor:
    """A (B, 3, side, side) cut of each crop at a random place, half of them mirrored."""
    batch, _, height, width = pixels.shape
    draws = torch.rand(3, batch, generator=generator).to(pixels.device)
    top = (draws[0] * (height - side + 1)).long()
    left = (draws[1] * (width - side + 1)).long()
    steps = torch.arange(side, device=pixels.device)
    across = torch.where(draws[2, :, None] < 0.5, steps, side - 1 - steps)
    rows, columns = top[:, None] + steps, left[:, None] + across
    places = (rows[:, :, None] * width + columns[:, None]).flatten(
        1
    )  # one index is gathered faster than four
    cut = pixels.flatten(2).gather(2, places[:, None].expand(-1, pixels.shape[1], -1))
    return cut.unflatten(2, (side, side))


def hidden(pixel_values: Tensor, patch_size: int, generator: Generator, share: float = 0.5) -> Tensor:
    """Standardised images (B, 3, s, s) with a share of their patches, drawn for each image, set to 0."""
    grid = pixel_values.shape[-1] // patch_size
    masks = random_masks(len(pixel_values), grid, masked_count(grid**2, share), generator)
    kept = (~masks).to(pixel_values).reshape(-1, 1, grid, grid)
    return pixel_values * kept.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)


def strong(
    pixels: Tensor,
    side: int,
    generator: Generator,
    scale: tuple[float, float] = (0.15, 1.0),
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
) -> Tensor:
    """A (B, 3, side, side) view of each crop by SimCLR's augmentation, in [0, 1].

    scale: least and largest share of the crop's area. jitter: largest relative change of brightness, contrast and
    saturation, and largest turn of the hue (as a share of a full turn), for 80% of the images; 20% turn grey.
    """
    with torch.autocast(pixels.device.type, enabled=False):  # it would round the corners of the windows
        view = resized_crop(pixels, side, generator, scale)
        view = _apply(view, 0.8, generator, lambda chosen: colour_jitter(chosen, jitter, generator))
        view = _apply(view, 0.2, generator, _grey)
        if side >= BLURRED_FROM:
            view = _apply(view, 0.5, generator, lambda chosen: _blur(chosen, generator))
    return view


def resized_crop(pixels: Tensor, side: int, generator: Generator, scale: tuple[float, float]) -> Tensor:
    """A window of each crop, of a share of the area within `scale` and an aspect within 3/4 and 4/3 as far as the
    crop allows, at a random place, half of them mirrored, resized (bilinear) to (B, 3, side, side)."""
    batch, _, height, width = pixels.shape
    area, aspect, top, left, mirror = torch.rand(5, batch, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * area
    ratio = (4 / 3) ** (2 * aspect - 1)
    high = (area / ratio).sqrt().clamp(max=1) * (height - 1)
    wide = (area * ratio).sqrt().clamp(max=1) * (width - 1)
    top, left = top * (height - 1 - high), left * (width - 1 - wide)
    start = torch.where(mirror < 0.5, left, left + wide)
    end = torch.where(mirror < 0.5, left + wide, left)
    corners = [(start, top), (end, top), (end, top + high), (start, top + high)]
    boxes = torch.stack([torch.stack(corner, -1) for corner in corners], 1)
    return crop_and_resize(pixels, boxes.to(pixels), (side, side))


def colour_jitter(pixels: Tensor, jitter: tuple[float, float, float, float], generator: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, each image by its own factors, in one random order."""
    brightness, contrast, saturation, hue = jitter
    draws = (2 * torch.rand(4, len(pixels), generator=generator) - 1).to(pixels)
    steps: list[Callable[[Tensor], Tensor]] = [
        lambda image: kornia.enhance.adjust_brightness_accumulative(image, 1 + brightness * draws[0]),
        lambda image: kornia.enhance.adjust_contrast_with_mean_subtraction(image, 1 + contrast * draws[1]),
        lambda image: kornia.enhance.adjust_saturation_with_gray_subtraction(
            image, 1 + saturation * draws[2]
        ),
        lambda image: kornia.enhance.adjust_hue(image, 2 * pi * hue * draws[3]),
    ]
    for place in torch.randperm(4, generator=generator).tolist():
        pixels = steps[place](pixels).clamp(0, 1)
    return pixels


def _apply(pixels: Tensor, share: float, generator: Generator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images with a change made to so large a share of them, by chance."""
    chosen = (torch.rand(len(pixels), generator=generator) < share).nonzero()[:, 0].to(pixels.device)
    return pixels.index_copy(0, chosen, change(pixels[chosen])) if len(chosen) else pixels


def _grey(pixels: Tensor) -> Tensor:
    return kornia.color.rgb_to_grayscale(pixels).expand_as(pixels)


def _blur(pixels: Tensor, generator: Generator) -> Tensor:
    """Gaussian, of deviation 0.1 to 2 pixels at 224, with a kernel of a tenth of the side."""
    side = pixels.shape[-1]
    deviation = (0.1 + 1.9 * torch.rand(len(pixels), 1, generator=generator)) * side / 224
    kernel = 2 * (side // 20) + 1
    return kornia.filters.gaussian_blur2d(pixels, (kernel, kernel), deviation.expand(-1, 2).to(pixels))
