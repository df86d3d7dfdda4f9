"""Studies: one world, a range of sizes, photographs; and the commands that run them again."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imsave

from mimlab import InputError, Latent, MaskedReconstruction, World, simulate
from mimlab.cli import application
from mimlab.cli.session import run as type_in
from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.runs import read_toml
from mimlab.runs.tables import read_json, read_table
from mimlab.studies.commands import command_for
from mimlab.studies.photographs import photographs_in, run_gap
from mimlab.studies.scaling import configs_over, run_scale
from mimlab.studies.single import run_simulation, simulate_config
from mimlab.studies.survey import SURVEY_SCHEMA, survey_photograph, survey_queries

MEAN_FIELD = Dynamics(engine="mean-field")
SMALL = SimulationConfig(World(area_sizes=(12, 4, 4)), dynamics=MEAN_FIELD)
EXPONENTS = {"global_exponent": 0.9, "local_exponent": 0.3}
GRID = (14, 21)  # patches of 16 pixels, the shorter side made 224: of a picture of 224 x 336 pixels


def picture(path: Path, *squares: tuple[slice, slice]) -> Path:
    """A dark picture of 14 x 21 patches of 16 pixels with bright rectangles, given in patches."""
    pixels = np.full((GRID[0] * 16, GRID[1] * 16, 3), 20, dtype=np.uint8)
    for number, (rows, columns) in enumerate(squares):
        box = (slice(rows.start * 16, rows.stop * 16), slice(columns.start * 16, columns.stop * 16))
        pixels[box] = [(250, 250, 250), (250, 30, 30), (30, 250, 30)][number]
    imsave(path, pixels, check_contrast=False)
    return path


@pytest.fixture
def square(tmp_path) -> Path:
    """5 x 4 bright patches in the dark: areas of 274 and 20."""
    return picture(tmp_path / "square.png", (slice(3, 8), slice(6, 10)))


@pytest.fixture
def three(tmp_path) -> Path:
    """Areas of 294 - 63 = 231 patches, then, from top to bottom, of 36, 6 and 21."""
    boxes = [(slice(1, 7), slice(1, 7)), (slice(8, 11), slice(12, 19)), (slice(2, 4), slice(15, 18))]
    return picture(tmp_path / "three.png", *boxes)


def test_simulate_is_simulate_config():
    ours = simulate(World(area_sizes=(12, 4, 4)), engine="mean-field", seed=2)
    theirs = simulate_config(SimulationConfig(World(area_sizes=(12, 4, 4)), dynamics=MEAN_FIELD, seed=2))
    assert ours.config == theirs.config
    assert ours.trajectory.equals(theirs.trajectory)
    assert ours.config.objective == MaskedReconstruction(0.75)


def test_the_seed_matters_where_there_is_sampling():
    def course(seed: int) -> list[float]:
        run = simulate(World(area_sizes=(12, 4, 4)), draws=64, stop_attention=0.3, seed=seed)
        return run.trajectory["loss"].to_pylist()

    assert course(1) == course(1)
    assert course(1) != course(2)


def test_progress_is_told():
    told: list[tuple[float, str]] = []
    simulate_config(SMALL, lambda share, what: told.append((share, what)))
    assert told
    assert all(share <= 1 for share, _ in told)


def test_attention_maps_are_distributions_over_all_patches():
    run = simulate(World(area_sizes=(12, 4, 4)), engine="mean-field", query="all")
    end = run.trajectory["time"].to_pylist()[-1]
    for query in (0, 12):
        first, last = (run.attention_map(query, time) for time in (0.0, end))
        assert first.shape == (20,)
        np.testing.assert_allclose(first, 1 / 20)
        assert last.sum() == pytest.approx(1)
        own = slice(0, 12) if query == 0 else slice(12, 16)
        assert last[own].sum() > 0.9
    with pytest.raises(InputError, match="query 3 was not run; this run has"):
        run.attention_map(3, 0.0)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_simulation(SMALL).summary["status"] == "stopped"
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_has_its_files(tmp_path):
    simulation = run_simulation(SMALL, tmp_path / "a", command="mimlab simulate ...")
    files = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    figures = {f"figures/{kind}_12.png" for kind in ("correlations", "attention", "excess_loss")}
    tables = {"trajectory.parquet", "correlations.parquet"}
    assert files == {"config.toml", "summary.json", "report.html", *tables, *figures}
    assert read_table(tmp_path / "a/trajectory.parquet").equals(simulation.trajectory)
    assert read_json(tmp_path / "a/summary.json")["claims"] == simulation.summary["claims"]
    assert read_toml(tmp_path / "a/config.toml")["world"]["area_sizes"] == [12, 4, 4]
    assert "mimlab simulate ..." in (tmp_path / "a/report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_is_only_replaced_on_demand(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    started: list[object] = []
    monkeypatch.setattr("mimlab.studies.single.simulate_config", lambda *given: started.append(given))
    with pytest.raises(InputError, match="is not empty"):
        run_simulation(SMALL, tmp_path / "full")
    with pytest.raises(InputError, match="not a run"):
        run_simulation(SMALL, tmp_path / "full", overwrite=True)
    assert started == []  # refused before any work
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, InputError])
def test_what_ends_early_leaves_the_last_run_as_it_was(error, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/summary.json").write_text('{"old": true}')

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("mimlab.studies.single.write_simulation", broken)
    with pytest.raises(error):
        run_simulation(SMALL, tmp_path / "a", overwrite=True)
    assert read_json(tmp_path / "a/summary.json") == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_that_fails_says_so_and_keeps_what_it_has(tmp_path):
    """A first step beyond what a float can hold: the run ends there, its files are whole."""
    world = World(area_sizes=(12, 4, 4), latent=Latent(low=1e3, high=1e3))
    config = SimulationConfig(
        world, dynamics=Dynamics("mean-field", "descent", 1e299, 10, stop_attention=1.0)
    )
    summary = run_simulation(config, tmp_path / "a").summary
    assert summary["status"].split(":")[0] in ("diverged", "failed")
    assert read_json(tmp_path / "a/summary.json")["status"] == summary["status"]
    assert read_table(tmp_path / "a/trajectory.parquet")["time"][0].as_py() == 0.0


def test_a_photograph_is_queried_where_it_is_pointed_at(square, tmp_path):
    """Pixel (130, 70) lies in column 8 and row 4 of the grid, inside the bright square."""
    config = SimulationConfig(World(image=str(square)), dynamics=MEAN_FIELD)
    simulation = run_simulation(config, tmp_path / "run", query_at=(130.0, 70.9))
    query = 4 * GRID[1] + 8
    (facts,) = simulation.summary["queries"]
    assert (facts["query"], facts["area"], facts["area_size"]) == (query, 1, 20)
    assert read_toml(tmp_path / "run/config.toml")["dynamics"]["query"] == query
    assert {"photograph.png", "segmentation.png"} <= {p.name for p in (tmp_path / "run/figures").iterdir()}
    bright = np.zeros(GRID, dtype=bool)
    bright[3:8, 6:10] = True
    last = simulation.attention_map(query, simulation.rows[0].path.times[-1])
    assert last.sum() == pytest.approx(1)
    assert last[bright.ravel()].sum() > 0.9


def test_only_photographs_can_be_pointed_at(square):
    with pytest.raises(InputError, match="the world has no image"):
        run_simulation(SMALL, query_at=(1, 1))
    with pytest.raises(InputError, match="not a pixel"):
        run_simulation(SimulationConfig(World(image=str(square))), query_at=(400, 10))


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SimulationConfig(
            World(10_000, 0.9, 0.3, clusters=2, partitions="nested", latent=Latent(low=0.5, high=1.5)),
            MaskedReconstruction(0.6),
            Dynamics("sampled", "descent", 0.125, 1000, 128, 17, 1.0),
            5,
        ),
        SimulationConfig(World(area_sizes=(4, 2), latent=Latent(values=(0.2, 0.2, 1.8)))),
        SimulationConfig(World(area_sizes=(6, 3, 3), clusters=2, partitions=((6, 3, 3), (8, 4)))),
        SimulationConfig(World(10_000, 0.9, 0.3, latent=Latent(low=0.0, high=0.1 + 0.2))),
        SimulationConfig(World(image="a folder/it's ü.png", patch_size=8), dynamics=Dynamics(query="all")),
    ],
)
def test_the_printed_command_runs_the_same_configuration(config, monkeypatch):
    class Seen(Exception):
        pass

    def caught(config: SimulationConfig, *_: object, **__: object) -> None:
        raise Seen(config)

    monkeypatch.setattr("mimlab.cli.simulate.run_simulation", caught)
    name, *tokens = shlex.split(command_for(config, "runs/again"))
    assert name == "mimlab"
    assert tokens[-2:] == ["--out", "runs/again"]
    with pytest.raises(Seen) as seen:
        type_in(application(*tokens[:1]), tokens)
    assert seen.value.args == (config,)


def test_scale_fits_exponents_over_a_range(tmp_path):
    summary = run_scale({"world": EXPONENTS}, tmp_path / "s", low=1e5, high=1e11, points=4)
    (half,) = summary["exponents"]  # stops at half attention, so there is no final stage
    assert half["quantity"] == "half_time"
    assert half["low"] < half["slope"] < half["high"]
    assert half["slope"] == pytest.approx(0.7, abs=0.02)
    assert half["bound"] == half["predicted"] == pytest.approx(0.7)
    points = read_table(tmp_path / "s/points.parquet").to_pylist()
    assert [point["patches"] for point in points] == [10**5, 10**7, 10**9, 10**11]
    assert all(point["status"] == "stopped" and point["final_stage"] is None for point in points)
    slope, _ = np.polyfit(*np.log([[p["patches"], p["half_time"]] for p in points]).T, 1)
    assert half["slope"] == pytest.approx(slope)
    mapping = read_toml(tmp_path / "s/config.toml")
    assert "patches" not in mapping["world"]
    assert (mapping["dynamics"]["engine"], mapping["dynamics"]["stop_attention"]) == ("mean-field", 0.5)
    assert run_scale(mapping, None, low=1e5, high=1e11, points=4)["points"] == summary["points"]


def test_scale_to_the_end_has_a_final_stage():
    mapping = {"world": EXPONENTS, "dynamics": {"stop_attention": 0.9, "query": "global"}}
    summary = run_scale(mapping, None, low=1e5, high=1e9, points=3)
    half, final = summary["exponents"]
    assert (half["quantity"], final["quantity"]) == ("half_time", "final_stage")
    assert half["predicted"] == pytest.approx(0.1)
    assert (final["predicted"], final["bound"]) == (0.0, None)
    assert {claim["claim"] for claim in summary["claims"]} == {
        "exponent of global half time",
        "exponent of the final stage",
    }


@pytest.mark.parametrize(
    ("mapping", "settings", "words"),
    [
        ({"world": EXPONENTS}, {"low": 1e6, "high": 1e4}, "no range"),
        ({"world": EXPONENTS}, {"low": 1, "high": 1e4}, "no range"),
        ({"world": EXPONENTS}, {"points": 2}, "too few"),
        ({"world": EXPONENTS}, {"low": 10, "high": 12, "points": 9}, "do not fit"),
        ({"world": {"area_sizes": [8, 4]}}, {}, "has one size"),
        ({"world": {"image": "a.png"}}, {}, "has one size"),
        ({"world": EXPONENTS, "dynamics": {"query": 5}}, {}, "must be local or global"),
        ({"world": EXPONENTS, "dynamics": {"query": "all"}}, {}, "must be local or global"),
        ({"world": EXPONENTS | {"global_exponent": 1.0}}, {}, "too few for one local"),
    ],
)
def test_scale_refuses_what_has_no_range(mapping, settings, words, tmp_path):
    with pytest.raises(InputError, match=words):
        run_scale(mapping, tmp_path / "s", **({"low": 1e4, "high": 1e6, "points": 3} | settings))
    assert list(tmp_path.iterdir()) == []


def test_scale_keeps_what_the_configuration_says():
    mapping: dict[str, Any] = {"world": EXPONENTS, "dynamics": {"engine": "sampled", "draws": 64}, "seed": 4}
    configs = configs_over(mapping, 1e3, 1e5, 3)
    assert [c.world.patches for c in configs] == [1000, 10_000, 100_000]
    assert {(c.dynamics.engine, c.dynamics.draws, c.dynamics.stop_attention, c.seed) for c in configs} == {
        ("sampled", 64, 0.5, 4)
    }


def gap_of(large: int, own: int, patches: int = GRID[0] * GRID[1]) -> float:
    return float(np.log(large**2 / (patches * own)) / np.log(patches))


def test_the_gap_of_pictures_with_known_areas(square, three, tmp_path):
    summary = run_gap([square, three], tmp_path / "gap")
    one, other = summary["photographs"]
    assert (one["name"], one["patches"], one["areas"], one["global_size"]) == ("square.png", 294, 2, 274)
    assert one["patch_gaps"] == [[pytest.approx(gap_of(274, 20)), 20]]
    assert one["information_gap"] == one["mean_patch_gap"] == pytest.approx(gap_of(274, 20))
    assert other["patch_gaps"] == [[pytest.approx(gap_of(231, size)), size] for size in (36, 21, 6)]
    assert other["information_gap"] == pytest.approx(gap_of(231, 21))  # the mean local area is 63/3 = 21
    assert (
        other["prediction"] == "two phases for 100% of local patches by the sign of Δ_p, for 100% at this P"
    )
    rows = read_table(tmp_path / "gap/gap.parquet").to_pylist()
    assert [(row["image"], row["area_size"]) for row in rows] == [
        ("square.png", 20),
        *(("three.png", size) for size in (36, 6, 21)),
    ]
    for row in rows:
        large = 274 if row["image"] == "square.png" else 231
        formula = -0.5 * np.log(1 + 0.5 * large**2 / (294 * row["area_size"]))
        assert row["patch_gap"] == pytest.approx(gap_of(large, row["area_size"]))
        assert row["predicted_phi_global_at_half"] == pytest.approx(formula)
        assert row["predicted_half_time"] == pytest.approx(294 / (0.75 * 0.25 * row["area_size"]))
    assert (tmp_path / "gap/figures/gap.png").stat().st_size > 0
    assert read_json(tmp_path / "gap/summary.json") == summary


def test_the_gap_of_a_folder_is_that_of_its_patches(square, three, tmp_path):
    (tmp_path / "notes.txt").write_text("no photograph")
    summary = run_gap([tmp_path])
    assert [report["name"] for report in summary["photographs"]] == ["square.png", "three.png"]
    total = 20 * gap_of(274, 20) + sum(size * gap_of(231, size) for size in (36, 21, 6))
    assert summary["folder"] == {
        "photographs": 2,
        "local_patches": 83,
        "mean_patch_gap": pytest.approx(total / 83),
        "two_phase_share": 1.0,
    }


def test_a_broken_file_in_a_folder_is_skipped_and_said(square, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    summary = run_gap([tmp_path])
    assert [report["name"] for report in summary["photographs"]] == ["square.png"]
    (warning,) = summary["warnings"]
    assert warning.startswith("skipped: ") and "broken.png" in warning
    square.unlink()
    with pytest.raises(InputError, match="none of the photographs"):
        run_gap([tmp_path])


def test_a_picture_without_areas_has_no_gap(tmp_path):
    plain = picture(tmp_path / "plain.png")
    (report,) = run_gap([plain])["photographs"]
    assert (report["areas"], report["information_gap"], report["prediction"]) == (1, None, "no local area")


def test_a_broken_file_is_refused_by_name(square, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match=r"broken\.png"):
        run_gap([square, tmp_path / "broken.png"], tmp_path / "gap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photograph"):
        photographs_in([tmp_path / "empty"])
    with pytest.raises(InputError, match="none"):
        run_gap([tmp_path / "none.png"], tmp_path / "gap")
    assert not list(tmp_path.glob("gap*"))


def test_surveys_ask_the_largest_the_median_and_the_smallest_area(three, square):
    """First patches of the areas of 36, 6 and 21 patches, which are numbered from top to bottom."""
    first = [1 * GRID[1] + 1, 2 * GRID[1] + 15, 8 * GRID[1] + 12]
    assert survey_queries(World(image=str(three))) == first
    assert survey_queries(World(image=str(square))) == [3 * GRID[1] + 6]
    assert survey_queries(World(area_sizes=(9, 1, 1))) == []  # nobody to attend to
    assert survey_queries(World(area_sizes=(20, 3, 1, 9, 5))) == [20, 24, 33]


def test_a_survey_records_what_its_claims_need(square):
    (record,) = survey_photograph(square)
    assert set(record) == set(SURVEY_SCHEMA.names)
    assert (record["image"], record["patches"], record["area_size"]) == ("square.png", 294, 20)
    assert record["patch_gap"] == pytest.approx(gap_of(274, 20))
    assert record["first_rates"] > 1  # (1-γ) P^Δ_p = 3.2
    assert record["attention_own"] == pytest.approx(0.99, abs=1e-6)
    assert record["phi_global_at_half"] < -0.5
