"""Figures and pages of the probe, from tables of real random attention: what is drawn and said is what was given."""

import math
import re
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from scipy.special import stdtrit

from mimlab import statistics
from mimlab.probing.catalogue import CATALOGUE, CORE, RANDOM_WEIGHTS
from mimlab.probing.layout import Layout
from mimlab.report.numbers import format_interval
from mimlab.report.probe_maps import draw_offsets, draw_query_maps
from mimlab.report.probe_page import (
    ProbeFigure,
    ProbeRun,
    draw_comparison_figures,
    draw_probe_figures,
    joined,
    write_comparison_page,
    write_probe_page,
)
from mimlab.report.probe_readings import READINGS, readings
from mimlab.report.probe_shares import COMPONENT_COLOURS, draw_shares
from mimlab.report.probe_tables import curve, warnings_of
from mimlab.report.probes import RANDOM_COLOUR, draw_depth, draw_heads

WIDE = Layout((4, 6), prefix=1, patch_size=(16, 8))
SQUARE = Layout((5, 5), prefix=2, patch_size=(8, 8))
LAYERS, HEADS, IMAGES = 3, 2, 4


def record(name="net", layout=WIDE, layers=LAYERS, heads=HEADS):
    one = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(layout).items()}
    named = [{"layer": i, "module": f"blocks.{i}.attn", "heads": heads, **one} for i in range(layers)]
    return {"name": name, "parameters": 1234567, "layers": named}


def attention(layout, sharp, seed):
    logits = sharp * np.random.default_rng(seed).normal(size=(IMAGES, HEADS, layout.patches, layout.patches))
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True)


def measured(maps, layout):
    distance = statistics.distance(maps, layout.positions())
    mean_rows = np.broadcast_to(maps.mean(-2, keepdims=True), maps.shape)
    return {
        "distance": distance,
        "distance_ratio": distance / layout.uniform_distance(),
        "mean_row_entropy": statistics.entropy(mean_rows),
        "prefix_mass": np.full(maps.shape[:2], layout.prefix / layout.tokens),
        **{name: getattr(statistics, name)(maps) for name in ("entropy", "information", "nmi")},
        **{"diversity": statistics.diversity(maps), "spread": statistics.spread(maps)},
    }


def rows_of(model, layer, statistic, values):
    """Mean and 95% interval over images of values (images, heads), for each head and for their mean."""
    for head in (None, *range(values.shape[1])):
        one = values.mean(1) if head is None else values[:, head]
        half = stdtrit(len(one) - 1, 0.975) * one.std(ddof=1) / math.sqrt(len(one))
        yield {
            **{"model": model, "layer": layer, "module": f"blocks.{layer}.attn", "head": head},
            **{
                "statistic": statistic,
                "mean": one.mean(),
                "low": one.mean() - half,
                "high": one.mean() + half,
            },
            "images": len(one),
        }


def layers_table(model="net", layout=WIDE, sharp=(0.5, 1.0, 2.0), seed=0):
    found = []
    for layer, one in enumerate(sharp):
        for statistic, values in measured(attention(layout, one, seed + layer), layout).items():
            found += rows_of(model, layer, statistic, values)
    return pa.Table.from_pylist(found)


def offsets_table(model="net", layout=WIDE, seed=0):
    rows, columns = np.indices(layout.grid).reshape(2, -1)
    dy, dx = (at[None, :] - at[:, None] for at in (rows, columns))
    found = []
    for layer in range(LAYERS):
        maps = attention(layout, 1.0, seed + layer).mean(0)
        for head in range(HEADS):
            sums = np.zeros(tuple(2 * n - 1 for n in layout.grid))
            np.add.at(sums, (dy + layout.grid[0] - 1, dx + layout.grid[1] - 1), maps[head] / layout.patches)
            found += [
                {"model": model, "layer": layer, "head": head, "dy": y, "dx": x, "value": sums[y, x]}
                for y in range(1 - layout.grid[0], layout.grid[0])
                for x in range(1 - layout.grid[1], layout.grid[1])
            ]
    return pa.Table.from_pylist(found)


