"""Figures of where attention goes: by offset between query and key, and from a few queries over an image.

By offset: the mean over images of (1/N) Σ a_ij over the pairs of patches at one offset, so a panel sums to 1;
few pairs are far apart, and even uniform attention falls off towards the corners. Compare with its panel.

Over an image each panel has its own scale, from 0 to its own maximum, and says that maximum as a multiple of
uniform attention, 1/N. A vivid panel can be nearly uniform; its number tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import fill

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from mimlab.probing.layout import Layout
from mimlab.report.numbers import format_number
from mimlab.report.photographs import attention_colours
from mimlab.report.probe_tables import DEPTH, ModelRecord, layout_of, with_random_weights
from mimlab.report.style import COLOURS, FAINT, INK, WIDTH, new_figure, save, styled

Array = NDArray[np.float64]

_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601
_ABREAST = 4  # panels of offsets beside each other
_BELOW = 0.1  # of uniform attention's least value: where the colours of offsets begin


def draw_offsets(offsets: pa.Table, model: ModelRecord, path: str | Path) -> Figure:
    """Attention by relative offset, a panel per layer (mean over heads), beside uniform, identity and random weights.

    `offsets` has the columns `model, layer, head, dy, dx, value`; the offset is the key's position minus the
    query's, in patches, dy downwards. All panels share one logarithmic colour scale. Written to `path` (PNG); the
    figure is returned. Raises ValueError where the table has no row of the model.
    """
    panels = {f"depth {layer + 1}": one for layer, one in _by_layer(offsets, model["name"]).items()}
    if not panels:
        raise ValueError(f"the table of offsets has no row of {model['name']}")
    layout = layout_of(model["layers"][0])
    uniform = _uniform_offsets(layout)
    identity = np.zeros_like(uniform)
    identity[layout.grid[0] - 1, layout.grid[1] - 1] = 1.0
    chance = list(_by_layer(offsets, with_random_weights(model["name"])).values())
    baselines = {"uniform": uniform, "identity": identity}
    if chance:
        baselines["random weights"] = np.mean(chance, axis=0)
    everything = {**panels, **baselines}
    top = max(float(np.nanmax(one, initial=0.0)) for one in (*panels.values(), uniform))
    least = _BELOW * float(uniform[uniform > 0].min())
    scale = LogNorm(least, max(top, 10 * least))
    rows = ceil(len(everything) / _ABREAST)
    height = WIDTH / _ABREAST * min(1.6, uniform.shape[0] / uniform.shape[1])
    with styled():
        figure = new_figure(height=rows * (height + 0.25) + 0.9)
        grid = figure.subplots(rows, _ABREAST, squeeze=False, sharex=True, sharey=True).ravel()
        down, across = ((n - 0.5) for n in layout.grid)
        drawn = None
        for axes, (title, one) in zip(grid, everything.items(), strict=False):
            extent = (-across, across, down, -down)
            drawn = axes.imshow(np.fmax(one, least), "viridis", scale, extent=extent, interpolation="nearest")
            axes.set_title(title, fontsize=11, color=FAINT if title in baselines else INK)
            axes.grid(False)
        for axes in grid[len(everything) :]:
            axes.set_axis_off()
        figure.supxlabel("offset of the key to the right (patches)", fontsize=12)
        figure.supylabel("offset downwards (patches)", fontsize=12)
        assert drawn is not None
        bar = figure.colorbar(
            drawn, ax=list(grid), location="top", shrink=0.7, aspect=30, pad=0.015, extend="min"
        )
        bar.set_label(f"mean attention at the offset, by {DEPTH}", fontsize=11)
        save(figure, path, _describe_offsets(model["name"], panels, baselines))
    return figure


def _by_layer(offsets: pa.Table, model: str) -> dict[int, Array]:
    """Mean over heads for each layer, (2 rows - 1, 2 columns - 1)."""
    chosen = offsets.filter(pc.field("model") == model)
    means = chosen.group_by(["layer", "dy", "dx"]).aggregate([("value", "mean")])
    layer, dy, dx, value = (means[key].to_numpy() for key in ("layer", "dy", "dx", "value_mean"))
    found: dict[int, Array] = {}
    for one in np.unique(layer):
        here = layer == one
        down, across = int(np.abs(dy[here]).max()), int(np.abs(dx[here]).max())
        found[int(one)] = np.full((2 * down + 1, 2 * across + 1), np.nan)
        found[int(one)][dy[here] + down, dx[here] + across] = value[here]
    return found


def _uniform_offsets(layout: Layout) -> Array:
    """Uniform attention by offset: the share of pairs of patches that have it."""
    rows, columns = (n - np.abs(np.arange(1 - n, n)) for n in layout.grid)
    return np.outer(rows, columns) / layout.patches**2


def _describe_offsets(name: str, panels: dict[str, Array], baselines: dict[str, Array]) -> str:
    told = [f"{title} {format_number(_near(one), 3)}" for title, one in {**panels, **baselines}.items()]
    return (
        f"{name}: mean attention by offset from query to key, a panel per layer, logarithmic colours. Share of the "
        f"attention that stays within one patch in each direction: {', '.join(told)}."
    )


def _near(one: Array) -> float:
    row, column = (n // 2 for n in one.shape)
    return float(np.nansum(one[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]))


def draw_query_maps(
    image: ArrayLike,
    layout: Layout,
    maps: ArrayLike,
    queries: Sequence[int],
    titles: Sequence[str],
    path: str | Path,
    rows: Sequence[str] | None = None,
) -> Figure:
    """The image once for each panel and query, covered by the attention that the query pays to each patch.

    Parameters
    ----------
    image
        (h, w, 3), uint8 or floats in [0, 1]: what the model was given, before its colours were standardised.
        Patches lie from the top left corner; what is left at the right and bottom is not shown.
    layout
        Of the map; `windows` must be 1 (for windowed attention give one window's part of the image).
    maps
        (panels, queries, patches): weights of each query over the patches, for layers or heads. About four
        panels fit.
    queries
        Index of each query's patch, counted row by row from 0; outlined. A query may stand in several rows.
    titles
        A title for each panel.
    path
        PNG to write. The figure is returned.
    rows
        What each row is called, at its left, where the query does not tell.

    Raises
    ------
    ValueError
        Where the shapes do not fit each other, or a query is outside the grid.
    """
    weights = np.asarray(maps, dtype=np.float64)
    expected = (len(titles), len(queries), layout.patches)
    if weights.shape != expected or 0 in expected:
        raise ValueError(
            f"maps have shape {weights.shape}; {len(titles)} titles, {len(queries)} queries and {layout.patches} "
            f"patches need {expected}, with none of them 0"
        )
    if layout.windows != 1:
        raise ValueError(
            f"the map is one of {layout.windows} windows: give its part of the image and windows = 1"
        )
    outside = [query for query in queries if not 0 <= query < layout.patches]
    if outside:
        raise ValueError(f"queries {outside} are outside the grid of {layout.patches} patches")
    picture = _cropped(image, layout)
    columns = len(titles) + 1
    aspect = picture.shape[0] / picture.shape[1]
    extent = (0.0, float(layout.grid[1]), float(layout.grid[0]), 0.0)
    words = []
    with styled():
        figure = new_figure(height=len(queries) * (WIDTH / columns * min(aspect, 1.6) + 0.28) + 0.5)
        grid = figure.subplots(len(queries), columns, squeeze=False)
        for row, query in zip(range(len(queries)), queries, strict=True):
            place = divmod(query, layout.grid[1])
            for column, axes in enumerate(grid[row]):
                axes.set_axis_off()
                shown = picture if column == 0 else picture @ _GREY
                axes.imshow(
                    shown, cmap="gray", vmin=0, vmax=1, extent=extent, aspect=aspect * extent[1] / extent[2]
                )
                if column:
                    attention = weights[column - 1, row].reshape(layout.grid)
                    top = float(np.nanmax(attention, initial=0.0))
                    axes.imshow(
                        attention,
                        attention_colours(),
                        extent=extent,
                        vmin=0.0,
                        vmax=top or 1.0,
                        interpolation="nearest",
                        aspect=aspect * extent[1] / extent[2],
                    )
                    ratio = f"{format_number(top * layout.patches, 2)} × uniform"
                    below = {"ha": "center", "va": "top", "fontsize": 10 if columns < 6 else 8.5}
                    axes.text(0.5, -0.03, ratio, transform=axes.transAxes, **below)
                    words.append(f"{titles[column - 1]} {format_number(top * layout.patches, 2)}")
                for colour, width in (("white", 3.2), (COLOURS["paper"], 1.8)):
                    axes.add_patch(
                        Rectangle(place[::-1], 1, 1, fill=False, edgecolor=colour, linewidth=width)
                    )
            words[-len(titles)] = f"query in row {place[0]}, column {place[1]}: {words[-len(titles)]}"
            if rows is not None:
                words[-len(titles)] = f"{rows[row]}, {words[-len(titles)]}"
                beside = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 9}
                grid[row][0].text(-0.08, 0.5, rows[row], transform=grid[row][0].transAxes, **beside)
        for axes, title in zip(grid[0], ["image", *titles], strict=True):
            axes.set_title(fill(title, max(10, int(11 * WIDTH / columns))), fontsize=11)
        description = (
            f"Attention of {len(queries)} queries over an image of {layout.grid[0]} by {layout.grid[1]} patches; "
            f"the largest weight as a multiple of uniform attention's: {'; '.join(words)}."
        )
        save(figure, path, description, trim=True)
    return figure


def _cropped(image: ArrayLike, layout: Layout) -> Array:
    """(height, width, 3) in [0, 1], the part of the image that the patches cover."""
    pixels = np.asarray(image)
    values = pixels / 255.0 if pixels.dtype == np.uint8 else np.clip(pixels.astype(np.float64), 0.0, 1.0)
    height, width = (round(n * side) for n, side in zip(layout.grid, layout.patch_size, strict=True))
    if values.ndim != 3 or values.shape[2] != 3 or values.shape[0] < height or values.shape[1] < width:
        raise ValueError(
            f"an image of shape {pixels.shape} does not hold {layout.grid[0]}×{layout.grid[1]} patches of "
            f"{layout.patch_size[0]:g}×{layout.patch_size[1]:g} pixels; give (height, width, 3)"
        )
    return np.asarray(values[:height, :width], dtype=np.float64)
