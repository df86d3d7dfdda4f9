"""Figures of a run against time: what they draw is what the tables hold, and no gap in a table breaks them."""

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from mimlab.report import draw_attention, draw_correlations, draw_excess_loss
from mimlab.report.style import COLOURS
from mimlab.report.trajectories import half_time_of, rows_of

LOCAL, GLOBAL = 3981, 0
HALF = 3333.0
PHASES = [
    {"query": LOCAL, "name": "decoupling", "start": 0.0, "end": 1000.0},
    {"query": LOCAL, "name": "growth", "start": 1000.0, "end": 9000.0},
    {"query": LOCAL, "name": "convergence", "start": 9000.0, "end": 40_000.0},
    {"query": GLOBAL, "name": "growth", "start": 0.0, "end": 77.0},
]
SUMMARY = {"patches": 10_000, "information_gap": 0.5, "half_time": HALF, "phases": PHASES}


def trajectory(query=LOCAL, times=None, errors=True, **columns):
    """Rows of one query that reaches half attention at HALF and pushes the global area down before."""
    time = np.r_[0.0, np.geomspace(0.1, 40_000.0, 60)] if times is None else np.array(times, dtype=float)
    attention = time**3 / (time**3 + HALF**3)
    nothing = pa.nulls(time.size, pa.float64())
    error = np.full(time.size, 0.01) if errors else nothing
    values = {
        "query": np.full(time.size, query),
        "step": pa.nulls(time.size, pa.int64()),
        "time": time,
        "loss": 0.4 * (1 - attention) ** 2 + 0.05,
        "excess_loss": 0.4 * (1 - attention) ** 2 + 1e-6,
        "attention_own": attention,
        "attention_global": 0.3 * (1 - attention),
        "phi_own": np.log1p(time / HALF),
        "phi_global": -0.5 * np.log1p(time / 100),
        "phi_other_max": 0.01 * attention,
        "upsilon_max": 0.1 * attention,
        **{f"{name}_se": error for name in ("attention_own", "attention_global", "phi_own", "excess_loss")},
    }
    return pa.table({**values, **columns})


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def spans(figure):
    """Name to (start, end) of each shaded phase."""
    found = {}
    for patch in figure.axes[0].patches:
        name = (patch.get_gid() or "").removeprefix("phase:")
        found[name] = patch.get_x(), patch.get_x() + patch.get_width()
    return found


def words(figure):
    """All text of the figure that a reader sees besides ticks and axis labels."""
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [text.get_text() for text in figure.axes[0].texts] + legends


def description(path):
    with Image.open(path) as image:
        return image.info["Description"]


def test_correlations_draws_every_column_and_the_prediction(tmp_path):
    table = trajectory()
    figure = draw_correlations(table, SUMMARY, tmp_path / "c.png", LOCAL, prediction=-2.1)
    drawn = lines(figure)
    for label, column in (
        (r"$\Phi$ own area", "phi_own"),
        (r"$\Phi$ global area", "phi_global"),
        (r"$\Phi$ others, max", "phi_other_max"),
        (r"$|\Upsilon|$ positions, max", "upsilon_max"),
    ):
        np.testing.assert_array_equal(drawn[label].get_ydata(), table[column].to_numpy())
        assert label in words(figure)
    predicted = drawn[r"theory: $\Phi$ global at half"]
    assert list(predicted.get_ydata()) == [-2.1, -2.1]
    assert predicted.get_linestyle() == "--"
    assert predicted.get_color() == COLOURS["global"]
    assert list(drawn["half time 3333"].get_xdata()) == [HALF, HALF]
    assert figure.axes[0].get_xlabel() == "time (learning rate × steps)"


def test_no_prediction_no_line(tmp_path):
    for prediction in (None, np.nan):
        figure = draw_correlations(trajectory(), SUMMARY, tmp_path / "c.png", LOCAL, prediction)
        assert not any("theory" in label for label in lines(figure))