def shares_table(model="net", values=None):
    given = values or {"PP": 0.5, "FP": 0.3, "FF": -0.1, "rest": 0.3}
    return pa.Table.from_pylist(
        [
            {
                **{"model": model, "layer": layer, "module": "m", "head": head, "component": component},
                **{"share": share + 0.02 * head, "low": share - 0.05, "high": share + 0.06},
            }
            for layer in range(LAYERS)
            for head in range(HEADS)
            for component, share in given.items()
        ]
    )


def summary(models, layers, **change):
    return {
        **{"status": "finished", "models": models, "images": IMAGES, "source": "a folder", "skipped": []},
        **{"warnings": warnings_of(models, layers), "baselines": [], "command": "mimlab probe net --out run"},
        **{"seconds": 1.5, "images_per_second": 2.5, "versions": {"mimlab": "0"}, **change},
    }


def both(first, second):
    return pa.concat_tables([first, second])


def description(path):
    with Image.open(path) as image:
        assert image.width > 500 and len(np.unique(np.asarray(image.convert("L")))) > 20
        return image.info["Description"]


def test_a_curve_holds_heads_and_the_rows_that_speak_of_layers():
    table = layers_table()
    found = curve(table, "net", "entropy")
    values = [statistics.entropy(attention(WIDE, sharp, seed)) for seed, sharp in enumerate((0.5, 1.0, 2.0))]
    np.testing.assert_allclose(found.mean, [one.mean() for one in values])
    np.testing.assert_allclose(found.heads[:, 2], np.concatenate([one.mean(0) for one in values]))
    half = [stdtrit(IMAGES - 1, 0.975) * one.mean(1).std(ddof=1) / 2 for one in values]
    np.testing.assert_allclose(found.high - found.mean, half)
    without = curve(table.filter(pc.is_valid(table["head"])), "net", "entropy")
    np.testing.assert_allclose(without.mean, found.mean)
    assert (without.high - without.low >= found.high - found.low).all()
    assert not curve(table, "another", "entropy")


def test_depth_has_dots_lines_bands_and_every_baseline(tmp_path):
    table = both(layers_table(), layers_table("net" + RANDOM_WEIGHTS, sharp=(0.02,) * 3, seed=9))
    figure = draw_depth(table, [record()], tmp_path / "d.png")
    panels = dict(zip(CORE, figure.axes, strict=False))
    for name, axes in panels.items():
        found = curve(table, "net", name)
        chance, heads, line = (
            [one for one in axes.lines if one.get_color() == RANDOM_COLOUR][1],
            next(one for one in axes.lines if one.get_marker() == "o"),
            next(one for one in axes.lines if one.get_linestyle() == "-"),
        )
        np.testing.assert_array_equal(chance.get_ydata(), curve(table, "net" + RANDOM_WEIGHTS, name).mean)
        np.testing.assert_array_equal(heads.get_ydata(), found.heads[:, 2])
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), found.mean)
        low, high = axes.get_ylim()
        assert low <= found.values.min() and found.values.max() <= high
        for kind in ("uniform", "identity"):
            level = getattr(CATALOGUE[name], kind)(WIDE)
            flat = [one.get_ydata()[0] for one in axes.lines if len(set(one.get_ydata())) == 1]
            named = [text.get_text() for text in axes.texts if kind in text.get_text()]
            assert (level in flat and low <= level <= high) or (named and not low <= level <= high)
    words = description(tmp_path / "d.png")
    assert (
        "Entropy (nats): net from" in words and "with random weights 3.18" in words and "identity 2" in words
    )


def test_models_share_the_panels_and_unlike_baselines_are_each_drawn(tmp_path):
    table = both(layers_table("a"), layers_table("b", SQUARE))
    axes = draw_depth(table, [record("a"), record("b", SQUARE)], tmp_path / "d.png", ["entropy"]).axes[0]
    levels = {one.get_ydata()[0] for one in axes.lines if len(one.get_xdata()) == 2}
    assert {math.log(24), math.log(25)} <= levels
    colours = {one.get_color() for one in axes.lines if one.get_marker() == "o"}
    assert len(colours) == 2


