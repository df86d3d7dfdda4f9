"""`mimlab scale --over`: a series at every point of crossed axes, as typed, and its figure."""

import json
from math import log

import numpy as np
import pyarrow as pa
import pytest

from mimlab import InputError
from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.report import draw_rates
from mimlab.runs.axes import Axis
from mimlab.runs.tables import read_json, read_table
from mimlab.studies.rates import EXPONENTS_SCHEMA, RUNS_SCHEMA, crossed, laid_over, run_rates
from mimlab.studies.scaling import run_scale

RANGE = ["--patches", "1e4", "1e8", "--points", "3"]
LOCAL = {"global_exponent": 0.9, "local_exponent": 0.3}


def mimlab(*tokens: object) -> int:
    typed = [str(token) for token in tokens]
    return run(application(*typed[:1]), typed)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("over") / "run"
    laws = 'world.latent={"low":1,"high":1},{"values":[0.5,1.5]}'
    typed = ["--global-exponent", "0.9", "--over", "world.local_exponent=0.2,0.3", "--over", laws]
    assert mimlab("scale", *RANGE, *typed, "--out", out) == 0
    return out


def test_every_point_of_the_axes_is_a_series(written):
    table = read_table(written / "exponents.parquet")
    assert table.schema.equals(EXPONENTS_SCHEMA)
    assert [(r["local_exponent"], r["latent"]) for r in table.to_pylist()] == [
        *[(0.2, "1"), (0.2, "0.5, 1.5")],
        *[(0.3, "1"), (0.3, "0.5, 1.5")],
    ]
    runs = read_table(written / "points.parquet")
    assert runs.schema.equals(RUNS_SCHEMA) and runs.num_rows == 12
    assert read_json(written / "axes.json")["world.local_exponent"] == ["0.2", "0.3"]
    assert "figures/rates.png" not in (written / "report.html").read_text()  # it is inside the page
    assert (written / "figures/rates.png").stat().st_size > 0


def test_a_series_is_what_scale_alone_gives(written):
    alone = run_scale({"world": LOCAL}, None, low=1e4, high=1e8, points=3)
    record = read_table(written / "exponents.parquet").to_pylist()[2]
    fit = alone["exponents"][0]
    assert (record["slope"], record["slope_low"], record["bound"]) == (fit["slope"], fit["low"], fit["bound"])
    points = alone["points"]
    x, y = zip(*((log(p["patches"]), log(p["reduced_half_time"])) for p in points), strict=True)
    assert record["reduced_slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
    x = [1 / log(p["patches"]) for p in points]
    y = [
        log(p["half_time"] * 0.1875 * p["area_size"] / p["patches"]) for p in points
    ]  # I = 1, γ(1-γ) = 0.1875
    d, c = np.polyfit(x, y, 1)
    assert (record["constant"], record["correction"]) == pytest.approx((np.exp(c), d))
    x = [log(p["patches"] / p["area_size"]) for p in points]
    assert record["area_slope"] == pytest.approx(np.polyfit(x, [log(p["half_time"]) for p in points], 1)[0])


def test_verdicts_name_their_series_and_many_worlds_are_judged_once(written):
    claims = read_json(written / "summary.json")["claims"]
    tight = {c["world"]: c["verdict"] for c in claims if c["claim"] == "tightness of the paper's bound"}
    assert sorted(tight.values()) == ["fails", "fails", "holds", "holds"]
    assert [c["world"] for c in claims if c["claim"] == "finite-size boundary over worlds"] == ["all runs"]


def test_both_engines_and_a_global_query(tmp_path, capsys):
    over = ["--over", "dynamics.engine=mean-field,sampled", "--over", "dynamics.query=local,global"]
    small = ["--patches", "200", "800", "--points", "3", "--draws", "64", "--global-exponent", "0.8"]
    assert mimlab("scale", *small, "--local-exponent", "0.3", *over, "--out", tmp_path / "r", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [s["engine"] for s in printed["series"]] == ["mean-field", "mean-field", "sampled", "sampled"]
    assert [s["predicted"] for s in printed["series"]] == pytest.approx([0.7, 0.2] * 2)
    assert [s["bound"] is None and s["constant"] is None for s in printed["series"]] == [False, True] * 2
    assert all(p["first_rates"] is None for p in printed["points"] if p["series"].endswith("global"))


def test_another_objective_is_not_held_to_the_masked_ones_times():
    mapping = {
        "world": {**LOCAL, "clusters": 4},
        "objective": {"name": "contrastive"},
        "dynamics": {"draws": 64},
    }
    axes = [Axis("dynamics.engine", ("sampled",))]
    summary = run_rates(mapping, None, axes, low=100, high=200, points=3)
    (record,) = summary["series"]
    assert record["points"] == 3 and record["bound"] is record["constant"] is None
    assert record["predicted"] == pytest.approx(3 - 2 * LOCAL["global_exponent"])
    assert {claim["claim"] for claim in summary["claims"]} == {"exponent of contrastive half time"}


def test_the_terminal_has_a_row_per_series(capsys, tmp_path):
    over = ["--over", "world.local_exponent=0.2,0.3", "--global-exponent", "0.9"]
    assert mimlab("scale", *RANGE, *over, "--out", tmp_path / "a") == 0
    shown = capsys.readouterr().out
    assert "κs" in shown and "equation" in shown and "tightness of the paper's bound" in shown
    more = ["--over", "seed=0,1", "--global-exponent", "0.9", "--local-exponent", "0.3"]
    assert mimlab("scale", *RANGE, *more, "--out", tmp_path / "b") == 0
    assert "seed = 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (["world.local_exponents=0.1,0.2"], "the nearest is world.local_exponent"),
        (["world.local_exponent"], "is no axis"),
        (["world.patches=100,200"], "give --patches LOW HIGH"),
        (["world.local_exponent=0.3,1"], "local_exponent = 1.0: world:"),
        (["world.local_exponent=0.2", "world.local_exponent=0.3"], "crossed twice"),
        (["objective.mask_ratio=0.5,1.5"], "mask_ratio = 1.5"),
        (["dynamics.draws=64:20000:15000", "seed=0,1"], "30000 points, at most 10000"),
    ],
)
def test_bad_axes_are_refused_before_anything_is_written(over, words, tmp_path, capsys):
    world = ["--global-exponent", "0.9", *(["--local-exponent", "0.3"] if "local_exp" not in over[0] else [])]
    flags = [word for one in over for word in ("--over", one)]
    assert mimlab("scale", *RANGE, *world, *flags, "--out", tmp_path / "run") == 2
    said = capsys.readouterr()
    assert words in " ".join(said.err.split()) and not said.out
    assert not any(tmp_path.iterdir())


