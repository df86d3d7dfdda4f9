"""Figures of pretraining over seeds: what is drawn and said is what a plain loop over the tables finds."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mimlab.report.numbers import format_number
from mimlab.report.seeds import BY_DEPTH, draw_objectives, draw_order_of_layers, draw_shares_of_runs
from mimlab.studies.trained import SCHEMAS
from mimlab.studies.training_runs import PHOTOGRAPHS, RUNS, SEEDS, WORLDS

from .tables_over_seeds import STEPS, mean_at, tables_of

NAMES = [run.name for run in PHOTOGRAPHS]
JUDGED = ["simmim", *(run.name for run in WORLDS)]
END = STEPS[-1]


@pytest.fixture(scope="module")
def tables():
    return tables_of()


@pytest.fixture(scope="module")
def drawn(tables, tmp_path_factory):
    """The three figures and their descriptions."""
    folder = tmp_path_factory.mktemp("figures")
    figures = {
        "depth": draw_objectives(tables["looks"], NAMES, folder / "depth.png"),
        "order": draw_order_of_layers(tables["looks"], "simmim", folder / "order.png"),
        "shares": draw_shares_of_runs(tables["shares"], JUDGED, folder / "shares.png"),
    }
    return {name: (figure, description(folder / f"{name}.png")) for name, figure in figures.items()}


def description(path):
    with Image.open(path) as image:
        return image.info["Description"]


def legend_of(figure):
    (legend,) = figure.legends
    return dict(zip((text.get_text() for text in legend.get_texts()), legend.legend_handles, strict=True))


def test_every_objective_has_its_mean_as_a_line_and_its_seeds_as_dots(drawn, tables):
    figure, _ = drawn["depth"]
    rows = tables["looks"].to_pylist()
    assert len(figure.axes) == len(BY_DEPTH)
    for axes, statistic in zip(figure.axes, BY_DEPTH, strict=True):
        lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
        assert list(lines) == [*NAMES, "random weights"]
        for name in NAMES:
            expected = [mean_at(rows, "value", END, run=name, statistic=statistic, layer=n) for n in range(4)]
            np.testing.assert_allclose(lines[name].get_ydata(), expected, rtol=1e-12)
        dots = [line for line in axes.lines if line.get_label().startswith("_") and line.get_marker() == "o"]
        seen = sorted(value for line in dots for value in line.get_ydata())
        every = [
            r["value"] for r in rows if r["step"] == END and r["statistic"] == statistic and r["run"] in NAMES
        ]
        np.testing.assert_array_equal(seen, sorted(every))
        start = [mean_at(rows, "value", 0, run="simmim", statistic=statistic, layer=n) for n in range(4)]
        np.testing.assert_allclose(lines["random weights"].get_ydata(), start, rtol=1e-12)


def test_no_two_objectives_look_alike_or_lie_on_each_other(drawn):
    for axes in drawn["depth"][0].axes:
        lines = [line for line in axes.lines if line.get_label() in NAMES]
        assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines}) == len(NAMES)
        at = np.sort([line.get_xdata()[0] for line in lines])
        assert (np.diff(at) > 0.05).all()
        assert all(np.round(line.get_xdata()).tolist() == [1, 2, 3, 4] for line in lines)


def test_means_over_depth_are_said(drawn, tables):
    rows, (_, said) = tables["looks"].to_pylist(), drawn["depth"]
    for title, statistic in zip(("NMI", "Diversity", "Distance over uniform's"), BY_DEPTH, strict=True):
        told = ", ".join(
            f"{name} {format_number(mean_at(rows, 'value', END, run=name, statistic=statistic), 2)}"
            for name in NAMES
        )
        assert f"{title}, mean over depth: {told}." in said


def test_bars_of_shares_are_means_over_layers_and_seeds(drawn, tables):
    figure, said = drawn["shares"]
    (axes,), rows = figure.axes, tables["shares"].to_pylist()
    assert [label.get_text() for label in axes.get_yticklabels()] == JUDGED
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first run on top
    assert list(legend_of(figure)) == ["PP", "FP"]
    bars = iter(axes.patches)
    for place, run in enumerate(JUDGED):
        told = []
        for component in ("PP", "FP"):
            bar, expected = next(bars), mean_at(rows, "share", END, run=run, component=component)
            assert bar.get_width() == pytest.approx(expected)
            assert bar.get_y() < place + 0.5 and bar.get_y() + bar.get_height() > place - 0.5
            told.append(f"{component} {format_number(expected, 2)}")
        assert f"{run}: {', '.join(told)}." in said
    seeds = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(seeds) == 2 * len(JUDGED)
    for line, (run, component) in zip(seeds, [(r, c) for r in JUDGED for c in ("PP", "FP")], strict=True):
        expected = [mean_at(rows, "share", END, run=run, component=component, seed=seed) for seed in SEEDS]
        np.testing.assert_allclose(line.get_xdata(), expected, rtol=1e-12)


def test_layers_are_drawn_as_shares_of_their_last_value(drawn, tables):
    figure, said = drawn["order"]
    rows = [row for row in tables["looks"].to_pylist() if (row["run"], row["statistic"]) == ("simmim", "nmi")]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    words = []
    for layer in range(4):
        course = [
            np.mean(
                [
                    mean_at(rows, "value", step, seed=seed, layer=layer)
                    / mean_at(rows, "value", END, seed=seed, layer=layer)
                    for seed in SEEDS
                ]
            )
            for step in STEPS
        ]
        line = lines[f"depth {layer + 1}"]
        assert tuple(line.get_xdata()) == STEPS
        np.testing.assert_allclose(line.get_ydata(), course, rtol=1e-12)
        half = next(step for step, value in zip(STEPS, course, strict=True) if value >= 0.5)
        words.append(f"depth {layer + 1} by step {half}")
    assert said.endswith(f"half of its last value is reached at {', '.join(words)}.")
    assert len({word.rpartition(" ")[2] for word in words}) == 4  # the layers here come one after the other


def test_a_seed_that_ended_early_hides_no_other(tables, tmp_path):
    rows = [
        row
        for row in tables["looks"].to_pylist()
        if row["run"] == "simmim" and (row["seed"] != 1 or row["step"] <= 16)
    ]
    short = pa.Table.from_pylist(rows, schema=SCHEMAS["looks"])
    (axes,) = draw_order_of_layers(short, "simmim", tmp_path / "order.png").axes
    assert {tuple(line.get_xdata()) for line in axes.lines[1:]} == {tuple(s for s in STEPS if s <= 16)}
    axes = draw_objectives(short, ["simmim"], tmp_path / "depth.png").axes[0]
    assert sum(line.get_marker() == "o" and line.get_label().startswith("_") for line in axes.lines) == 2


def test_uniform_attention_has_no_shares_to_draw(tmp_path):
    """Shares that are no number leave their bar out, and the figure whole."""
    rows = [
        {"run": "world", "seed": seed, "step": 1, "layer": 0, "component": name, "share": float("nan")}
        for seed in SEEDS
        for name in ("PP", "FP")
    ]
    draw_shares_of_runs(pa.Table.from_pylist(rows, schema=SCHEMAS["shares"]), ["world"], tmp_path / "s.png")
    assert "world: PP –, FP –." in description(tmp_path / "s.png")


@pytest.mark.parametrize("name", ["depth", "order", "shares"])
def test_nothing_is_cut_off_or_written_over(name, drawn):
    """On paper of the page's width: texts stay inside the figure and apart from each other and from the legend."""
    figure = drawn[name][0]
    renderer = figure.canvas.get_renderer()
    figure.draw_without_rendering()
    boxes = {}
    for number, axes in enumerate(figure.axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            for text in (axis.label, *ticks):
                if text.get_text() and text.get_visible():
                    boxes[number, axis.axis_name, text.get_text()] = text.get_window_extent(renderer)
    (legend,) = figure.legends
    boxes["legend"] = legend.get_window_extent(renderer)
    for key, box in boxes.items():
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, key
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, key
    for (one, box), (two, other) in combinations(boxes.items(), 2):
        assert not box.overlaps(other), (one, two)
    entries = [text.get_window_extent(renderer) for text in legend.get_texts()]
    assert not any(one.overlaps(two) for one, two in combinations(entries, 2))


def test_default_runs_need_no_second_round_of_colours(tables, tmp_path):
    default = [run.name for run in RUNS if not run.full]
    figure = draw_objectives(tables["looks"], default, tmp_path / "d.png")
    assert list(legend_of(figure)) == [*default, "random weights"]
    lines = [line for line in figure.axes[0].lines if line.get_label() in default]
    assert {line.get_linestyle() for line in lines} == {"-"}