def test_layers_of_several_grids_have_each_their_own_baseline(tmp_path):
    pyramid = record()
    pyramid["layers"][2] |= {"grid": [2, 3], "windows": 4}
    axes = draw_depth(layers_table(), [pyramid], tmp_path / "d.png", ["entropy"]).axes[0]
    steps = [one.get_ydata() for one in axes.lines if one.get_drawstyle() == "steps-mid"]
    np.testing.assert_allclose(steps, [[math.log(24), math.log(24), math.log(6)]])


@pytest.mark.parametrize("count", [1, 9])
def test_any_number_of_models_and_of_panels(count, tmp_path):
    names = [f"model {i} of some organisation with a long name" for i in range(count)]
    table = pa.concat_tables([layers_table(name) for name in names])
    figure = draw_depth(table, [record(name) for name in names], tmp_path / "d.png", ["nmi", "spread", "x:y"])
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["NMI", "Spread", "x:y"]
    assert "x:y: no values; no baseline" in description(tmp_path / "d.png")


def test_heat_map_leaves_missing_heads_and_nan_blank(tmp_path):
    table = layers_table().to_pylist()
    kept = [one for one in table if not (one["layer"] == 1 and one["head"] == 1)]
    for one in kept:
        if one["layer"] == 2 and one["head"] == 0:
            one["mean"] = math.nan
    figure = draw_heads(pa.Table.from_pylist(kept), record(), tmp_path / "h.png", ["entropy"])
    cells = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(cells), [[False, False, True], [False, True, False]])
    assert cells[1, 2] == next(
        r["mean"] for r in table if (r["layer"], r["head"], r["statistic"]) == (2, 1, "entropy")
    )
    assert "uniform 3.18, identity 0" in description(tmp_path / "h.png")
    empty = draw_heads(pa.Table.from_pylist(kept), record(), tmp_path / "h.png", ["unknown"])
    assert any(text.get_text() == "no finite value" for text in empty.axes[0].texts)


def test_offsets_have_a_panel_per_layer_and_per_baseline(tmp_path):
    table = both(offsets_table(), offsets_table("net" + RANDOM_WEIGHTS, seed=7))
    figure = draw_offsets(table, record(), tmp_path / "o.png")
    panels = {axes.get_title(): axes for axes in figure.axes if axes.images}
    assert list(panels) == ["depth 1", "depth 2", "depth 3", "uniform", "identity", "random weights"]
    for layer in range(LAYERS):
        drawn = panels[f"depth {layer + 1}"].images[0].get_array()
        assert drawn.shape == (7, 11) and drawn.sum() == pytest.approx(1.0)
        own = [r["value"] for r in table.to_pylist() if (r["layer"], r["dy"], r["dx"]) == (layer, -1, 2)]
        assert drawn[3 - 1, 5 + 2] == pytest.approx(np.mean(own[:HEADS]))
    assert panels["uniform"].images[0].get_array()[3, 5] == pytest.approx(1 / 24)
    assert "identity 1" in description(tmp_path / "o.png")
    with pytest.raises(ValueError, match="no row of other"):
        draw_offsets(table, record("other"), tmp_path / "o.png")


