"""Figures over a photograph: its areas, and where the attention from one patch goes.

Attention is shown per patch, linear from 0 to the panel's own maximum: colours compare patches within a
panel, not panels with each other; each panel's colour bar gives its scale. The photograph is grey so that
colour is attention. Patches are squares of `patch_size` pixels from the top left corner; what is left at the
right and bottom is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from mimlab.report.numbers import format_number
from mimlab.report.style import COLOURS, INK, WIDTH, new_figure, save, styled

_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601
_STRONGEST = 0.75  # opacity of the largest attention: the photograph stays visible under it


def draw_attention_on_photograph(
    pixels: ArrayLike,
    labels: ArrayLike,
    maps: Sequence[ArrayLike],
    titles: Sequence[str],
    query_patch: int,
    patch_size: int,
    path: str | Path,
) -> Figure:
    """The photograph once for each moment, covered by the attention that `query_patch` pays to each patch.

    Parameters
    ----------
    pixels
        (height, width), (height, width, 3) or with a fourth channel that is ignored; uint8, or floats in [0,
        1].
    labels
        (rows, columns): the area of each patch; their boundaries are drawn faintly.
    maps
        For each moment, attention per patch in [0, 1], (rows, columns) or flat, row by row.
    titles
        A title for each moment.
    query_patch
        Index of the patch that asks, counted row by row from 0; outlined in every panel.
    patch_size
        Side of a patch in `pixels`.
    path
        PNG to write. The figure is returned.

    Raises
    ------
    ValueError
        Where the shapes do not fit each other, or the query is outside the grid.
    """
    areas = _grid(labels)
    photograph = _cropped(pixels, areas.shape, patch_size)
    if not maps or len(maps) != len(titles):
        raise ValueError(f"{len(maps)} maps and {len(titles)} titles: give as many of each, and at least one")
    if not 0 <= query_patch < areas.size:
        raise ValueError(f"query patch {query_patch} is outside the grid of {areas.size} patches")
    attention = [np.asarray(one, dtype=np.float64).reshape(areas.shape) for one in maps]
    columns = len(maps) if len(maps) < 4 else ceil(len(maps) / 2)
    rows = ceil(len(maps) / columns)
    width = WIDTH / columns
    height = width * areas.shape[0] / areas.shape[1]
    with styled():
        figure = new_figure(height=rows * (min(height, 1.6 * width) + 1.0))
        for place, (one, title) in enumerate(zip(attention, titles, strict=True), start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(fill(title, max(12, int(12.5 * width))), fontsize=11)
            _photograph(axes, photograph @ _GREY, patch_size)
            _boundaries(axes, areas, "white", 0.6, 0.45)
            _cover(figure, axes, one)
            _outline(axes, query_patch, areas.shape[1])
        save(figure, path, _describe(attention, titles, areas, query_patch), trim=True)
    return figure


def draw_segmentation(pixels: ArrayLike, labels: ArrayLike, path: str | Path, title: str) -> Figure:
    """The photograph beside its areas, each in its own mean colour, the largest hatched and outlined.

    `pixels` as in `draw_attention_on_photograph`, but no more of them than the patches cover; `labels`
    (rows, columns) the area of each patch. Written to `path` (PNG); the figure is returned. Raises ValueError
    where the pixels are not a whole number of square patches.
    """
    areas = _grid(labels)
    shape = np.asarray(pixels).shape
    patch_size = shape[0] // areas.shape[0]
    if shape[:2] != (areas.shape[0] * patch_size, areas.shape[1] * patch_size):
        raise ValueError(
            f"a photograph of shape {shape} is not {areas.shape[0]}×{areas.shape[1]} square patches"
        )
    photograph = _cropped(pixels, areas.shape, patch_size)
    sizes = np.unique_counts(areas)
    largest = sizes.values[np.argmax(sizes.counts)]
    share = f"{sizes.counts.max()} of {areas.size} patches"
    with styled():
        figure = new_figure(height=WIDTH / 2 * min(1.6, areas.shape[0] / areas.shape[1]) + 0.6)
        left, right = figure.subplots(1, 2)
        _photograph(left, photograph, patch_size)
        left.set_title(f"{fill(title, 34)}\n", fontsize=11)
        means = _mean_colours(photograph, areas, patch_size)
        right.imshow(means, extent=_extent(areas.shape), interpolation="nearest")
        _boundaries(right, areas, "white", 0.8, 0.9)
        edges = _edges(np.pad(areas == largest, 1), shift=-1)
        right.add_collection(
            LineCollection(edges, colors=COLOURS["paper"], linewidths=2.2, capstyle="projecting")
        )
        contrast = "white" if means[areas == largest][0] @ _GREY < 0.5 else INK
        for row, column in np.argwhere(areas == largest).tolist():
            patch = Rectangle((column, row), 1, 1, fill=False, hatch="///", linewidth=0, alpha=0.6)
            patch.set_edgecolor(contrast)
            right.add_patch(patch)
        right.set_title(f"{len(sizes.values)} areas; the largest, hatched:\n{share}", fontsize=11)
        right.set_axis_off()
        areas_told = f"its {len(sizes.values)} areas; the largest has {share}"
        save(figure, path, f"{title}: the photograph beside {areas_told}.", trim=True)
    return figure


def attention_colours() -> ListedColormap:
    """Viridis, from transparent at 0 to nearly opaque at the maximum."""
    colours = colormaps["viridis"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, _STRONGEST, 256)
    return ListedColormap(colours, name="attention")


def _grid(labels: ArrayLike) -> NDArray[np.int64]:
    areas = np.asarray(labels)
    if areas.ndim != 2 or not areas.size:
        raise ValueError(
            f"labels must be a grid (rows, columns) of areas, not an array of shape {areas.shape}"
        )
    return areas.astype(np.int64)


def _cropped(pixels: ArrayLike, grid: tuple[int, ...], patch_size: int) -> NDArray[np.float64]:
    """(height, width, 3) in [0, 1], the part that the patches cover."""
    image = np.asarray(pixels)
    values = image / 255.0 if image.dtype == np.uint8 else np.clip(image.astype(np.float64), 0.0, 1.0)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    height, width = grid[0] * patch_size, grid[1] * patch_size
    if values.ndim != 3 or patch_size < 1 or values.shape[0] < height or values.shape[1] < width:
        raise ValueError(
            f"a photograph of shape {image.shape} does not hold {grid[0]}×{grid[1]} patches "
            f"of {patch_size} pixels"
        )
    return np.asarray(values[:height, :width, :3], dtype=np.float64)


def _extent(grid: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Axes in units of patches: patch (r, c) covers [c, c+1] × [r, r+1], row 0 at the top."""
    return (0.0, float(grid[1]), float(grid[0]), 0.0)


