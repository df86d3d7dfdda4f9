"""Figures and pages of pretraining, from tables of real attention: what is drawn and said is what was given."""

import re

import numpy as np
import pyarrow.compute as pc
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mimlab import statistics
from mimlab.probing.catalogue import RANDOM_WEIGHTS
from mimlab.probing.shares import COMPONENTS
from mimlab.report.pretrain import (
    SHOWN,
    draw_layers,
    draw_loss,
    draw_outputs,
    draw_runs,
    draw_shares_through_training,
)
from mimlab.report.pretrain_maps import (
    draw_attention_of_runs,
    draw_attention_through_training,
    draw_reconstructions,
)
from mimlab.report.pretrain_page import (
    COMPARED,
    START,
    Reconstructions,
    comparison_warnings,
    draw_pretrain_comparison,
    draw_pretrain_figures,
    same_view,
    write_pretrain_comparison,
    write_pretrain_page,
)
from mimlab.report.pretrain_tables import (
    LAYERS_SCHEMA,
    PretrainRun,
    as_probed,
    series,
    share_series,
    spread_steps,
    steps_in,
)
from mimlab.report.probe_shares import COMPONENT_COLOURS
from mimlab.report.probe_tables import curve
from mimlab.report.probes import draw_depth
from mimlab.studies.probe_parts import LAYERS_SCHEMA as PROBED_SCHEMA

from .pretrain_runs import (
    CROPS,
    HEADS,
    LAYERS,
    LAYOUT,
    PICTURE,
    QUERY,
    STEPS,
    attention,
    log_of,
    maps_table,
    run_of,
    shares_table,
    statistics_table,
    summary,
)


def description(path):
    with Image.open(path) as image:
        assert image.width > 500 and len(np.unique(np.asarray(image.convert("L")))) > 20
        return image.info["Description"]


def test_a_series_is_the_mean_over_heads_with_the_lowest_and_the_highest():
    table = statistics_table()
    found = series(table.take(np.random.default_rng(0).permutation(len(table))), "nmi", 1)
    assert found.steps.tolist() == list(STEPS)
    values = np.array(
        [[statistics.nmi(attention(1, head, step, 0.5)).mean() for head in range(HEADS)] for step in STEPS]
    )
    np.testing.assert_allclose(found.mean, values.mean(1))
    np.testing.assert_allclose(found.low, values.min(1))
    np.testing.assert_allclose(found.high, values.max(1))
    np.testing.assert_allclose(series(table, "mean_rank").mean, [3 + step for step in STEPS])
    shares = shares_table()
    found = share_series(shares.take(np.random.default_rng(0).permutation(len(shares))), "FP", 1)
    rows = shares.filter((pc.field("component") == "FP") & (pc.field("layer") == 1)).to_pylist()
    for values, column in ((found.mean, "share"), (found.low, "low"), (found.high, "high")):
        by_step = [[row[column] for row in rows if row["step"] == step] for step in (0, 4, 32)]
        np.testing.assert_allclose(values, np.mean(by_step, axis=1))
    assert found.steps.tolist() == [0, 4, 32]
    assert not series(table, "mean_rank", 0) and not series(table, "another", 0)


def test_the_ends_of_a_run_read_as_a_probed_model_and_its_random_weights():
    assert LAYERS_SCHEMA == PROBED_SCHEMA
    run = run_of()
    table = as_probed(run)
    for model, step in (("simmim", 32), ("simmim" + RANDOM_WEIGHTS, 0)):
        found = curve(table, model, "diversity")
        expected = [
            series(run.statistics, "diversity", layer).mean[STEPS.index(step)] for layer in range(LAYERS)
        ]
        np.testing.assert_allclose(found.mean, expected)
        assert len(found.heads) == LAYERS * HEADS and np.isnan(found.low).all()
    assert set(table["images"].to_pylist()) == {CROPS}
    shares = as_probed(run, run.shares)
    for model, step in (("simmim", 32), ("simmim" + RANDOM_WEIGHTS, 0)):
        rows = run.shares.filter((pc.field("step") == step) & (pc.field("component") == "FP")).to_pylist()
        found = curve(shares, model, "FP")
        for values, column in ((found.mean, "share"), (found.low, "low"), (found.high, "high")):
            by_layer = [[row[column] for row in rows if row["layer"] == layer] for layer in range(LAYERS)]
            np.testing.assert_allclose(values, np.mean(by_layer, axis=1))