def test_query_maps_mark_the_query_and_say_how_strong(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    maps = attention(WIDE, 1.0, 0).mean(1)[:2][:, [0, 15]]
    figure = draw_query_maps(image, WIDE, maps, [0, 15], ["depth 1", "depth 3"], tmp_path / "m.png")
    axes = figure.axes[5]  # second query, second panel
    np.testing.assert_array_equal(axes.images[1].get_array(), maps[1, 1].reshape(4, 6))
    assert axes.patches[0].get_xy() == (3, 2)  # patch 15: row 2, column 3
    assert axes.images[0].get_array().shape == (64, 48)
    assert axes.texts[0].get_text() == f"{24 * maps[1, 1].max():.2g} × uniform"
    assert "query in row 2, column 3" in description(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": [0, 24]}, "outside the grid"),
        ({"titles": ["one"]}, "maps have shape"),
        ({"layout": Layout((4, 6), patch_size=(16, 8), windows=4)}, "4 windows"),
        ({"image": np.zeros((63, 48, 3))}, "does not hold"),
        ({"image": np.zeros((64, 48))}, "does not hold"),
    ],
)
def test_query_maps_that_do_not_fit_are_refused(change, message, tmp_path):
    given = {"image": np.zeros((64, 48, 3)), "layout": WIDE, "maps": np.full((2, 2, 24), 1 / 24)}
    given |= {"queries": [0, 1], "titles": ["a", "b"], **change}
    with pytest.raises(ValueError, match=message):
        draw_query_maps(**given, path=tmp_path / "m.png")


def test_negative_shares_stand_below_zero_with_their_intervals(tmp_path):
    table = both(shares_table(), shares_table("net" + RANDOM_WEIGHTS, {"PP": 0.01, "rest": 0.99}))
    figure = draw_shares(table, record(), tmp_path / "s.png")
    axes = figure.axes[0]
    bars = {one.get_label(): one for one in axes.containers}
    assert list(bars) == [name for name in COMPONENT_COLOURS if name in ("PP", "FP", "FF", "rest")]
    ends = {name: (bar[1].get_y(), bar[1].get_y() + bar[1].get_height()) for name, bar in bars.items()}
    assert ends["PP"] == pytest.approx((0, 0.51)) and ends["FP"] == pytest.approx((0.51, 0.82))
    assert ends["FF"] == pytest.approx((0, -0.09)) and ends["rest"] == pytest.approx((0.82, 1.13))
    whiskers = [segment[:, 1] for lines in axes.collections for segment in lines.get_segments()]
    assert any(one == pytest.approx([0.45, 0.56]) for one in whiskers)
    assert "FF −0.09" in description(tmp_path / "s.png") and len(figure.axes) == 2
    with pytest.raises(ValueError, match="no row of other"):
        draw_shares(table, record("other"), tmp_path / "s.png")


def made(name, value, half=0.0, layout=WIDE):
    return list(rows_of("net", 0, name, np.array([[value - half], [value + half]])))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"entropy": 0.995, "diversity": 0.001}, {"nearly uniform"}),
        ({"entropy": 0.5, "diversity": 0.001}, {"collapsed"}),
        ({"entropy": 0.5, "diversity": 0.7, "distance_ratio": 0.4}, {"local", "diverse"}),
        ({"entropy": 0.9, "diversity": 0.6, "distance_ratio": 0.6, "prefix_mass": 0.4}, set()),
        ({"prefix_mass": 0.6}, {"sink"}),
        ({"entropy": math.nan, "diversity": math.nan}, set()),
    ],
)
def test_readings_begin_at_their_thresholds(values, expected):
    scale = {"entropy": math.log(WIDE.patches)}
    rows = [row for name, value in values.items() for row in made(name, value * scale.get(name, 1))]
    found = readings(pa.Table.from_pylist(rows), record(layers=1))
    assert {one["reading"] for one in found if one["depth"] == "1"} == expected
    missing = [one for one in READINGS if one.drawn or not set(one.needs) <= set(values)]
    assert [one["reading"] for one in found if one["depth"] == "not measured"] == [
        one.name for one in missing
    ]
    assert [one["reading"] for one in found] == [one.name for one in READINGS]


def test_a_reading_needs_the_whole_interval():
    for half, depth in ((0.001, "1"), (0.1, "–")):
        table = pa.Table.from_pylist(made("distance_ratio", 0.45, half))
        assert {one["reading"]: one["depth"] for one in readings(table, record(layers=1))}["local"] == depth


def test_layers_like_random_weights_are_named():
    same = both(layers_table(), layers_table("net" + RANDOM_WEIGHTS, sharp=(0.5, 0.1, 2.0), seed=0))
    last = {one["reading"]: one["depth"] for one in readings(same, record())}
    assert last["as with random weights"] == "1, 3"
    alone = {one["reading"]: one["depth"] for one in readings(layers_table(), record())}
    assert alone["as with random weights"] == "not measured"


