"""Batches of random crops, each a function of (seed, number): of a few large photographs, or of a folder of images.

A crop is a square window, wherever it fits with equal probability, resized (bilinear, antialiased) to `side` pixels.
`Crops` keeps its photographs in memory as 8 bits and cuts many crops of each: a photograph uniformly, then the side
of the window uniformly between two numbers of pixels. `FolderCrops` opens a file for each crop, each once in an
epoch: a permutation of the files per epoch, and windows by their share of the largest square's area. Either gives its
batches in order, from any number on.

What would mislead: a hold-out of crops. What is held out here is a photograph, or the user's own second folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from mimlab.probing.images import find_images, open_image
from mimlab.runs.errors import InputError
from mimlab.training.draws import generator


class Batch(NamedTuple):
    """pixels: (B, 3, side, side) float32 in [0, 1]. labels: (B,) int64, which photograph or class. skipped: files
    that could not be used, whose place the next file of the epoch took, with the reason. rendered: not photographs,
    but patches that no view may mix or mirror."""

    pixels: Tensor
    labels: Tensor
    skipped: tuple[tuple[str, str], ...] = ()
    rendered: bool = False


class Source(Protocol):
    """Where batches come from. images: how many files there are. classes: how many labels."""

    @property
    def images(self) -> int: ...

    @property
    def classes(self) -> int: ...

    def batch(self, number: int) -> Batch:
        """Batch `number`, from 0 on, always the same."""

    def batches(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """The batches of these numbers, in this order, read ahead where the source has workers."""


class Crops:
    """Crops of a few large photographs, all of them in memory.

    paths: photographs; a photograph's place is its label. side: of the crops, in pixels. windows: least and largest
    side of what is cut out, in pixels of the photograph. batch_size: crops in a batch. purpose: crops of another
    purpose are other crops. Raises InputError for a photograph in which the largest window does not fit.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        side: int,
        windows: tuple[int, int] = (48, 128),
        batch_size: int = 64,
        seed: int = 0,
        purpose: str = "training",
    ) -> None:
        self.side, self.windows, self.batch_size = side, windows, batch_size
        self.seed, self.purpose = seed, purpose
        self.photographs = [_pixels(path) for path in paths]
        for path, photograph in zip(paths, self.photographs, strict=True):
            if min(photograph.shape[1:]) < windows[1]:
                rows, columns = photograph.shape[1:]
                raise InputError(
                    f"photograph {path.name} of {columns} × {rows} pixels is smaller than a crop of {windows[1]}; "
                    f"give --crop LEAST LARGEST with at most {min(rows, columns)}, or a larger photograph."
                )
        self.images = self.classes = len(self.photographs)

    def batch(self, number: int) -> Batch:
        draws = generator(self.seed, number, self.purpose, "crops")
        labels = torch.randint(len(self.photographs), (self.batch_size,), generator=draws)
        low, high = self.windows
        sizes = torch.randint(low, high + 1, (self.batch_size,), generator=draws)
        places = torch.rand(self.batch_size, 2, generator=draws).double()
        crops = [
            _cut(self.photographs[label], size, place, self.side)
            for label, size, place in zip(labels.tolist(), sizes.tolist(), places.tolist(), strict=True)
        ]
        return Batch(torch.stack(crops).float().div_(255), labels)

    def batches(self, numbers: Iterable[int]) -> Iterator[Batch]:
        return map(self.batch, numbers)