@pytest.mark.parametrize("draw", [draw_correlations, draw_attention, draw_excess_loss])
def test_phases_of_this_query_are_shaded_where_they_are_and_named(draw, tmp_path):
    figure = draw(trajectory(), SUMMARY, tmp_path / "f.png", LOCAL)
    left, right = figure.axes[0].get_xlim()
    assert left > 0
    assert spans(figure) == {
        "decoupling": pytest.approx((left, 1000.0)),
        "growth": pytest.approx((1000.0, 9000.0)),
        "convergence": pytest.approx((9000.0, right)),
    }
    text = " ".join(words(figure))
    assert all(name in text for name in ("decoupling", "growth", "convergence"))
    assert "Phase growth from time 1000 to 9000." in description(tmp_path / "f.png")


def test_a_narrow_phase_is_named_in_the_legend(tmp_path):
    narrow = {**SUMMARY, "phases": [{"query": LOCAL, "name": "growth", "start": 1000.0, "end": 1100.0}]}
    assert "phase: growth" in words(draw_attention(trajectory(), narrow, tmp_path / "a.png", LOCAL))


def test_a_phase_that_has_not_ended_reaches_the_edge(tmp_path):
    open_ended = {**SUMMARY, "phases": [{"query": LOCAL, "name": "growth", "start": 1000.0, "end": None}]}
    figure = draw_attention(trajectory(), open_ended, tmp_path / "a.png", LOCAL)
    assert spans(figure) == {"growth": pytest.approx((1000.0, figure.axes[0].get_xlim()[1]))}


def test_bands_are_two_standard_errors_where_there_are_any(tmp_path):
    with_errors = draw_attention(trajectory(), SUMMARY, tmp_path / "a.png", LOCAL)
    own, overall = with_errors.axes[0].collections
    assert tuple(own.get_facecolor()[0][:3]) == to_rgba(COLOURS["own"])[:3]
    assert tuple(overall.get_facecolor()[0][:3]) == to_rgba(COLOURS["global"])[:3]
    corners = own.get_paths()[0].vertices
    last = corners[corners[:, 0] == 40_000.0][:, 1]
    attention = 40_000.0**3 / (40_000.0**3 + HALF**3)
    assert (last.min(), last.max()) == pytest.approx((attention - 0.02, attention + 0.02))
    without = draw_attention(trajectory(errors=False), SUMMARY, tmp_path / "a.png", LOCAL)
    assert not without.axes[0].collections


def test_excess_loss_is_log_log_beside_one_over_t(tmp_path):
    figure = draw_excess_loss(trajectory(), SUMMARY, tmp_path / "l.png", LOCAL)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    guide = lines(figure)[r"$\propto 1/t$"]
    assert np.ptp(guide.get_xdata() * guide.get_ydata()) == pytest.approx(0.0, abs=1e-9)
    excess = np.interp(guide.get_xdata(), *lines(figure)["excess loss"].get_data())
    assert (guide.get_ydata() < excess).all()
    assert (lines(figure)["excess loss"].get_xdata() > 0).all()


def test_excess_loss_leaves_out_what_has_no_logarithm(tmp_path):
    excess = np.array([0.4, 0.1, -1e-9, np.nan, 0.01])
    table = trajectory(times=[0.0, 1.0, 10.0, 100.0, 1000.0], excess_loss=excess)
    figure = draw_excess_loss(table, SUMMARY, tmp_path / "l.png", LOCAL)
    assert list(lines(figure)["excess loss"].get_ydata()) == [0.1, 0.01]
    nothing = draw_excess_loss(
        trajectory(times=[0.0, 1.0], excess_loss=[0.4, 0.0]), SUMMARY, tmp_path / "l.png", LOCAL
    )
    assert words(nothing)[0] == "no finite value that these axes can show"
    assert "nothing to draw" in description(tmp_path / "l.png")