def test_warnings_name_nan_layers_windows_and_unlike_numbers_of_patches():
    rows = layers_table().to_pylist()
    for one in rows:
        if one["layer"] == 1 and one["statistic"] == "nmi":
            one["mean"] = math.nan
    windowed = record("swin", Layout((5, 5), patch_size=(8, 8), windows=4))
    nan, windows, sizes = warnings_of([record(), windowed], pa.Table.from_pylist(rows))
    assert "net: values at depth 2" in nan and "nmi" in nan
    assert "swin: attention at depth 1–3 stays within windows of 25 patches" in windows
    assert "24 and 25 patches" in sizes
    assert warnings_of([record()], layers_table()) == []


def text_of(page):
    """The words of a page, its style and tags left out."""
    plain = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).replace("&#x27;", "'")
    return re.sub(r"[ \n]+", " ", plain)


def test_the_page_holds_every_figure_number_and_explanation(tmp_path):
    table = both(layers_table(), layers_table("net" + RANDOM_WEIGHTS, sharp=(0.02,) * 3, seed=9))
    told = summary([record()], table, skipped=[["bad.png", "is truncated"]], warnings=["Something is odd."])
    figures = draw_probe_figures(tmp_path, told, table, offsets_table(), shares_table())
    image = np.zeros((64, 48, 3))
    draw_query_maps(
        image, WIDE, attention(WIDE, 1.0, 0)[:1, 0, :1], [0], ["depth 1"], tmp_path / "figures/m.png"
    )
    figures.append(ProbeFigure("maps", "figures/m.png", "net"))
    assert {one.kind for one in figures} == {"depth", "heads", "offsets", "shares", "maps"}
    page = write_probe_page(tmp_path, told, table, figures).read_text()
    alts = re.findall(r'<img src="data:image/png;base64,[^"]+"[^>]* alt="([^"]+)"', page)
    assert len(alts) == len(figures) == len(list((tmp_path / "figures").iterdir()))
    assert "http" not in page and "<script" not in page
    text = text_of(page)
    for name in CORE:
        one = CATALOGUE[name]
        assert all(words.replace("I = ", "") in text for words in (one.title, one.range, one.higher)), name
        found = curve(table, "net", name)
        for ends in zip(found.mean, found.low, found.high, strict=True):
            assert format_interval(*ends, digits=3).replace(" ", "\u00a0") in text
    for said in (
        "bad.png",
        "is truncated",
        "Something is odd.",
        "mimlab probe net --out run",
        "blocks.2.attn",
    ):
        assert said in text
    assert "no evidence" in text and "4×6 patches of 16×8 pixels after 1 prefix token" in text


def test_a_comparison_names_runs_and_says_what_cannot_be_compared(tmp_path):
    wide, square = layers_table(), both(layers_table("net", SQUARE), layers_table("other", SQUARE))
    runs = [
        ProbeRun("first", summary([record()], wide), wide),
        ProbeRun(
            "second", summary([record("net", SQUARE), record("other", SQUARE)], square, images=9), square
        ),
    ]
    models, layers = joined(runs)
    assert [one["name"] for one in models] == ["net (first)", "net (second)", "other"]
    assert set(layers["model"].to_pylist()) == {"net (first)", "net (second)", "other"}
    np.testing.assert_array_equal(curve(layers, "net (second)", "nmi").mean, curve(square, "net", "nmi").mean)
    page = write_comparison_page(
        tmp_path, runs, draw_comparison_figures(tmp_path, runs), "mimlab compare first second"
    )
    text = text_of(page.read_text())
    assert "Maps have 24 and 25 patches" in text and "NMI" in text
    assert "Not all runs measured the same images" in text and "9 from a folder" in text
    assert text.count("Layer by layer: net (second)") == 2  # contents and heading
    assert page.read_text().count("<img ") == 1
