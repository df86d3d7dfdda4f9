"""Figures of what a network looks at and makes, over held-out crops, through training.

Attention is drawn as the probe draws it: each panel has its own scale, and says its maximum as a multiple of uniform
attention. A vivid panel can be nearly uniform; its number tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mimlab.report.numbers import format_number
from mimlab.report.pretrain_tables import PretrainRun, layers_in, map_values, spread_steps, steps_in
from mimlab.report.probe_maps import draw_query_maps
from mimlab.report.probe_tables import ModelRecord, layout_of
from mimlab.report.style import WIDTH, new_figure, save, styled

_PANELS = 5  # steps that attention is shown at
_ROWS = 4  # layers that it is shown in


def draw_attention_through_training(
    maps: pa.Table, picture: ArrayLike, model: ModelRecord, path: str | Path
) -> Figure:
    """One query's attention over a held-out crop: a row per layer, a column per step, colours as `draw_query_maps`.

    Of many layers some are shown, the first and the last among them; of many steps the start, the end and three
    between, spaced evenly in log. Written to `path` (PNG); the figure is returned.
    """
    layers = spread_steps(layers_in(maps), _ROWS)
    steps = _shown(steps_in(maps))
    weights = np.array([[map_values(maps, step, layer) for layer in layers] for step in steps])
    query = int(maps["query"][0].as_py())
    rows = [f"depth {layer + 1}" for layer in layers]
    titles = [f"step {step}" for step in steps]
    layout = layout_of(model["layers"][0])
    return draw_query_maps(picture, layout, weights, [query] * len(layers), titles, path, rows)


def _shown(steps: Sequence[int]) -> list[int]:
    """The start, and the steps nearest to 1/27, 1/9, 1/3 and all of the way: attention forms in logarithmic time."""
    later = np.array([step for step in steps if step > 0])
    if not later.size:
        return list(steps)[:1]
    wanted = np.log(later[-1]) - np.log(3) * np.arange(_PANELS - 2, -1, -1)
    nearest = (int(later[np.abs(np.log(later) - one).argmin()]) for one in wanted)
    return [steps[0], *dict.fromkeys(nearest)]


def draw_attention_of_runs(runs: Sequence[PretrainRun], depth: int, path: str | Path) -> Figure:
    """One query's attention over the same held-out crop in the layer at one depth: a row per run, a column per step.

    The runs have maps of the same query and the same picture; columns are as many as the runs have in common: the
    start, steps between at like places among each run's own, and the end. Written to `path` (PNG); the figure is
    returned.
    """
    steps = [_shown(steps_in(run.maps)) for run in runs]
    count = min(map(len, steps))
    chosen = [spread_steps(one, count) for one in steps]
    weights = np.array(
        [
            [map_values(run.maps, one[column], depth - 1) for run, one in zip(runs, chosen, strict=True)]
            for column in range(count)
        ]
    )
    first = runs[0]
    assert first.maps is not None and first.picture is not None
    titles = []
    for column in range(count):
        numbers = sorted({one[column] for one in chosen})
        titles.append(f"step {'–'.join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))}")
    query = int(first.maps["query"][0].as_py())
    names = [f"{fill(run.name, 16)}\ndepth {depth}" for run in runs]
    layout = layout_of(first.model["layers"][0])
    return draw_query_maps(first.picture, layout, weights, [query] * len(runs), titles, path, names)


def draw_reconstructions(
    crops: NDArray[np.uint8],
    seen: NDArray[np.bool_],
    predicted: Mapping[int, NDArray[np.uint8]],
    path: str | Path,
) -> Figure:
    """Held-out crops, what the network is shown of them, and what it makes of the rest, step by step.

    crops: (n, h, w, 3). seen: (n, h, w) true where a pixel was visible. predicted: (n, h, w, 3) by step, of which those
    are shown that attention is shown at; visible pixels are drawn as they were given. Written to `path` (PNG); the
    figure is returned.
    """
    given = crops / 255
    visible = seen[..., None]
    columns = {"crop": given, "what it sees": np.where(visible, given, 0.5)}
    errors = []
    for step in _shown(sorted(predicted)):
        title = f"step {step}"
        columns[title] = np.where(visible, given, predicted[step] / 255)
        error = ((columns[title] - given) ** 2).mean(-1)[~visible[..., 0]]
        errors.append(f"{title}: {format_number(float(np.sqrt(error.mean())), 2)}")
    with styled():
        side = WIDTH / len(columns)
        figure = new_figure(height=len(given) * side * given.shape[1] / given.shape[2] + 0.5)
        grid = figure.subplots(len(given), len(columns), squeeze=False)
        for row, axes_of_row in enumerate(grid):
            for axes, (title, pictures) in zip(axes_of_row, columns.items(), strict=True):
                axes.imshow(pictures[row], interpolation="nearest")
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(title, fontsize=11)
        hidden = format_number(float(1 - visible.mean()), 2)
        told = f"{len(given)} held-out crops, {hidden} of each hidden, reconstructed."
        said = (
            f" Root mean square error over hidden pixels, colours in [0, 1]: {'; '.join(errors)}."
            if errors
            else ""
        )
        save(figure, path, told + said, trim=True)
    return figure