def test_a_law_given_anew_replaces_the_one_below():
    below = {"world": {"latent": {"low": 1.0, "high": 1.0}, "clusters": 2}}
    assert laid_over(below, ["world", "latent"], {"values": [1]})["world"] == {
        "latent": {"values": [1]},
        "clusters": 2,
    }
    assert laid_over(below, ["world", "latent", "values"], [1])["world"]["latent"] == {"values": [1]}
    assert laid_over(below, ["world", "latent", "high"], 2.0)["world"]["latent"] == {"low": 1.0, "high": 2.0}
    assert below["world"]["latent"] == {"low": 1.0, "high": 1.0}
    with pytest.raises(InputError, match=r"values = \[0\]"):
        list(crossed({"world": LOCAL}, [Axis("world.latent.values", ((0,),))], 1e3, 1e5, 3))


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = run_rates({"world": LOCAL}, None, [Axis("seed", (0,))], low=1e4, high=1e6, points=3)
    assert summary["status"] == "stopped" and not any(tmp_path.iterdir())


SERIES = {
    "engine": "sampled",
    "slope": 0.7,
    "slope_low": 0.6,
    "slope_high": 0.8,
    "predicted": 0.7,
    "bound": 2.8,
}
RUN = {"patches": 10_000, "mask_ratio": 0.75, "patch_gap": 0.5, "first_rates": 20.0}


def test_the_figure_shows_exponents_bound_and_boundary(tmp_path):
    few = {**RUN, "patch_gap": -0.2, "first_rates": 0.05}
    left, right = draw_rates([SERIES, SERIES | {"bound": None}], [RUN, few], tmp_path / "f.png").axes
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines["the paper's bound"].get_ydata()) == [2.8]
    dots = {line.get_label(): line for line in right.lines}
    np.testing.assert_allclose(dots[r"$\Delta_p > 0$"].get_xdata(), [25.0])
    np.testing.assert_allclose(dots[r"$\Delta_p \leq 0$"].get_ydata(), [0.05])


def test_the_figure_says_where_there_is_nothing(tmp_path):
    axes = draw_rates([dict.fromkeys(SERIES)], [RUN | {"first_rates": None}], tmp_path / "f.png").axes
    assert [a.texts[0].get_text() for a in axes] == ["no exponent", "no local query"]


def test_without_series_there_is_one_panel(tmp_path):
    (axes,) = draw_rates([], [RUN], tmp_path / "f.png").axes
    assert axes.get_xlabel() == r"$(1-\gamma)P^{\Delta_p}$"


def test_points_are_as_their_schema():
    summary = run_scale({"world": LOCAL}, None, low=1e4, high=1e6, points=3)
    rows = [{"series": "", "mask_ratio": 0.75, **point} for point in summary["points"]]
    assert set(rows[0]) == set(RUNS_SCHEMA.names)
    assert pa.Table.from_pylist(rows, schema=RUNS_SCHEMA)["reduced_half_time"].null_count == 0
