"""Pretraining over seeds: the runs that are planned, making each once, whatever interrupts it, and their tables."""

import shlex
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest
import torch
import transformers

from mimlab import statistics
from mimlab.cli import application
from mimlab.cli.session import run as type_in
from mimlab.probing.layout import Layout
from mimlab.runs import InputError, to_mapping
from mimlab.runs.tables import read_json, read_table, write_json
from mimlab.studies import trained
from mimlab.studies.pretrain import run_pretrain
from mimlab.studies.pretrain_looks import Looks, labelled_crops
from mimlab.studies.training_runs import FP, PHOTOGRAPHS, PP, RUNS, WORLDS, TrainingRun, run_folder
from mimlab.training import loop
from mimlab.training.crops import Crops
from mimlab.training.evaluation import which_photograph
from mimlab.training.photographs import HELD_OUT
from mimlab.training.views import standardise

TINY = {
    "network": {"image_size": 16, "width": 24, "depth": 2, "heads": 2},
    "data": {"batch_size": 4},
    "training": {"steps": 3},
    "watching": {"crops": 4, "checkpoints": 3, "interval": 2},
}
SIMMIM = TrainingRun("simmim", "masked", {"objective": {"name": "simmim"}, **TINY})
AFTER = TrainingRun("after", "started", {"objective": {"name": "supervised"}, **TINY}, start="simmim")


@pytest.mark.parametrize("seed", [0, 2])
def test_commands_make_the_runs_they_stand_for(seed, monkeypatch):
    caught = []
    monkeypatch.setattr("mimlab.cli.pretrain.run_pretrain", lambda *given, **_: caught.append(given) or given)
    app = application("pretrain")
    for run in RUNS:
        name, *tokens = shlex.split(trained.command_of(run, seed))
        with pytest.raises(AttributeError, match="log"):  # what was caught is no run
            type_in(app, tokens)
        config, out = caught.pop()
        assert name == "mimlab" and out == Path("runs", run_folder(run.name, seed))
        assert config == run.config(seed, Path("runs")), run.name
        assert config.seed == seed


def test_a_run_starts_from_one_that_is_made_before_it():
    for full in (False, True):
        made: list[str] = []
        for run in trained.chosen(full):
            assert run.start is None or run.start in made
            made.append(run.name)
        assert len(set(made)) == len(made)
    assert made == [run.name for run in RUNS]
    started = [run for run in RUNS if run.start is not None]
    assert started
    for run in started:
        assert run.config(2, Path("home")).objective.start == Path("home", f"{run.start}-seed-2")


def flat(mapping, path=""):
    return {
        key: value
        for name, one in mapping.items()
        for key, value in (
            flat(one, f"{path}{name}.") if isinstance(one, dict) else {path + name: one}
        ).items()
    }


def test_a_world_departs_from_the_theory_in_what_its_name_says():
    """One key each, but for gradient descent, which needs a rate of its own."""
    first, *others = (flat(to_mapping(run.config(0, Path()))) for run in WORLDS)
    found = {
        run.name: {key for key in one.keys() | first.keys() if one.get(key) != first.get(key)}
        for run, one in zip(WORLDS[1:], others, strict=True)
    }
    vit = {"network.positions", "network.content_in_query", "network.depth", "network.heads"}
    assert found == {
        "world-sgd": {"training.optimizer", "training.blr"},
        "world-sincos": {"network.positions"},
        "world-learned": {"network.positions"},
        "world-content": {"network.content_in_query"},
        "world-depth": {"network.depth"},
        "world-shifted": {"data.areas"},
        "world-vit": vit,
        "world-vit-shifted": vit | {"data.areas"},
    }
    assert {run.expected for run in (PHOTOGRAPHS[0], *WORLDS)} == {FP, PP}


