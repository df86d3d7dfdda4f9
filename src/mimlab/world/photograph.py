"""A photograph's own areas: its patch grid, partitioned into areas of like appearance (theory, section 9).

The photograph is resized, nothing cropped, until its shorter side is 224 pixels and both sides are whole
patches; scikit-image's graph-based segmentation (Felzenszwalb and Huttenlocher 2004) divides the pixels; each
patch joins the segment that covers most of it. The result stands in for the paper's partition. Two things are
assumed by that: one feature per area, where real areas vary inside, and areas that are the same in every
image of a cluster.

What an area is depends on how coarsely one looks: docs/photographs.md shows how far κc, κs and Δ move when
the scale of the segmentation halves or doubles. Choosing ``coarseness`` to obtain a wanted Δ makes Δ
meaningless.

Why this method: of those tried on photographs (slic, region adjacency graphs of patches and of superpixels
cut at a threshold, this one at several scales and in CIELAB) it was the one that drew what a person would
call areas: coins one by one, a saucer apart from its cup, a launch tower apart from the sky. It judges an
edge by the variation on either side of it. A region adjacency graph cuts at one fixed colour difference and
so loses whatever has little contrast; slic tiles the image with segments of nearly one size, and so decides
κs by itself.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mimlab.runs.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SMOOTHING = 0.8  # pixels; Felzenszwalb and Huttenlocher's own choice, too little to be seen
LARGEST_RESIZED = 2**23  # pixels, about 0.2 GB as float64 RGB

BUNDLED = {
    "astronaut": ("astronaut.png", "a portrait among many objects"),
    "brick": ("brick.png", "a wall: one texture with visible parts"),
    "camera": ("camera.png", "a man before a lawn and the sky"),
    "chelsea": ("chelsea.png", "a cat's face"),
    "clock": ("clock_motion.png", "a clock blurred by motion on an empty wall"),
    "coffee": ("coffee.png", "a cup on a table"),
    "coins": ("coins.png", "coins on a dark ground: one large area, many small ones"),
    "grass": ("grass.png", "one texture, fine"),
    "gravel": ("gravel.png", "one texture, coarse"),
    "hubble": ("hubble_deep_field.jpg", "galaxies smaller than a patch on a black sky"),
    "immunohistochemistry": ("ihc.png", "stained tissue, photographed through a microscope"),
    "moon": ("moon.png", "a plain with a few craters"),
    "motorcycle": ("motorcycle_left.png", "a crowded workshop"),
    "page": ("page.png", "a printed page in uneven light"),
    "retina": ("retina.jpg", "the inside of an eye, in a round frame"),
    "rocket": ("rocket.jpg", "a launch pad before a night sky"),
    "text": ("text.png", "handwriting on paper, seen at an angle"),
}
"""The photographs inside scikit-image's wheel: (file, what it shows). Every picture that a camera, scanner,
microscope or telescope took is in, whatever its areas; the choice was made before any gap was computed."""

LEFT_OUT = {
    "cell.png": "a phase image computed from a hologram",
    "chessboard_GRAY.png": "drawn",
    "chessboard_RGB.png": "drawn",
    "color.png": "drawn",
    "horse.png": "drawn",
    "logo.png": "drawn",
    "microaneurysms.png": "a crop of 102 pixels, which resizing would enlarge more than twice",
    "motorcycle_right.png": "the same scene as motorcycle_left.png: half of a stereo pair",
    "phantom.png": "drawn",
}
"""The other pictures in the wheel, and why each is left out."""


@dataclass(frozen=True, eq=False)
class PhotographAreas:
    """A photograph's patches and the area of each.

    labels
        Area of every patch, shape (grid rows, grid columns); patch p is at row p // columns, column p %
        columns. 0 is the largest area (of equals, the one that appears first), the paper's global area; the
        others are numbered by first appearance in that order. An area may be in several pieces, as in the
        paper.
    pixels
        The resized photograph, RGB in [0, 1], shape (grid rows × patch_size, grid columns × patch_size, 3).
    source_size
        Pixel (rows, columns) of the photograph before resizing, turned upright.
    patch_size
        Side of a patch in ``pixels``.
    """

    labels: Integers
    pixels: Floats
    source_size: tuple[int, int]
    patch_size: int

    def __post_init__(self) -> None:
        rows, columns = self.labels.shape
        if self.pixels.shape != (rows * self.patch_size, columns * self.patch_size, 3):
            raise ValueError(f"pixels of shape {self.pixels.shape} do not hold {rows} × {columns} patches")
        if min(self.sizes) < 1 or self.sizes[0] != max(self.sizes):
            raise ValueError("labels must number the areas 0..N-1, the largest first")
        for array in (self.labels, self.pixels):
            array.flags.writeable = False

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (down, across)."""
        rows, columns = self.labels.shape
        return rows, columns

    @property
    def sizes(self) -> tuple[int, ...]:
        """Patches in each area, in index order."""
        return tuple(np.bincount(self.labels.ravel()).tolist())