def test_steps_are_spread_with_both_ends():
    assert spread_steps([0, 1, 2, 4, 8, 16, 32], 4) == [0, 2, 8, 32]
    assert spread_steps([0, 9], 5) == [0, 9]
    assert steps_in(maps_table()) == list(STEPS)


def test_loss_is_drawn_as_logged_and_smoothed(tmp_path):
    figure = draw_loss([*log_of(), {"step": 33, "loss": None}], tmp_path / "loss.png")
    raw, smooth = figure.axes[0].lines
    np.testing.assert_allclose(raw.get_ydata(), [one["loss"] for one in log_of()])
    assert len(smooth.get_ydata()) == 32
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [one["lr"] for one in log_of()])
    assert "Loss from 1.1 at step 1 to 0.131 around step 32" in description(tmp_path / "loss.png")
    long = draw_loss(log_of(600), tmp_path / "long.png").axes[0].lines[1]
    assert long.get_ydata()[0] == pytest.approx(np.mean([1 / n + 0.1 for n in range(1, 11)]))
    draw_loss([], tmp_path / "none.png")
    with Image.open(tmp_path / "none.png") as image:
        assert image.info["Description"] == "Loss against step: no finite loss."


def test_a_line_per_layer_with_a_ring_before_training_and_uniform_attention(tmp_path):
    run = run_of()
    figure = draw_layers(run.statistics, run.model, tmp_path / "layers.png", marks=[8])
    panels = dict(zip(SHOWN, figure.axes, strict=False))
    for name, axes in panels.items():
        lines = [
            line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == len(STEPS)
        ]
        rings = [line for line in axes.lines if line.get_fillstyle() == "none" and line.get_marker() == "o"]
        assert len(lines) == len(rings) == LAYERS
        for layer, (line, ring) in enumerate(zip(lines, rings, strict=True)):
            found = series(run.statistics, name, layer)
            np.testing.assert_allclose(line.get_ydata(), found.mean)
            assert ring.get_xdata().tolist() == [0] and ring.get_ydata()[0] == found.mean[0]
        assert axes.get_xlim()[0] < 0 and [8, 8] in [list(line.get_xdata()) for line in axes.lines]
    levels = [line.get_ydata()[0] for line in panels["distance"].lines if line.get_gid() == "uniform"]
    assert levels == pytest.approx([LAYOUT.uniform_distance()])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["depth 1", "depth 2", "before training", "uniform", "identity", "alarm"]
    assert re.search(r"NMI: depth 1 from \S+ to 0\.\d+, depth 2", description(tmp_path / "layers.png"))


def test_shares_have_a_panel_per_layer_and_pp_and_fp_stand_out(tmp_path):
    shares = shares_table()
    figure = draw_shares_through_training(shares, tmp_path / "shares.png", marks=[4])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels[: len(COMPONENTS)]) == set(COMPONENTS)
    assert labels[-2:] == ["before training", "alarm"]
    widths = {
        line.get_label(): line.get_linewidth() for line in figure.legends[0].legend_handles[: len(COMPONENTS)]
    }
    heavy = {name for name, width in widths.items() if width == max(widths.values())}
    assert heavy == {"PP", "FP"}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    for layer, axes in enumerate(figure.axes):
        lines = {line.get_color(): line for line in axes.lines if len(line.get_xdata()) == 3}
        bands = {to_hex(band.get_facecolor()[0][:3]).upper(): band for band in axes.collections}
        for name in COMPONENTS:
            rows = shares.filter((pc.field("component") == name) & (pc.field("layer") == layer)).to_pylist()
            at_end = [row for row in rows if row["step"] == 32]
            line = lines[COMPONENT_COLOURS[name]]
            assert line.get_xdata().tolist() == [0, 4, 32]
            assert line.get_ydata()[-1] == pytest.approx(np.mean([row["share"] for row in at_end]))
            corners = bands[COMPONENT_COLOURS[name].upper()].get_paths()[0].vertices
            found = corners[corners[:, 0] == 32, 1]
            assert found.min() == pytest.approx(np.mean([row["low"] for row in at_end]))
            assert found.max() == pytest.approx(np.mean([row["high"] for row in at_end]))
    assert re.match(r"Share of logit variance against step. depth 1: ", description(tmp_path / "shares.png"))