@pytest.fixture(scope="module")
def quick():
    """No pictures of each run: those have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Looks, "draw", lambda *given: None)
        patch.setattr(loop, "SAVE_SECONDS", 0.0)
        patch.setattr(trained, "median_gap", lambda path: float(len(path)))
        yield patch


@pytest.fixture(scope="module")
def made(quick, tmp_path_factory):
    """Two runs of two seeds, the second from the first; and the progress told."""
    folder, told = tmp_path_factory.mktemp("made"), []
    trained.train([SIMMIM, AFTER], folder, (0, 1), lambda *given: told.append(given))
    return folder, told


def test_every_run_is_made_with_its_seed_and_its_start(made):
    folder, told = made
    assert {path.name for path in folder.iterdir()} == {
        *("simmim-seed-0", "after-seed-0", "simmim-seed-1", "after-seed-1")
    }
    for seed in (0, 1):
        summary = read_json(folder / f"after-seed-{seed}" / "summary.json")
        assert (summary["seed"], summary["start"]) == (seed, str(folder / f"simmim-seed-{seed}"))
        assert summary["command"] == trained.command_of(AFTER, seed)
        started, ended = (
            (folder / name / f"checkpoints/step-{step:06d}/model.safetensors").read_bytes()
            for name, step in ((f"after-seed-{seed}", 0), (f"simmim-seed-{seed}", 3))
        )
        assert started == ended
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert told[0][1].startswith("training simmim-seed-0, step 1 of 3")


def test_what_is_done_is_not_made_again(made, monkeypatch):
    monkeypatch.setattr(
        "mimlab.studies.pretrain.run_pretrain", lambda *given, **more: pytest.fail("made again")
    )
    trained.train([SIMMIM, AFTER], made[0], (0, 1))


def test_interrupted_training_goes_on_to_the_same_weights(made, quick, tmp_path, monkeypatch):
    def interrupt(fraction, text):
        if text.startswith("training after-seed-0, step 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.train([SIMMIM, AFTER], tmp_path, (0,), interrupt)
    assert {path.name for path in tmp_path.iterdir()} == {"simmim-seed-0", "after-seed-0.partial"}
    homes, begun = [], []

    def counted(config, home, **more):
        homes.append(home.name)
        return run_pretrain(config, home, **more)

    monkeypatch.setattr("mimlab.studies.pretrain.run_pretrain", counted)
    trained.train([SIMMIM, AFTER], tmp_path, (0,), lambda _, text: begun.append(text))
    assert homes == ["after-seed-0"]
    assert begun[0].startswith("training after-seed-0, step 2 of 3")  # not from the beginning
    whole = made[0]
    for name in ("simmim-seed-0", "after-seed-0"):
        weights = [home / name / "checkpoints/step-000003/model.safetensors" for home in (tmp_path, whole)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert read_table(tmp_path / name / "statistics.parquet").equals(
            read_table(whole / name / "statistics.parquet")
        )


def test_a_run_of_another_configuration_is_refused(made):
    other = TrainingRun("after", "started", {**AFTER.settings, "training": {"steps": 4}}, start="simmim")
    with pytest.raises(
        InputError, match=r"after-seed-0 holds a run of another configuration[\s\S]*training.steps"
    ):
        trained.train([other], made[0], (0,))


@pytest.fixture(scope="module")
def collected(made):
    return trained.collect([SIMMIM, AFTER], made[0], (0, 1))


def test_a_run_that_failed_is_left_out(made, tmp_path, quick):
    for home in made[0].iterdir():
        shutil.copytree(home, tmp_path / home.name)
    path = tmp_path / "after-seed-1" / "summary.json"
    write_json(path, read_json(path) | {"status": "failed: loss is nan from step 2 on"})
    tables = trained.collect([SIMMIM, AFTER], tmp_path, (0, 1))
    for name in ("looks", "evaluations", "shares"):
        pairs = set(zip(*(tables[name][key].to_pylist() for key in ("run", "seed")), strict=True))
        assert pairs == {("simmim", 0), ("simmim", 1), ("after", 0)}


def test_tables_have_their_columns_in_the_order_of_runs(collected):
    assert {name: table.schema for name, table in collected.items()} == trained.SCHEMAS
    for name in ("looks", "shares", "evaluations"):
        told = list(
            dict.fromkeys(zip(*(collected[name][key].to_pylist() for key in ("run", "seed")), strict=True))
        )
        assert told == [("simmim", 0), ("simmim", 1), ("after", 0), ("after", 1)]
    assert set(collected["photographs"]["run"].to_pylist()) == {"simmim"}


@pytest.mark.parametrize(
    ("table", "file", "kind", "value"),
    [("looks", "statistics", "statistic", "value"), ("shares", "shares", "component", "share")],
)
def test_tables_hold_means_over_heads(table, file, kind, value, collected, made):
    found = {
        tuple(row[key] for key in ("run", "seed", "step", "layer", kind)): row[value]
        for row in collected[table].to_pylist()
    }
    assert len(found) == len(collected[table])
    heads = defaultdict(list)
    for run in ("simmim", "after"):
        for seed in (0, 1):
            for row in read_table(made[0] / f"{run}-seed-{seed}" / f"{file}.parquet").to_pylist():
                if table == "shares" or row[kind] in trained.STATISTICS:
                    heads[run, seed, row["step"], row["layer"], row[kind]].append(row[value])
    assert set(map(len, heads.values())) == {2}
    assert found == pytest.approx(
        {key: fmean(values) for key, values in heads.items()}, rel=1e-12, nan_ok=True
    )


FEATURES = ("knn", "linear", "chance")


def test_features_are_asked_for_held_out_photographs_at_every_evaluation(collected, made):
    rows = [row for row in collected["evaluations"].to_pylist() if (row["run"], row["seed"]) == ("simmim", 1)]
    config = SIMMIM.config(1, Path())
    crops = labelled_crops(config.network.image_size, config.data.crop, trained.PROBED)
    assert [len(one.pixels) for one in crops] == [len(HELD_OUT) * trained.PROBED] * 2
    for row in rows:
        model = transformers.AutoModel.from_pretrained(
            made[0] / f"simmim-seed-1/checkpoints/step-{row['step']:06d}"
        )
        expected = which_photograph(model.eval(), *crops)
        assert {name: row[name] for name in FEATURES} == pytest.approx(expected) and row["chance"] == 1 / 3


def test_reconstructions_are_those_of_the_summaries(collected, made):
    rows = iter(collected["evaluations"].to_pylist())
    for run in ("simmim", "after"):
        for seed in (0, 1):
            for record in read_json(made[0] / f"{run}-seed-{seed}" / "summary.json")["evaluation"]:
                row = next(rows)
                told = {key: value for key, value in row.items() if value is not None and key not in FEATURES}
                kept = {key: record[key] for key in record if key in row and key not in FEATURES}
                assert told == {"run": run, "seed": seed} | kept
                assert (row["model"] is None) == (run == "after")
    assert next(rows, None) is None


def test_reach_on_a_photograph_is_that_of_the_last_encoder(collected, made):
    """Against transformers' own attention and the distance of an explicit map."""
    model = transformers.AutoModel.from_pretrained(
        made[0] / "simmim-seed-1/checkpoints/step-000003", attn_implementation="eager"
    ).eval()
    photograph, layout = HELD_OUT[1], Layout((4, 4), prefix=1, patch_size=(4, 4))
    windows = SIMMIM.config(1, Path()).data.crop
    pixels = standardise(Crops([photograph.path], 16, windows, trained.CROPS, 0, "locality").batch(0).pixels)
    with torch.inference_mode():
        attentions = model(pixels, output_attentions=True).attentions
    maps = torch.stack(attentions)[..., 1:, 1:].double().numpy()
    reach = statistics.distance(maps / maps.sum(-1, keepdims=True), layout.positions())
    expected = reach.mean() / layout.uniform_distance()
    (row,) = [
        one
        for one in collected["photographs"].to_pylist()
        if (one["photograph"], one["seed"]) == (photograph.name, 1)
    ]
    assert row["distance_ratio"] == pytest.approx(expected, rel=1e-5)
    assert row["gap"] == len(str(photograph.path))


def test_a_run_that_failed_is_named(tmp_path):
    for seed, status in enumerate(("finished", "failed: loss is nan from step 2 on")):
        (tmp_path / f"simmim-seed-{seed}").mkdir()
        write_json(tmp_path / f"simmim-seed-{seed}" / "summary.json", {"status": status})
    assert trained.statuses([SIMMIM], tmp_path, (0, 1)) == [
        "finished",
        "failed: simmim-seed-1: loss is nan from step 2 on",
    ]