class FolderCrops:
    """A crop of each image of a folder, an epoch after the other.

    folder: images, those in its own folders included. With two or more of these a label says in which one an image
    lies; else, which image it is. side: of the crops, in pixels. scale: least and largest share that a window has of
    the largest square's area. batch_size, seed, purpose: as for `Crops`. workers: processes that read ahead; what they
    read does not depend on them.

    Raises InputError where there are fewer images than a batch has, and from `batch` where more of them than that
    cannot be used: not an image, or with a side shorter than the crop.
    """

    def __init__(
        self,
        folder: Path,
        side: int,
        scale: tuple[float, float] = (0.2, 1.0),
        batch_size: int = 64,
        seed: int = 0,
        purpose: str = "training",
        workers: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.paths = find_images(self.folder)
        self.side, self.scale, self.batch_size = side, scale, batch_size
        self.seed, self.purpose, self.workers = seed, purpose, workers
        self.labels = folder_labels(self.folder, self.paths)
        self.images, self.classes = len(self.paths), max(self.labels) + 1
        if self.images < batch_size:
            key, use, flag = "images", f"a batch of {batch_size}", "--batch-size"
            if purpose == "held out":
                key, use, flag = "held_out", f"the {batch_size} crops that are watched", "--crops"
            raise InputError(
                f"{key}: {self.folder} holds {self.images}, too few for {use}; give {flag} {self.images} or less, or "
                "more images."
            )

    def batch(self, number: int) -> Batch:
        crops, labels, skipped = [], [], []
        for index in range(number * self.batch_size, (number + 1) * self.batch_size):
            draws = generator(self.seed, index, self.purpose, "crop")
            for image in self._candidates(index):
                try:
                    pixels = _pixels(self.paths[image])
                    largest = min(pixels.shape[1:])
                    if largest < self.side:
                        raise InputError(f"{largest} pixels are less than a crop's {self.side}")
                except InputError as error:
                    skipped.append((os.path.relpath(self.paths[image], self.folder), str(error)))
                    if len(skipped) > self.batch_size:
                        raise InputError(_unusable(self.folder, skipped)) from None
                    continue
                low, high = self.scale
                share, *place = torch.rand(3, generator=draws).tolist()
                size = round(largest * (low + (high - low) * share) ** 0.5)
                crops.append(_cut(pixels, max(size, 1), place, self.side))
                labels.append(self.labels[image])
                break
            else:
                raise InputError(_unusable(self.folder, skipped))
        return Batch(torch.stack(crops).float().div_(255), torch.tensor(labels), tuple(skipped))

    def batches(self, numbers: Iterable[int]) -> Iterator[Batch]:
        loader = DataLoader(
            cast(Any, _Numbered(self)),
            batch_size=None,
            sampler=cast(Any, numbers),
            num_workers=self.workers,
            generator=torch.Generator(),  # else the loader would draw from the global one
        )
        return iter(loader)

    def _candidates(self, index: int) -> Iterator[int]:
        """The image of this place in its epoch, then those after it, which stand in for one that is unusable."""
        epoch, place = divmod(index, self.images)
        order = _permutation(self.images, self.seed, epoch, self.purpose)
        return (int(order[(place + ahead) % self.images]) for ahead in range(self.images))


def _unusable(folder: Path, skipped: Sequence[tuple[str, str]]) -> str:
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in skipped[:3])
    return (
        f"images: {folder} has too many that cannot be used, {len(skipped)} for one batch:\n{reasons}\n"
        "Give images of at least a crop's size, or a smaller --image-size."
    )


@lru_cache(maxsize=2)
def _permutation(images: int, seed: int, epoch: int, purpose: str) -> Tensor:
    return torch.randperm(images, generator=generator(seed, epoch, purpose, "epoch"))


def folder_labels(folder: Path, paths: Sequence[Path]) -> list[int]:
    """Which of the folder's own folders each lies in; which image each is, where there are fewer than two."""
    inner = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in paths]
    names = {name: label for label, name in enumerate(sorted(set(inner)))}
    return [names[name] for name in inner] if len(names) > 1 else list(range(len(paths)))


def _pixels(path: Path) -> Tensor:
    """A picture as (3, h, w) uint8."""
    return torch.from_numpy(np.array(open_image(path))).permute(
        2, 0, 1
    )  # colours last in memory: resized faster


def _cut(pixels: Tensor, size: int, place: Sequence[float], side: int) -> Tensor:
    """The window of `size` pixels at a place in [0, 1)² of those where it fits, resized to (3, side, side) uint8."""
    top, left = (int(at * (length - size + 1)) for at, length in zip(place, pixels.shape[1:], strict=True))
    window = pixels[None, :, top : top + size, left : left + size]
    if size == side:
        return window[0]
    return interpolate(window, (side, side), mode="bilinear", antialias=True)[0]


class _Numbered:
    """A source as a data loader asks it."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Batch:
        return self.source.batch(number)
