"""Figures of exponents, information gaps and photographs: what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from PIL import Image

from mimlab.report import (
    draw_attention_on_photograph,
    draw_exponents,
    draw_gap,
    draw_segmentation,
    draw_survey,
)
from mimlab.report.photographs import attention_colours

PATCHES = np.geomspace(1e4, 1e12, 9)
FIT = {"quantity": "half_time", "slope": 0.7, "low": 0.65, "high": 0.75, "bound": 1.4, "predicted": 0.71}


def points(quantity="half_time", slope=0.7):
    return [{"patches": p, "quantity": quantity, "value": 5 * p**slope} for p in PATCHES]


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def slope_of(line):
    x, y = np.log(line.get_xdata()), np.log(line.get_ydata())
    return np.polyfit(x, y, 1)[0]


def description(path):
    with Image.open(path) as image:
        return image.info["Description"]


def test_fit_and_guides_have_their_slopes_and_the_fit_runs_through_the_points(tmp_path):
    axes = draw_exponents(points(), [FIT], tmp_path / "e.png").axes[0]
    drawn = lines(axes)
    assert slope_of(drawn["theory: slope 0.71"]) == pytest.approx(0.71)
    assert slope_of(drawn["paper's bound: slope 1.4"]) == pytest.approx(1.4)
    fit = drawn["fit: slope 0.7 [0.65, 0.75]"]
    np.testing.assert_allclose(fit.get_ydata(), 5 * fit.get_xdata() ** 0.7, rtol=1e-9)
    np.testing.assert_array_equal(drawn["runs"].get_xdata(), PATCHES)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_interval_is_drawn_and_guides_stay_off_the_points(tmp_path):
    axes = draw_exponents(points(), [FIT], tmp_path / "e.png").axes[0]
    corners = axes.collections[0].get_paths()[0].vertices
    at_end = np.log(corners[np.isclose(corners[:, 0], 1e12, rtol=1e-9)][:, 1])
    assert np.ptp(at_end) == pytest.approx(0.1 * np.log(1e4))
    guide = lines(axes)["theory: slope 0.71"]
    assert (guide.get_ydata() > 1.5 * 5 * guide.get_xdata() ** 0.7).all()


def test_each_quantity_has_a_panel_and_missing_values_none(tmp_path):
    gaps = [{"patches": 1e4, "quantity": "half_time", "value": bad} for bad in (None, np.nan, 0.0, np.inf)]
    final = {
        "quantity": "final_stage",
        "slope": 0.7,
        "low": None,
        "high": None,
        "bound": None,
        "predicted": None,
    }
    figure = draw_exponents([*points(), *gaps, *points("final_stage")], [FIT, final], tmp_path / "e.png")
    half, last = figure.axes
    assert half.get_ylabel().startswith("half time") and last.get_ylabel().startswith(
        "from half attention to stop"
    )
    assert len(lines(half)["runs"].get_xdata()) == 9
    assert lines(last).keys() == {"runs", "fit: slope 0.7"}
    assert "fitted slope 0.7 [0.65, 0.75], theory 0.71, the paper's bound 1.4" in description(
        tmp_path / "e.png"
    )


@pytest.mark.parametrize(
    "given", [[], points()[:1], [{"patches": 10, "quantity": "half_time", "value": None}]]
)
def test_too_little_for_a_line_is_no_error(given, tmp_path):
    figure = draw_exponents(given, [], tmp_path / "e.png")
    assert not any("slope" in label for axes in figure.axes for label in lines(axes))


def test_flat_points_look_flat_beside_a_steep_theory(tmp_path):
    flat = [{"patches": p, "quantity": "final_stage", "value": 6900 + 10 * i} for i, p in enumerate(PATCHES)]
    fit = {**FIT, "quantity": "final_stage", "slope": 0.0006251, "low": 0.0005, "high": 0.0007}
    axes = draw_exponents(flat, [fit], tmp_path / "e.png").axes[0]
    low, high = axes.get_ylim()
    assert low < 6900 and high > 50 * low
    assert "fit: slope 0.001" in lines(axes)


def test_another_key_can_stand_on_the_horizontal_axis_and_a_ratio_has_no_unit(tmp_path):
    ratios = [{"rest": rest, "quantity": "upsilon_over_phi", "value": 2.0 / rest} for rest in (3, 7, 15, 31)]
    fit = {"quantity": "upsilon_over_phi", "slope": -1.0, "low": -1.1, "high": -0.9, "predicted": -1.0}
    label = "other patches, $C_a - 1$"
    (axes,) = draw_exponents(ratios[::-1], [fit], tmp_path / "e.png", x="rest", x_label=label).axes
    drawn = lines(axes)
    assert list(drawn["runs"].get_xdata()) == [3, 7, 15, 31]
    assert slope_of(drawn["theory: slope −1"]) == pytest.approx(-1.0)
    np.testing.assert_allclose(drawn["fit: slope −1 [−1.1, −0.9]"].get_ydata()[[0, -1]], [2 / 3, 2 / 31])
    assert (axes.get_xlabel(), axes.get_ylabel()) == (label, "largest |Υ| / Φ own")
    assert description(tmp_path / "e.png") == (
        "largest |Υ| / Φ own against other patches, C_a - 1, both logarithmic: from 0.6667 at 3 to 0.06452 at 31; "
        "fitted slope −1 [−1.1, −0.9], theory −1."
    )


def query_record(gap, rates, depth, patches=256):
    return {
        "image": "a.png",
        "patches": patches,
        "area_size": 8,
        "patch_gap": gap,
        "first_rates": rates,
        "phi_global_at_half": depth,
        "attention_own": 0.99,
        "half_time": None if depth is None else 70.0,
    }


SURVEY = [
    query_record(-0.2, 0.1, -0.15),
    query_record(0.1, 0.6, -0.3),
    query_record(0.3, 1.4, -0.7, patches=196),
    query_record(0.6, 6.0, None),
    query_record(0.7, None, -1.5),
]


def dots(axes, label):
    return np.transpose(lines(axes)[label].get_data()).tolist()


def test_survey_draws_each_query_by_its_phases(tmp_path):
    left, right = draw_survey(SURVEY, tmp_path / "s.png", 0.75).axes
    assert dots(left, "one phase") == [[-0.2, -0.15], [0.1, -0.3]]
    assert dots(left, "two phases") == [[0.3, -0.7]]
    assert dots(left, "first rates not measured") == [[0.7, -1.5]]
    assert dots(right, "one phase") == [[-0.2, 0.1], [0.1, 0.6]]
    assert dots(right, "two phases") == [[0.3, 1.4], [0.6, 6.0]]
    shapes = {
        lines(axes)[f"{n} phase{'s' * (n == 'two')}"].get_marker()
        for axes in (left, right)
        for n in ("one", "two")
    }
    assert shapes == {"o", "v"}
    assert right.get_yscale() == "log"
    assert dots(right, "boundary of the phases") == [[0.0, 1.0], [1.0, 1.0]]


def test_survey_draws_the_theory_of_the_median_number_of_patches(tmp_path):
    figure = draw_survey(SURVEY, tmp_path / "s.png", 0.6)
    left, right = (np.transpose(dots(axes, "theory, P = 256 (median)")) for axes in figure.axes)
    np.testing.assert_allclose(right[1], 0.4 * 256 ** right[0])
    np.testing.assert_allclose(left[1], -0.5 * np.log(1 + 0.8 * 256 ** left[0]))
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(named) == len(set(named)) and "theory, P = 256 (median)" in named


def test_survey_tells_what_it_shows(tmp_path):
    draw_survey(SURVEY, tmp_path / "s.png", 0.75)
    text = description(tmp_path / "s.png")
    for said in (
        "5 local queries of photographs",
        "from −0.2 to 0.7",
        "between −1.5 and −0.15",
        "1 never reached half attention",
        "2 of 4 are above 1 (two phases)",
        "The sign of Δ_p tells 3 of these right, (1-γ) P^Δ_p against 1 4.",
    ):
        assert said in text


@pytest.mark.parametrize("queries", [[], [query_record(0.1, None, None)], [query_record(0.1, 0.0, None)]])
def test_a_survey_of_nothing_measured_says_so(queries, tmp_path):
    left, right = draw_survey(queries, tmp_path / "s.png", 0.75).axes
    for axes in (left, right):
        assert [text.get_text() for text in axes.texts] == ["no finite value"]
    assert description(tmp_path / "s.png")


def gap_report(name, pairs, paper=0.1):
    return {"name": name, "patch_gaps": pairs, "information_gap": paper}


def test_gap_histogram_counts_patches_and_keeps_zero_an_edge(tmp_path):
    axes = draw_gap([gap_report("a.png", [(-0.12, 30), (-0.01, 10), (0.02, 60)])], tmp_path / "g.png").axes[0]
    bars = {round(bar.get_x(), 6): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert bars == {-0.15: pytest.approx(0.3), -0.05: pytest.approx(0.1), 0.0: pytest.approx(0.6)}
    assert [text.get_text().strip() for text in axes.texts] == ["one phase · 40%", "two phases · 60%"]
    assert list(lines(axes)[r"the paper's $\Delta$ = 0.1"].get_xdata()) == [0.1]
    low, high = axes.get_xlim()
    assert low < -0.12 and high > 0.1
    assert "60% above 0 (two phases), 40% not (one phase). The paper's Δ is 0.1." in description(
        tmp_path / "g.png"
    )


def test_a_folder_pools_patches_and_has_a_strip_for_each_photograph(tmp_path):
    reports = [
        gap_report("a.png", [(-0.2, 30), (0.3, 10)]),
        gap_report("b.png", [(0.4, 60)], paper=None),
        gap_report("plain.png", [], paper=None),
    ]
    pooled, strips = draw_gap(reports, tmp_path / "g.png").axes
    assert [text.get_text().strip() for text in pooled.texts] == ["one phase · 30%", "two phases · 70%"]
    assert [label.get_text() for label in strips.get_yticklabels()] == ["a.png", "b.png", "plain.png"]
    first, second = (dots.get_offsets().tolist() for dots in strips.collections)
    assert (first, second) == ([[-0.2, 0.0], [0.3, 0.0]], [[0.4, 1.0]])
    assert strips.collections[0].get_sizes()[0] > strips.collections[0].get_sizes()[1]
    marks = [line for line in strips.lines if line.get_marker() == "D"]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(0.1, 0)]
    assert [text.get_text().strip() for text in strips.texts] == ["no local patches"]


def test_a_large_folder_shows_the_first_strips_and_says_so(tmp_path):
    reports = [gap_report(f"{i}.png", [(0.01 * i, 5)]) for i in range(50)]
    pooled, strips = draw_gap(reports, tmp_path / "g.png").axes
    assert sum(bar.get_height() for bar in pooled.patches) == pytest.approx(1.0)
    assert len(strips.get_yticklabels()) == 40
    assert strips.get_title(loc="left") == "the first 40 of 50 photographs"


def test_no_photograph_is_refused_and_no_local_patch_is_not(tmp_path):
    with pytest.raises(ValueError, match="no photograph"):
        draw_gap([], tmp_path / "g.png")
    draw_gap([gap_report("plain.png", [], paper=None)], tmp_path / "g.png")
    assert description(tmp_path / "g.png").endswith("no local patches.")


@pytest.fixture
def photograph():
    """2 × 3 patches of 8 pixels, with 3 pixels left over: red on the left, blue on the right."""
    pixels = np.zeros((19, 27, 3))
    pixels[:, :16, 0] = 0.8
    pixels[:, 16:, 2] = 0.6
    labels = np.array([[0, 0, 1], [0, 0, 2]])
    return pixels, labels


def test_attention_covers_each_patch_with_its_value(photograph, tmp_path):
    pixels, labels = photograph
    start, end = np.full(6, 1 / 6), np.array([[0.01, 0.02, 0.9], [0.0, 0.03, 0.04]])
    figure = draw_attention_on_photograph(
        pixels, labels, [start, end], ["start", "end"], query_patch=2, patch_size=8, path=tmp_path / "p.png"
    )
    panels = [axes for axes in figure.axes if len(axes.images) == 2]
    assert [axes.get_title() for axes in panels] == ["start", "end"]
    for axes, given in zip(panels, (start.reshape(2, 3), end), strict=True):
        grey, cover = axes.images
        np.testing.assert_array_equal(cover.get_array(), given)
        assert cover.get_clim() == (0.0, given.max())
        assert grey.get_array().shape == (16, 24)  # the left-over pixels belong to no patch
        assert tuple(grey.get_extent()) == tuple(cover.get_extent()) == (0.0, 3.0, 2.0, 0.0)
        outline = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert {patch.get_xy() for patch in outline} == {(2, 0)}
    bars = [axes for axes in figure.axes if axes.get_xlabel() == "attention per patch"]
    assert len(bars) == 2
    assert [text.get_text() for text in bars[1].get_xticklabels()] == ["0", "0.45", "0.9"]
    window = figure.canvas.get_renderer()
    spans = [[text.get_window_extent(window) for text in bar.get_xticklabels()] for bar in bars]
    assert spans[0][-1].x1 < spans[1][0].x0 - 10 and spans[1][-1].x1 <= figure.bbox.x1
    text = description(tmp_path / "p.png")
    assert "row 0, column 2" in text and "end: 0.9 of the attention is on the patch's own area" in text


def test_pictures_leave_no_blank_above_or_below(photograph, tmp_path):
    pixels, labels = photograph
    draw_segmentation(pixels[:16, :24], labels, tmp_path / "s.png", "two colours")
    draw_attention_on_photograph(pixels, labels, [np.ones(6)] * 3, ["a", "b", "c"], 0, 8, tmp_path / "p.png")
    for name in ("s.png", "p.png"):
        with Image.open(tmp_path / name) as image:
            inked = np.argwhere((np.asarray(image.convert("L")) < 250).any(axis=1)).ravel()
            assert image.width == 1088
            assert inked[0] < 20 and inked[-1] > image.height - 20


def test_boundaries_lie_between_patches_of_different_areas(photograph, tmp_path):
    pixels, labels = photograph
    figure = draw_attention_on_photograph(pixels, labels, [np.ones(6)], ["now"], 0, 8, tmp_path / "p.png")
    (collection,) = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    sides = {tuple(map(tuple, segment)) for segment in collection.get_segments()}
    assert sides == {((2, 0), (2, 1)), ((2, 1), (2, 2)), ((2, 1), (3, 1))}


def test_more_attention_is_more_opaque():
    colours = attention_colours()(np.linspace(0, 1, 11))
    assert colours[0, 3] == 0
    assert (np.diff(colours[:, 3]) > 0).all()
    assert colours[-1, 3] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_patch": 6}, "query patch 6 is outside the grid of 6 patches"),
        ({"titles": ["a", "b"]}, "1 maps and 2 titles"),
        ({"patch_size": 16}, r"does not hold 2×3 patches of 16 pixels"),
        ({"labels": np.zeros(6)}, r"not an array of shape \(6,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(photograph, change, message, tmp_path):
    pixels, labels = photograph
    given = {"maps": [np.ones(6)], "titles": ["now"], "query_patch": 0, "patch_size": 8, "labels": labels}
    with pytest.raises(ValueError, match=message):
        draw_attention_on_photograph(pixels=pixels, path=tmp_path / "p.png", **{**given, **change})
    assert not (tmp_path / "p.png").exists()


def test_attention_of_zero_everywhere_is_drawn(photograph, tmp_path):
    pixels, labels = photograph
    figure = draw_attention_on_photograph(pixels, labels, [np.zeros(6)], ["none"], 0, 8, tmp_path / "p.png")
    assert figure.axes[0].images[1].get_clim() == (0.0, 1.0)


@pytest.mark.parametrize("moments", [1, 3, 4, 5])
def test_any_number_of_moments_has_a_panel_each(photograph, moments, tmp_path):
    pixels, labels = photograph
    titles = [f"moment {i}" for i in range(moments)]
    maps = [np.ones(6) / 6] * moments
    figure = draw_attention_on_photograph(pixels, labels, maps, titles, 0, 8, tmp_path / "p.png")
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == titles


def test_segmentation_shows_mean_colours_and_marks_the_largest_area(photograph, tmp_path):
    pixels, labels = photograph
    left, right = draw_segmentation(pixels[:16, :24], labels, tmp_path / "s.png", "two colours").axes
    assert left.get_title().strip() == "two colours"
    assert right.get_title() == "3 areas; the largest, hatched:\n4 of 6 patches"
    means = right.images[0].get_array()
    np.testing.assert_allclose(means[labels == 0], [[0.8, 0, 0]] * 4)
    np.testing.assert_allclose(means[0, 2], [0, 0, 0.6])
    hatched = {patch.get_xy() for patch in right.patches}
    assert hatched == {(0, 0), (1, 0), (0, 1), (1, 1)}
    outline = np.concatenate(right.collections[-1].get_segments())
    assert (outline.min(axis=0).tolist(), outline.max(axis=0).tolist()) == ([0, 0], [2, 2])
    assert description(tmp_path / "s.png").startswith("two colours: the photograph beside its 3 areas")
    with pytest.raises(ValueError, match=r"shape \(19, 27, 3\) is not 2×3 square patches"):
        draw_segmentation(pixels, labels, tmp_path / "s.png", "left over")


def test_grey_and_byte_photographs_are_read_alike(tmp_path):
    labels = np.array([[0, 1]])
    for pixels in (np.full((8, 16), 0.2), np.full((8, 16, 4), 51, dtype=np.uint8)):
        _, right = draw_segmentation(pixels, labels, tmp_path / "s.png", "grey").axes
        np.testing.assert_allclose(right.images[0].get_array(), np.full((1, 2, 3), 0.2))
