"""Image folders, streamed: one batch in memory, however many files there are.

A file that cannot be used is left out of its batch and listed with its reason; the others go on. Pictures
arrive as a person would see them: upright as EXIF says, 16 bits scaled to 8, palettes and CMYK converted,
transparency on white, of an animation the first frame. Colour profiles are ignored.

Pictures of more than 2^25 pixels (33.6 million; half of that with 16 bits or transparency) are refused,
except JPEG, which is decoded at half its size up to Pillow's own limit (89 million); so are those more than
100 times as long as wide, of which a model's preprocessing would make a strip that fills the memory.
Everything that `mimlab.world.photograph` already
reads goes there, the reasons for refusal included; plain 8-bit pictures are decoded here, since there they
would pass through float64 at eight times the memory.

Batches are cut from the list of files before any is opened, so that a broken file changes no other batch and
a run that starts again in the middle sees the same batches.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mimlab.runs.errors import InputError
from mimlab.world.photograph import bundled_photographs, load_photograph

SUFFIXES = frozenset(
    f".{kind}"
    for kind in ("avif", "bmp", "gif", "jp2", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp")
)
"""Files that are taken for images, whatever the case."""
LARGEST = 2**25
LONGEST = 100
PLAIN = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})


@dataclass(frozen=True, eq=False)
class Batch:
    """names: of the pictures, in order. pixels: (len(names), 3, h, w) float32, (0, 3, 0, 0) where none could
    be used. skipped: the name and the reason of each file of this batch that was left out."""

    names: list[str]
    pixels: Tensor
    skipped: list[tuple[str, str]]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or len(self.pixels) != len(self.names):
            raise ValueError(f"pixels {tuple(self.pixels.shape)} do not show {len(self.names)} pictures")


def find_images(source: Path | Sequence[Path] | None) -> list[Path]:
    """Image files: those in a folder and the folders inside it, sorted; of a list of folders and files, in its order;
    of None, the photographs in scikit-image. Each file once, whatever ways lead to it.

    In folders only suffixes are looked at, SUFFIXES, and hidden files and folders are passed over. Raises InputError
    where a path does not exist or there is no image.
    """
    return each_once(every_image(source))


def every_image(source: Path | Sequence[Path] | None) -> list[Path]:
    """As `find_images`, but a file that is given twice is there twice."""
    if source is None:
        return sorted(bundled_photographs().values())
    if not isinstance(source, str | os.PathLike):
        given = [Path(path) for path in source]
        if not given:
            raise InputError("images: the list is empty; give folders or files.")
        return [path for one in given for path in every_image(one)]
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"images: there is no folder {source}, and no such file; check the path.")
    found = []
    for folder, inner, files in os.walk(source):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    images = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not images:
        others = f", only {len(found)} files of other kinds" if found else ""
        raise InputError(
            f"images: folder {source} holds no image{others}; give one with PNG, JPEG or the like."
        )
    return images


def each_once(paths: Sequence[Path]) -> list[Path]:
    """The first of all paths that lead to one file, by links or from other folders."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())


def open_image(path: Path) -> Image.Image:
    """A picture as 8-bit RGB, upright. Raises InputError with the reason where it cannot be used."""
    picture = _plain(path)
    if picture is None:
        grey_levels = np.rint(load_photograph(path) * 255).astype(np.uint8)
        picture = Image.fromarray(grey_levels)
    return picture


def _plain(path: Path) -> Image.Image | None:
    """A plain 8-bit picture; None where it is none, or cannot be read, and load_photograph says why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata that do not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                plain = image.mode in PLAIN and not image.has_transparency_data
                _check_size(image, path, LARGEST if plain else LARGEST // 2)
                if not plain:
                    return None
                if image.width * image.height > LARGEST:
                    image.draft(None, (image.width // 2, image.height // 2))
                return ImageOps.exif_transpose(image).convert("RGB")
    except InputError:
        raise
    except Exception:  # what a decoder raises on damaged bytes is not documented
        return None


def _check_size(image: Image.Image, path: Path, largest: int) -> None:
    width, height = image.size
    if width * height > largest and image.format not in ("JPEG", "MPO"):
        raise InputError(
            f"image {path} has {width} × {height} pixels, more than {largest / 1e6:.1f} million; give a "
            "smaller copy, or a JPEG."
        )
    if max(width, height) > LONGEST * min(width, height):
        raise InputError(
            f"image {path} has {width} × {height} pixels, a strip no model was made for; crop it."
        )


def batches(
    paths: Sequence[Path],
    preprocess: Callable[[Image.Image], Tensor],
    batch_size: int = 8,
    start: int = 0,
) -> Iterator[Batch]:
    """The pictures, preprocessed, batch_size files at a time, from batch number `start` on.

    A picture is named by its path from the folder that all have in common: by its file name where they lie in
    one folder. Pictures that cannot be opened are skipped and listed in their batch.

    Raises InputError where the preprocessing fails on a good picture, gives anything but finite pixels
    (3, h, w), or gives pictures of one batch different sizes.
    """
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size} must be at least 1.")
    paths = [path.absolute() for path in paths]
    common = os.path.commonpath([path.parent for path in paths]) if paths else ""
    for first in range(start * batch_size, len(paths), batch_size):
        names, pixels, skipped = [], [], []
        for path in paths[first : first + batch_size]:
            name = path.relative_to(common).as_posix()
            try:
                picture = open_image(path)
            except InputError as error:
                skipped.append((name, str(error)))
                continue
            names.append(name)
            pixels.append(_preprocessed(picture, preprocess, path))
        sizes = sorted({tuple(p.shape[1:]) for p in pixels})
        if len(sizes) > 1:
            raise InputError(
                f"the preprocessing makes pictures of different sizes, {sizes[0]} and {sizes[1]}; let it crop "
                "them to one, or take one picture at a time: batch_size = 1."
            )
        yield Batch(names, torch.stack(pixels) if pixels else torch.empty(0, 3, 0, 0), skipped)


def _preprocessed(picture: Image.Image, preprocess: Callable[[Image.Image], Tensor], path: Path) -> Tensor:
    try:
        pixels = preprocess(picture)
    except Exception as error:  # the user's own code, perhaps
        raise InputError(f"the preprocessing fails on {path}: {type(error).__name__}: {error}") from error
    if not isinstance(pixels, Tensor) or pixels.ndim != 3 or len(pixels) != 3 or not pixels.isfinite().all():
        got = f"shape {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
        raise InputError(
            f"the preprocessing must give a tensor (3, h, w) of finite pixels; of {path} it gives {got}."
        )
    return pixels.float()