def _photograph(axes: Axes, image: NDArray[np.float64], patch_size: int) -> None:
    grid = image.shape[0] // patch_size, image.shape[1] // patch_size
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=_extent(grid))
    axes.set_axis_off()


def _edges(areas: NDArray[np.generic], shift: int = 0) -> list[list[tuple[float, float]]]:
    """Sides between neighbouring patches of different areas, as segments (x, y)."""
    upright = np.argwhere(areas[:, 1:] != areas[:, :-1]).astype(float) + shift
    level = np.argwhere(areas[1:] != areas[:-1]).astype(float) + shift
    return [
        *([(c + 1, r), (c + 1, r + 1)] for r, c in upright.tolist()),
        *([(c, r + 1), (c + 1, r + 1)] for r, c in level.tolist()),
    ]


def _boundaries(axes: Axes, areas: NDArray[np.int64], colour: str, width: float, alpha: float) -> None:
    axes.add_collection(LineCollection(_edges(areas), colors=colour, linewidths=width, alpha=alpha))


def _cover(figure: Figure, axes: Axes, attention: NDArray[np.float64]) -> None:
    """Attention over the photograph, with its colour bar on the grey it is seen against."""
    largest = float(np.nanmax(attention, initial=0.0)) or 1.0
    scale = Normalize(0.0, largest)
    cover = axes.imshow(
        attention, attention_colours(), scale, extent=_extent(attention.shape), interpolation="nearest"
    )
    bar = figure.colorbar(cover, ax=axes, location="bottom", shrink=0.9, pad=0.03, aspect=18)
    bar.ax.set_facecolor("#808080")
    bar.outline.set_visible(False)
    ticks = [0.0, largest / 2, largest]
    bar.set_ticks(ticks, labels=[format_number(tick, 2) for tick in ticks])
    first, *_, last = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")  # within the bar: the next panel's begins close by
    last.set_horizontalalignment("right")
    bar.set_label("attention per patch", fontsize=10.5)


def _outline(axes: Axes, query_patch: int, columns: int) -> None:
    row, column = divmod(query_patch, columns)
    for colour, width in (("white", 3.6), (COLOURS["paper"], 2.0)):
        axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=colour, linewidth=width))


def _mean_colours(
    photograph: NDArray[np.float64], areas: NDArray[np.int64], patch_size: int
) -> NDArray[np.float64]:
    rows, columns = areas.shape
    patches = photograph.reshape(rows, patch_size, columns, patch_size, 3).mean(axis=(1, 3))
    means: NDArray[np.float64] = np.empty_like(patches)
    for area in np.unique(areas):
        means[areas == area] = patches[areas == area].mean(axis=0)
    return means


def _describe(
    attention: Sequence[NDArray[np.float64]],
    titles: Sequence[str],
    areas: NDArray[np.int64],
    query_patch: int,
) -> str:
    row, column = divmod(query_patch, areas.shape[1])
    own = areas == areas[row, column]
    moments = [
        f"{title}: {format_number(float(one[own].sum()), 3)} of the attention is on the patch's own area"
        for title, one in zip(titles, attention, strict=True)
    ]
    return (
        f"Attention from the patch in row {row}, column {column} over the photograph of "
        f"{areas.shape[0]} by {areas.shape[1]} patches. {'; '.join(moments)}."
    )
