"""Diversity in a reproduction: a run's records and verdicts, the table, the figure with and without networks."""

from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from mimlab.cli import application
from mimlab.cli.session import run as type_in
from mimlab.dynamics.config import SimulationConfig
from mimlab.report.diversity import draw_diversity
from mimlab.runs import build
from mimlab.runs.tables import read_table, write_table
from mimlab.studies import diversity
from mimlab.studies.outcomes import Outcome
from mimlab.studies.worlds import Run

SMALL = Run(
    "small",
    "masked, Δ = 0.1, P = 20",
    {"world": {"area_sizes": [12, 4, 4]}, "dynamics": {"engine": "mean-field", "query": "all"}},
)
LOOKS = pa.Table.from_pylist(
    [
        {
            "run": run,
            "seed": seed,
            "step": step,
            "layer": layer,
            "statistic": name,
            "value": 0.1 * layer + 0.2 * seed,
        }
        for run in ("simmim", "supervised", "world")
        for seed in (0, 1)
        for step in (0, 300)
        for layer in (0, 1)
        for name in ("nmi", "diversity")
    ]
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "worlds").mkdir()
    return tmp_path


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setattr(diversity, "RUNS", (SMALL,))
    monkeypatch.setattr(diversity, "HELD_OUT", ())
    (job,) = diversity.jobs()
    return job(home)


def test_a_run_leaves_its_verdicts_on_the_map_and_a_record(made: Outcome, home: Path) -> None:
    assert {v["claim"] for v in made.verdicts} == {"NMI of a converged masked model", "NMI by area sizes"}
    assert all(v["world"] == "small" and v["query"] is None and v["command"] for v in made.verdicts)
    (record,) = made.records
    last = read_table(home / "worlds/small/trajectory.parquet").to_pylist()[-1]
    assert list(record) == diversity.SCHEMA.names
    assert {name: record[name] for name in ("nmi", "diversity", "spread", "mean_entropy")} == {
        name: last[name] for name in ("nmi", "diversity", "spread", "mean_entropy")
    }
    assert record["nmi_start"] == pytest.approx(0, abs=1e-12)
    assert record["nmi_areas_leak"] < record["nmi_bound"] <= record["nmi"]


def test_the_figure_says_both_theory_and_networks(made: Outcome, home: Path) -> None:
    """A value is the mean over seeds at the last step; a network on rendered worlds is not shown."""
    (home / "training").mkdir()
    write_table(home / diversity.NETWORKS, LOOKS)
    outcome = diversity.beside_networks([Outcome("else"), made], home)
    told = Image.open(home / diversity.FIGURE).text["Description"]
    assert "masked, Δ = 0.1, P = 20" in told and ", at least " in told
    assert "network simmim, layers from 0.1 to 0.2" in told and "network supervised" in told
    assert "network world" not in told
    assert read_table(home / diversity.TABLE).to_pylist() == list(made.records)
    (section,) = outcome.sections
    assert section.figures == [diversity.FIGURE] and len(section.rows) == 1


def test_without_networks_theory_stands_alone_and_without_runs_there_is_nothing(
    made: Outcome, home: Path
) -> None:
    figure = draw_diversity(made.records, None, home / "alone.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Δ = 0.1, P = 20"]
    assert "network" not in Image.open(home / "alone.png").text["Description"].partition("networks.")[2]
    assert diversity.beside_networks([Outcome("else")], home) == Outcome(diversity.JOB)


def test_every_run_can_be_built_and_contrastive_ones_start_apart() -> None:
    for run in diversity.RUNS:
        config = build(SimulationConfig, run.config)
        assert config.objective.name == run.label.partition(",")[0]
        assert (config.dynamics.start > 0) == (config.objective.name == "contrastive")
        assert config.dynamics.query == "all" or config.dynamics.start


def test_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A map from the command line; a start that leaves nothing tied but is none is refused, and nothing written."""
    words = ["simulate", "--area-sizes", "12", "4", "4", "--engine", "mean-field", "--query", "all", "--out"]
    assert type_in(application("simulate"), [*words, str(tmp_path / "map")]) == 0
    capsys.readouterr()
    table = read_table(tmp_path / "map/trajectory.parquet")
    assert table["diversity"][-1].as_py() >= table["diversity_bound"][-1].as_py() > 0
    contrastive = ["simulate", "--area-sizes", "12", "4", "4", "--objective", "contrastive", "--start-alike"]
    for more, said in (
        (["nothing"], "start_alike = nothing"),
        (["rows", "--start", "1"], "start_alike = 'rows'"),
    ):
        assert type_in(application("simulate"), [*contrastive, *more, "--out", str(tmp_path / "bad")]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "bad").exists()