def test_only_the_rows_of_the_query_in_order_of_time(tmp_path):
    both = pa.concat_tables([trajectory(GLOBAL), trajectory(LOCAL)])
    shuffled = both.take(np.random.default_rng(0).permutation(both.num_rows))
    figure = draw_attention(shuffled, SUMMARY, tmp_path / "a.png", LOCAL)
    np.testing.assert_array_equal(
        lines(figure)["on own area"].get_xdata(), np.sort(trajectory()["time"].to_numpy())
    )
    assert spans(draw_attention(shuffled, SUMMARY, tmp_path / "a.png", GLOBAL)).keys() == {"growth"}
    with pytest.raises(ValueError, match=r"no row of query 7; it has \[0, 3981\]"):
        draw_attention(shuffled, SUMMARY, tmp_path / "a.png", 7)


def test_a_global_query_has_one_line_for_its_one_area(tmp_path):
    table = trajectory(GLOBAL)
    same = table.set_column(
        table.column_names.index("attention_global"), "attention_global", table["attention_own"]
    )
    figure = draw_attention(same, {"phases": []}, tmp_path / "a.png", GLOBAL)
    assert "on own = global area" in lines(figure)
    assert "on global area" not in lines(figure)


@pytest.mark.parametrize("draw", [draw_correlations, draw_attention, draw_excess_loss])
def test_two_rows_null_columns_and_a_bare_summary_are_enough(draw, tmp_path):
    nulls = {name: pa.nulls(2) for name in ("phi_other_max", "upsilon_max", "attention_global")}
    table = trajectory(times=[0.0, 5.0], errors=False, **nulls)
    figure = draw(table, {"half_time": None, "phases": []}, tmp_path / "f.png", LOCAL)
    assert not spans(figure)
    assert not any("half time" in word for word in words(figure))
    assert not {r"$\Phi$ others, max", "on global area"} & lines(figure).keys()
    assert description(tmp_path / "f.png")


def test_a_table_without_correlations_says_so(tmp_path):
    nulls = {name: pa.nulls(3) for name in ("phi_own", "phi_global", "phi_other_max", "upsilon_max")}
    figure = draw_correlations(trajectory(times=[0, 1, 2], **nulls), {}, tmp_path / "c.png", LOCAL)
    assert words(figure) == ["no finite value that these axes can show"]
    assert "nothing to draw" in description(tmp_path / "c.png")


def test_two_rows_are_drawn_on_a_linear_axis_from_zero(tmp_path):
    figure = draw_correlations(trajectory(times=[0.0, 5.0]), {}, tmp_path / "c.png", LOCAL)
    assert figure.axes[0].get_xscale() == "linear"
    assert figure.axes[0].get_xlim() == (0.0, 5.0)


def test_the_axis_begins_where_something_moves(tmp_path):
    """Steps of a solver at 10⁻⁹ must not take most of a logarithmic axis."""
    times = [0.0, *np.geomspace(1e-9, 40_000.0, 80)]
    figure = draw_attention(trajectory(times=times), SUMMARY, tmp_path / "a.png", LOCAL)
    left, right = figure.axes[0].get_xlim()
    assert 1e-2 < left < 100 and right == pytest.approx(40_000.0)


def test_half_time_is_the_summarys_for_its_query_and_interpolated_for_others():
    exact = half_time_of(rows_of(trajectory(), LOCAL), SUMMARY)
    assert exact == HALF
    interpolated = half_time_of(rows_of(trajectory(times=[0.0, 3000.0, 3400.0]), LOCAL), {"half_time": 12.0})
    assert interpolated == pytest.approx(HALF, rel=1e-3)
    assert half_time_of(rows_of(trajectory(times=[0.0, 10.0]), LOCAL), SUMMARY) is None


def test_the_picture_tells_its_numbers(tmp_path):
    draw_attention(trajectory(), SUMMARY, tmp_path / "a.png", LOCAL)
    text = description(tmp_path / "a.png")
    assert text.startswith(
        "Attention against time from 0 to 40000: attention on the own area goes from 0 to 0.9994"
    )
    assert "reaches one half at time 3333." in text


def test_figures_are_png_and_leave_matplotlibs_settings_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_attention(trajectory(), SUMMARY, tmp_path / "new" / "a.png", LOCAL)
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match=r"not as 'a\.pdf'"):
        draw_attention(trajectory(), SUMMARY, tmp_path / "a.pdf", LOCAL)
