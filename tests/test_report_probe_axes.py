"""Axes of the probe's figures: what is near, far, equal, tiny or impossible is drawn so that it can be read."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from mimlab.probing.catalogue import CATALOGUE, CORE
from mimlab.probing.layout import Layout
from mimlab.report.probe_tables import bounds, curve, within
from mimlab.report.probes import draw_depth, draw_heads

LAYOUT = Layout((14, 14), prefix=1, patch_size=(16, 16))
LAYERS, HEADS = 6, 3
TINY = np.linspace(1e-6, 1e-5, LAYERS * HEADS).reshape(LAYERS, HEADS)


def model(layout=LAYOUT):
    one = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(layout).items()}
    layers = [{"layer": i, "module": f"blocks.{i}", "heads": HEADS, **one} for i in range(LAYERS)]
    return {"name": "net", "parameters": 1, "layers": layers}


def table(statistic, values, half=0.0):
    """`values`: (layers, heads); the mean over heads has an interval of `half` to each side."""
    rows = []
    for layer, heads in enumerate(np.broadcast_to(values, (LAYERS, HEADS))):
        for head, mean in [(None, heads.mean()), *enumerate(heads)]:
            ends = {"low": mean - half, "high": mean + half}
            rows.append(
                {"model": "net", "layer": layer, "head": head, "statistic": statistic, "mean": mean, **ends}
            )
    return pa.Table.from_pylist(rows)


def depth_panel(tmp_path, statistic, values, half=0.0):
    figure = draw_depth(table(statistic, values, half), [model()], tmp_path / "d.png", [statistic])
    return figure.axes[0]


def written(axes):
    return [label.get_text() for label in axes.get_yticklabels() if label.get_text()]


def test_the_bounds_hold_every_baseline():
    for name, one in CATALOGUE.items():
        low, high = bounds(model(), name)
        assert low == 0 and np.isfinite(high) == ("distance" not in name), name
        assert all(low <= getattr(one, kind)(LAYOUT) <= high for kind in ("uniform", "identity", "random"))
    assert bounds(model(), "nmi:cl-vs-mim") == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("statistic", "value", "above", "below"),
    [
        ("mean_row_entropy", 4.2, "uniform, identity 5.28 ↑", None),
        ("prefix_mass", 0.2, None, "uniform 0.00508 ↓\nidentity 0 ↓"),
        ("nmi", 0.4, "identity 1 ↑", "uniform 0 ↓"),
    ],
)
def test_baselines_beyond_an_edge_are_named_beside_the_data(statistic, value, above, below, tmp_path):
    values = value + 0.01 * np.random.default_rng(0).random((LAYERS, HEADS))
    axes = depth_panel(tmp_path, statistic, values)
    told = {text.get_va(): text for text in axes.texts}
    assert {place: text.get_text() for place, text in told.items()} == {
        place: text for place, text in (("top", above), ("bottom", below)) if text
    }
    data = axes.transData.transform([(1, values.min()), (1, values.max())])[:, 1]
    for place, text in told.items():
        box = text.get_bbox_patch().get_window_extent()
        assert box.y0 >= data[1] if place == "top" else box.y1 <= data[0]


def test_tiny_values_fill_their_panel_and_stay_in_the_range_of_the_statistic(tmp_path):
    for statistic in ("spread", "diversity", "nmi"):
        for values, half in ((TINY, 2e-5), (2e-7, 0.0)):
            low, high = depth_panel(tmp_path, statistic, values, half).get_ylim()
            assert -0.1 * (high - low) < low < 0 and high < 1e-4, (statistic, half)
    axes = depth_panel(tmp_path, "spread", TINY)
    assert np.ptp(axes.get_ylim()) < 2e-5 and len(set(written(axes))) == len(written(axes)) > 2


@pytest.mark.parametrize("statistic", CORE)
def test_rounding_is_no_structure(statistic, tmp_path):
    uniform = CATALOGUE[statistic].uniform(LAYOUT)
    values = uniform + 2e-8 * max(uniform, 1.0) * np.sin(np.arange(LAYERS * HEADS)).reshape(LAYERS, HEADS)
    axes = depth_panel(tmp_path, statistic, values)
    assert np.ptp(values) < 0.1 * np.ptp(axes.get_ylim())
    assert written(axes) == [f"{uniform:.3g}"]


def test_bands_end_where_the_statistic_ends_and_tables_do_not(tmp_path):
    given = table("positional_entropy", 5.27, 0.1)
    axes = depth_panel(tmp_path, "positional_entropy", 5.27, 0.1)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(np.log(196)) and band.min() == pytest.approx(5.17)
    found = curve(given, "net", "positional_entropy")
    assert found.high[0] == pytest.approx(5.37)
    beyond = within(found, 0.0, 5.0)
    np.testing.assert_array_equal(
        beyond.high, found.mean
    )  # a mean beyond by rounding keeps its band around it
    np.testing.assert_array_equal(beyond.low, found.low)


@pytest.mark.parametrize(
    ("statistic", "values", "expected"),
    [
        ("distance", 32.2, ["32.2"]),
        ("distance_ratio", 1.0, ["1"]),
        ("information", 0.0, ["0"]),
        ("distance_ratio", 1 - TINY, ["0.9999925", "0.9999950", "0.9999975"]),
        ("spread", TINY, ["2.5×10⁻⁶", "5×10⁻⁶", "7.5×10⁻⁶", "10⁻⁵"]),
        ("distance", 114 + 3 * TINY / TINY.max(), ["114.4", "115.2", "116.0", "116.8"]),
        ("x:y", -0.3 * TINY / TINY.max(), ["−0.24", "−0.16", "−0.08"]),
    ],
)
def test_colour_bars_tell_their_ticks_apart(statistic, values, expected, tmp_path):
    figure = draw_heads(table(statistic, values), model(), tmp_path / "h.png", [statistic])
    bar = figure.axes[1]
    low, high = bar.get_ylim()
    shown = {
        label.get_text()
        for label, at in zip(bar.get_yticklabels(), bar.get_yticks(), strict=True)
        if low <= at <= high
    }
    assert shown == set(expected)


def test_figures_say_that_depth_is_the_layer_and_one(tmp_path):
    assert depth_panel(tmp_path, "nmi", 0.3).get_xlabel() == "depth (layer + 1)"
    figure = draw_heads(table("nmi", 0.3), model(), tmp_path / "h.png", ["nmi"])
    assert figure.axes[0].get_xlabel() == "depth (layer + 1)"