def test_outputs_without_cls_and_without_numbers(tmp_path):
    table = run_of().statistics
    figure = draw_outputs(table, tmp_path / "o.png")
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["mean over patches", "CLS"]
    assert "mean over patches from 3 to 35" in description(tmp_path / "o.png")
    patches = table.filter(pc.invert(pc.starts_with(table["statistic"], "cls")))
    labels = draw_outputs(patches, tmp_path / "p.png").legends[0].get_texts()
    assert "CLS" not in [text.get_text() for text in labels]
    draw_outputs(table.filter(pc.field("layer").is_valid()), tmp_path / "none.png")
    with Image.open(tmp_path / "none.png") as image:
        assert "Deviation of outputs: no values." in image.info["Description"]


def test_runs_beside_each_other_have_a_panel_per_layer(tmp_path):
    runs = [run_of(), run_of("simclr", sharp=0.1)]
    figure = draw_runs(runs, "nmi", tmp_path / "runs.png")
    for layer, axes in enumerate(figure.axes):
        assert axes.get_title(loc="left") == f"depth {layer + 1}"
        lines = [
            line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == len(STEPS)
        ]
        for line, run in zip(lines, runs, strict=True):
            np.testing.assert_allclose(line.get_ydata(), series(run.statistics, "nmi", layer).mean)
    assert re.match(
        r"NMI against step. depth 1: simmim from \S+ to 0.309, simclr", description(tmp_path / "runs.png")
    )


def test_depth_calls_the_start_by_its_name(tmp_path):
    run = run_of()
    figure = draw_depth(as_probed(run), [run.model], tmp_path / "d.png", before=START)
    labels = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert START in labels and "random weights" not in labels
    assert f"with {START} 1" in description(tmp_path / "d.png")


def test_attention_is_shown_at_the_start_and_while_it_forms(tmp_path):
    run = run_of()
    figure = draw_attention_through_training(run.maps, PICTURE, run.model, tmp_path / "a.png")
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["image", "step 0", "step 1", "step 4", "step 8", "step 32"]
    last = figure.axes[11].images[1].get_array()  # the second row's last column
    expected = np.mean([attention(1, head, 32, 0.5)[0, QUERY] for head in range(HEADS)], 0)
    np.testing.assert_allclose(last, expected.reshape(4, 4))
    assert "depth 2, query in row 1, column 1: step 0 1" in description(tmp_path / "a.png")


def test_attention_of_runs_has_a_row_per_run(tmp_path):
    short = PretrainRun("short", summary(), statistics_table(0.1, (0, 5)), maps_table(0.1, (0, 5)), PICTURE)
    figure = draw_attention_of_runs([run_of(), short], 1, tmp_path / "a.png")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "step 0", "step 5–32"]
    below = figure.axes[5].images[1].get_array()
    expected = np.mean([attention(0, head, 5, 0.1)[0, QUERY] for head in range(HEADS)], 0)
    np.testing.assert_allclose(below, expected.reshape(4, 4))
    assert "short" in description(tmp_path / "a.png")


def made(crops):
    draws = np.random.default_rng(1)
    given = draws.integers(0, 256, (crops, 16, 16, 3), dtype=np.uint8)
    seen = np.zeros((crops, 16, 16), dtype=bool)
    seen[:, :8] = True
    steps = {step: np.full_like(given, step) for step in (0, 1, 2, 3, 6, 9, 10, 27, 81)}
    return Reconstructions(given, seen, steps)