def bundled_photographs() -> dict[str, Path]:
    """The photographs inside the installed scikit-image, name to path, no download; see BUNDLED.

    One that another version of scikit-image leaves out of its wheel is absent here too.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    paths = {name: folder / file for name, (file, _) in BUNDLED.items()}
    return {name: path for name, path in paths.items() if path.is_file()}


def load_photograph(path: str | Path) -> Floats:
    """A photograph as RGB in [0, 1], shape (rows, columns, 3), upright as its EXIF orientation says.

    Grey is repeated in all three channels; palettes, CMYK and 16-bit grey are converted. What is transparent
    shows white, as on a page: shapes cut out on a transparent ground are mostly dark and would vanish on
    black. Values are the file's own, gamma-encoded; colour profiles are ignored. Of several frames the first
    is read.

    Raises InputError where there is no such file, or it is a directory, cannot be read, is not an image that
    Pillow knows, is damaged, exceeds Pillow's limit (89 million pixels), or has numbers without a known
    white.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if path.is_dir():
        raise InputError(f"image {path} is a directory; give an image file inside it.")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata that do not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _as_rgb(ImageOps.exif_transpose(Image.open(file)), path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"image {path} does not exist; check the path.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise InputError(f"image {path} has more than {limit} million pixels; give a smaller copy.") from None
    except UnidentifiedImageError:
        raise InputError(
            f"image {path} is not an image in a known format; give a PNG, JPEG or TIFF."
        ) from None
    except PermissionError as error:
        raise InputError(f"image {path} cannot be read ({error.strerror}); check its permissions.") from None
    except Exception as error:  # what a decoder raises on damaged bytes is not documented
        raise InputError(f"image {path} is damaged or cut short ({error}); give an intact file.") from error


def _as_rgb(image: Any, path: Path) -> Floats:
    """A Pillow image of any mode as floats."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64) / (2**16 - 1)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(
            f"image {path} has pixels of 32 bits with no known white; save it with 8 or 16 bits."
        )
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image.convert("RGB")).astype(np.float64) / (2**8 - 1)


def segment(
    photograph: npt.ArrayLike, patch_size: int = 16, short_side: int = 224, coarseness: float = 1.0
) -> PhotographAreas:
    """Divide a photograph's patches into areas of like appearance. Deterministic.

    Parameters
    ----------
    photograph
        RGB in [0, 1], shape (rows, columns, 3).
    patch_size
        Side of a patch, in pixels of the resized photograph.
    short_side
        Shorter side of the resized photograph, rounded to a whole number of patches. The longer side is
        rounded to one too, which distorts by at most half a patch: 3.6% with the default 14 patches, 7.1%
        with 7.
    coarseness
        Multiplies the segmentation's scale. Leave it at 1 except to see how much depends on it.

    How the segmentation is fixed, once: a segment grows across an edge while the edge is no stronger than the
    segment's own variation plus scale / (its pixels), in grey levels of 255. With scale = patch_size² a
    segment as large as one patch is granted one grey level, larger ones less; and no segment is smaller than
    one patch, since a patch is the smallest area there can be. Resizing averages all the pixels that a new
    one covers.

    Raises InputError for an array that is not such a photograph, one smaller than a patch or so elongated
    that it would be resized to more than 2^23 pixels, and for sizes or a coarseness that are not positive.

    >>> halves = np.zeros((32, 64, 3))
    >>> halves[:, 48:] = 1
    >>> segment(halves, short_side=32).labels
    array([[0, 0, 0, 1],
           [0, 0, 0, 1]])
    """
    from skimage.segmentation import felzenszwalb
    from skimage.transform import resize_local_mean

    source = np.asarray(photograph, dtype=np.float64)
    _check(source, patch_size, short_side, coarseness)
    height, width = source.shape[:2]
    rows, columns = grid_of(height, width, patch_size, short_side)
    if rows * columns * patch_size**2 > LARGEST_RESIZED:
        raise InputError(
            f"image of {width} × {height} pixels would become {columns} × {rows} patches of "
            f"{patch_size} × {patch_size}, more than {LARGEST_RESIZED} pixels; crop it."
        )
    shape = (rows * patch_size, columns * patch_size)
    resized = resize_local_mean(source, shape, channel_axis=-1)  # type: ignore[no-untyped-call]
    pixels: Floats = np.clip(resized, 0, 1)
    segments = felzenszwalb(
        pixels, scale=coarseness * patch_size**2, sigma=SMOOTHING, min_size=patch_size**2, channel_axis=-1
    )
    labels = _numbered(_majority(segments.astype(np.int64), patch_size))
    return PhotographAreas(labels, pixels, (height, width), int(patch_size))


def grid_of(rows: int, columns: int, patch_size: int, short_side: int) -> tuple[int, int]:
    """Patches (down, across) of a photograph of that many pixels, in a ratio as near to its own as can be.

    >>> grid_of(300, 451, 16, 224)
    (14, 21)
    """
    shorter = max(1, round(short_side / patch_size))
    down, across = (round(shorter * side / min(rows, columns)) for side in (rows, columns))
    return down, across


def patch_at(areas: PhotographAreas, x: int, y: int) -> int:
    """Index of the patch that shows a pixel of the original photograph.

    ``x`` counts pixels to the right and ``y`` down, from 0 at the top left of the photograph turned upright;
    the pixel's centre decides. Raises InputError outside the photograph.
    """
    rows, columns = areas.source_size
    for name, value, count in (("x", x, columns), ("y", y, rows)):
        if not _is_whole(value) or not 0 <= value < count:
            raise InputError(
                f"{name} = {value!r} is not a pixel of the photograph, {columns} wide and {rows} high; "
                f"give a whole number from 0 to {count - 1}."
            )
    down, across = areas.grid
    return (2 * int(y) + 1) * down // (2 * rows) * across + (2 * int(x) + 1) * across // (2 * columns)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check(source: Floats, patch_size: int, short_side: int, coarseness: float) -> None:
    for name, value in (("patch_size", patch_size), ("short_side", short_side)):
        if not _is_whole(value) or value < 1:
            raise InputError(f"{name} = {value!r} must be a positive whole number of pixels.")
    if short_side < patch_size:
        raise InputError(
            f"short_side = {short_side} holds no patch of {patch_size} pixels; lower patch_size."
        )
    if not 0 < coarseness < np.inf:
        raise InputError(f"coarseness = {coarseness} must be a positive number.")
    if source.ndim != 3 or source.shape[2] != 3:
        raise InputError(f"a photograph has shape (rows, columns, 3), not {source.shape}.")
    if min(source.shape[:2]) < patch_size:
        raise InputError(
            f"image of {source.shape[1]} × {source.shape[0]} pixels is smaller than one patch of "
            f"{patch_size} × {patch_size}; give a larger image or a smaller patch_size."
        )
    if not (np.isfinite(source).all() and source.min() >= 0 and source.max() <= 1):
        raise InputError("a photograph's values must be finite and lie in [0, 1]; divide by its white level.")


def _majority(segments: Integers, patch_size: int) -> Integers:
    """The segment that covers most of each patch, of equals the smallest; shape (down, across)."""
    down, across = (side // patch_size for side in segments.shape)
    patch = np.arange(down * across).reshape(down, across).repeat(patch_size, 0).repeat(patch_size, 1)
    base = segments.max() + 1
    pair, pixels = np.unique(patch * base + segments, return_counts=True)  # by patch, then segment
    order = np.lexsort((pair, -pixels, pair // base))
    _, first = np.unique(pair[order] // base, return_index=True)
    winner: Integers = pair[order][first] % base
    return winner.reshape(down, across)


def _numbered(labels: Integers) -> Integers:
    """The same partition with the largest area 0 (of equals, the first), the others by first appearance."""
    _, first, index, count = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    largest = order[np.argmax(count[order])]
    order = np.concatenate(([largest], order[order != largest]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[index].reshape(labels.shape).astype(np.int64)
