"""Figures and page of a sweep: drawn of any table, described in words that say what the table says."""

import math

import numpy as np
import pytest
from PIL import Image

from mimlab.report.sweep_page import write_sweep_page
from mimlab.report.sweeps import draw_curves, draw_plane, draw_verdict_planes, draw_verdicts
from mimlab.runs.axes import Axis
from mimlab.studies.sweep import _summary, rows_of
from mimlab.studies.sweep_plan import Plan
from mimlab.studies.sweep_points import failed, table_of

BASE = {"world": {"patches": 1000, "global_exponent": 0.9, "local_exponent": 0.3}}


def made(*axes: Axis, result, **more):
    """A plan and its rows, each with what `result` gives for the point's values."""
    plan = Plan(BASE, axes, **more)
    found = {point.hash: {"hash": point.hash, **result(point.values)} for point in plan.points}
    return plan, rows_of(plan, table_of(list(found.values())))


def result(values):
    x = values.get("world.local_exponent", 0.3)
    return {
        "status": "stopped",
        "half_time": 1000 * math.exp(-x),
        "phi_own": x,
        "claim:two phases:verdict": "fails" if x > 0.45 else "holds",
        "claim:two phases:value": x,
    }


def description(path) -> str:
    with Image.open(path) as picture:
        return picture.info["Description"]


KAPPA, RATIO = Axis("world.local_exponent", (0.2, 0.4, 0.5)), Axis("objective.mask_ratio", (0.25, 0.5))


def test_figures_say_what_the_table_says(tmp_path):
    _, rows = made(KAPPA, RATIO, result=result)
    draw_curves(rows, KAPPA.key, tmp_path / "curves.png")
    said = description(tmp_path / "curves.png")
    assert "half-attention time: 818.7 first, 606.5 last." in said
    assert "final Φ global: no value." in said
    draw_verdicts(rows, KAPPA.key, ["two phases"], tmp_path / "verdicts.png")
    assert "two phases: holds 0.2 to 0.4, fails 0.5." in description(tmp_path / "verdicts.png")
    draw_plane(rows, KAPPA.key, RATIO.key, tmp_path / "plane.png")
    assert "final Φ own: 0.2 to 0.5." in description(tmp_path / "plane.png")
    draw_verdict_planes(rows, KAPPA.key, RATIO.key, ["two phases"], tmp_path / "planes.png")
    assert "two phases: 4 holds, 2 fails." in description(tmp_path / "planes.png")


def test_cells_of_a_plane_are_medians_in_their_place(tmp_path):
    seeds = Axis("seed", (0, 1, 2))
    _, rows = made(
        KAPPA,
        RATIO,
        seeds,
        result=lambda v: {
            "status": "stopped",
            "phi_own": v[KAPPA.key] + 10 * v[RATIO.key] + (100.0 if v["seed"] == 2 else 0.0),
        },
    )
    figure = draw_plane(rows, KAPPA.key, RATIO.key, tmp_path / "plane.png")
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == "final Φ own")
    expected = [[x + 10 * y for x in KAPPA.values] for y in RATIO.values]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)


@pytest.mark.parametrize(
    ("axes", "more", "files"),
    [
        ((KAPPA,), {}, ["curves_0.png", "verdicts_0.png"]),
        ((Axis("seed", (1, 2)),), {}, ["curves_0.png", "verdicts_0.png"]),
        ((KAPPA, RATIO), {}, ["plane.png", "verdicts.png"]),
        ((KAPPA, Axis("dynamics.query", ("local", "global")), RATIO), {}, ["plane.png", "verdicts.png"]),
        (
            (Axis("world.local_exponent", (0.1, 0.4), "linear"), Axis("world.patches", (1000, 10**6), "log")),
            {"design": "random", "number": 12},
            ["plane.png", "verdicts.png"],
        ),
        (
            (KAPPA, Axis("world.latent.values", ((1.0,), (0.2, 1.8))), Axis("seed", (1, 2))),
            {"design": "one-at-a-time"},
            ["curves_0.png", "curves_1.png", "verdicts_0.png", "verdicts_1.png"],
        ),
    ],
)
def test_every_design_has_its_page(axes, more, files, tmp_path):
    plan, rows = made(*axes, result=result, **more)
    summary = _summary(plan, rows) | {"command": "mimlab sweep", "versions": {}, "seconds": 1.0}
    write_sweep_page(tmp_path, rows, summary)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == files
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure") == len(files)
    assert ("Survival" in page) == (more.get("design") == "one-at-a-time")
    assert "taken together" in page if len(axes) == 3 and not more else True


def test_a_sweep_of_which_nothing_ran_has_a_page(tmp_path):
    for axes in ((KAPPA,), (KAPPA, RATIO)):
        plan = Plan(BASE, axes)
        rows = rows_of(plan, table_of([failed(point.hash, "failed", "<why>") for point in plan.points]))
        summary = _summary(plan, rows) | {"command": "mimlab sweep", "versions": {}, "seconds": 1.0}
        assert summary["status"].startswith("failed: not one of")
        write_sweep_page(tmp_path, rows, summary)
        assert "&lt;why&gt;" in (tmp_path / "report.html").read_text()