def test_reconstructions_keep_what_was_visible(tmp_path):
    given = made(3)
    figure = draw_reconstructions(given.crops, given.seen, given.predicted, tmp_path / "r.png")
    steps = [0, 3, 9, 27, 81]
    titles = ["crop", "what it sees", *(f"step {step}" for step in steps)]
    assert [axes.get_title() for axes in figure.axes[:7]] == titles
    shown = [axes.images[0].get_array() for axes in figure.axes[7:14]]  # the second crop
    for panel in shown:
        np.testing.assert_allclose(panel[:8], given.crops[1, :8] / 255)
    assert (shown[1][8:] == 0.5).all()
    for step, panel in zip(steps, shown[2:], strict=True):
        np.testing.assert_allclose(panel[8:], step / 255)
    assert "3 held-out crops, 0.5 of each hidden" in description(tmp_path / "r.png")


def test_a_page_holds_what_was_given(tmp_path):
    alarm = "step 16: NMI at depth 2 is 0.01 and was 0.4: its queries come to attend alike, as in a collapse"
    told = summary(alarms=[alarm], start="runs/<simmim>")
    table, log = statistics_table(), log_of()
    figures = draw_pretrain_figures(
        tmp_path, told, log, table, maps_table(), PICTURE, made(2), [16], shares_table()
    )
    assert [one.kind for one in figures] == [
        "loss",
        "layers",
        "outputs",
        "depth",
        "shares",
        "attention",
        "reconstructions",
    ]
    page = write_pretrain_page(tmp_path, told, log, table, figures).read_text()
    assert page.count("<img") == 7 and "<script" not in page and "http" not in page
    for words in (
        alarm,
        "runs/&lt;simmim&gt;",
        "Was anything learned?",
        "0.39",
        "weights at the start",
        "Seed",
    ):
        assert words in page
    mean = np.mean([series(table, "nmi", layer).mean[-1] for layer in range(LAYERS)])
    assert f'<td class="number">{mean:.4g}</td>' in page


def test_a_page_of_a_run_that_failed_at_once(tmp_path):
    told = summary(status="failed: loss is nan from step 1 on", step=0, evaluation=[], images_per_second=None)
    table = statistics_table(steps=(0,))
    page = write_pretrain_page(
        tmp_path, told, [], table, draw_pretrain_figures(tmp_path, told, [], table)
    ).read_text()
    assert "loss is nan from step 1 on" in page and "Was anything learned?" not in page
    assert page.count("<img") == 4


def test_a_comparison_shows_all_runs_and_where_each_began(tmp_path):
    runs = [run_of(), run_of("simclr", sharp=0.1, objective="simclr", evaluation=[])]
    figures = draw_pretrain_comparison(tmp_path, runs)
    assert [one.kind for one in figures] == [
        *["runs"] * len(COMPARED),
        *("depth", "shares_of_runs", "attention", "attention"),
    ]
    page = write_pretrain_comparison(tmp_path, runs, figures, "mimlab compare a b").read_text()
    assert page.count("<img") == len(figures) and "Pretraining compared: simmim and simclr" in page
    assert (
        len(re.findall(r"<tr><td>sim\w+</td><td class=\"number\">0</td>", page)) == 3
    )  # statistics twice, evaluation once
    assert comparison_warnings(runs) == []


def test_what_differs_between_runs_is_said():
    first = run_of(alarms=["step 4: something fell"])
    other = run_of(
        "simclr",
        picture=255 - PICTURE,
        images="a folder",
        held_out="7 files",
        status="stopped: 2 minutes",
        step=9,
    )
    assert not same_view([first, other]) and same_view([first, run_of("b")])
    assert not same_view([first, run_of("b", query=6)])
    assert not same_view([first, PretrainRun("b", summary(), statistics_table())])
    said = comparison_warnings([first, other])
    for words in (
        "simmim: step 4: something fell",
        "simclr: The run is not finished: stopped: 2 minutes (step 9 of 32).",
        "Not all runs were watched on the same crops (simmim: 3 of 3 photographs; simclr: 3 of 7 files)",
        "Not all runs learned from the same images (simmim: 13 photographs; simclr: a folder)",
        "The runs followed different queries or crops",
    ):
        assert any(words in one for one in said), words
