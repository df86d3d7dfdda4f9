"""Contrastive runs of the dense engine: against the lumped engine, relaxed, and as typed."""

import json
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mimlab  # noqa: E402
from mimlab.claims.contrastive import CONTRASTIVE_CLAIMS  # noqa: E402
from mimlab.cli import application  # noqa: E402
from mimlab.cli.session import run as run_command  # noqa: E402
from mimlab.dynamics.relax import Relaxation  # noqa: E402
from mimlab.runs.tables import read_json, read_table  # noqa: E402
from mimlab.studies import copying, world_jobs  # noqa: E402
from mimlab.studies.contrastive_worlds import CONTRASTIVE_RUNS  # noqa: E402
from mimlab.studies.single import Simulation  # noqa: E402

VARYING = mimlab.Latent(low=0.5, high=1.5)
WORLD = mimlab.World(area_sizes=(20, 5, 5, 5, 5), clusters=4, latent=VARYING)
SMALL = mimlab.World(area_sizes=(6, 3, 3), clusters=2, latent=VARYING)
DENSE = {"engine": "dense", "integrator": "descent"}
FEW = DENSE | {"learning_rate": 20.0, "steps": 5, "draws": 8}


@cache
def course(engine: str, seed: int = 0, **relax: float) -> Simulation:
    """From Q = 0 until 0.7 of the attention is on the global area."""
    draws = {"dense": 64, "sampled": 1024}[engine]
    options = {"engine": engine, "integrator": "descent", "learning_rate": 40.0, "steps": 300, "draws": draws}
    return mimlab.simulate(
        WORLD,
        mimlab.ContrastiveLearning(),
        **options,
        stop_attention=0.7,
        seed=seed,
        relax=Relaxation(**relax),
    )


def half_time(*given: object, **relax: float) -> float:
    return float(course(*given, **relax).summary["half_time"])


def test_it_agrees_with_the_lumped_engine_within_their_errors():
    """Four networks, each on draws of its own, against draws that are fixed for the run; 3.2 is t of 3 degrees of
    freedom at 95%."""
    lumped = course("sampled")
    halves = [half_time("dense", seed) for seed in range(4)]
    error = np.hypot(np.std(halves, ddof=1) / 2, lumped.summary["half_time_se"])
    assert error < 0.1 * lumped.summary["half_time"]
    assert np.mean(halves) == pytest.approx(lumped.summary["half_time"], abs=3.2 * error)
    # The same row, before anything is learned and where half is.
    at = lumped.summary["half_time"]
    for name in ("attention_own", "attention_global", "phi_global", "loss", "entropy"):
        for time in (0.0, at):
            values = [
                np.interp(time, run.trajectory["time"], run.trajectory[name])
                for run in (lumped, *(course("dense", seed) for seed in range(4)))
            ]
            spread = np.std(values[1:], ddof=1)
            said = (
                np.interp(time, lumped.trajectory["time"], lumped.trajectory[f"{name}_se"].to_numpy())
                if name != "entropy"
                else 0.05
            )
            assert np.mean(values[1:]) == pytest.approx(
                values[0], abs=3.2 * np.hypot(spread / 2, said) + 1e-9
            ), name


def test_no_content_in_the_query_is_the_unrelaxed_run():
    """Content so little that it is none: the code of the relaxation runs."""
    runs = [
        mimlab.simulate(
            SMALL, mimlab.ContrastiveLearning(negatives=2), **FEW, relax=Relaxation(content_in_query=c)
        )
        for c in (0.0, 1e-13)
    ]
    for name in ("loss", "attention_own", "attention_global", "phi_global", "upsilon_max"):
        np.testing.assert_allclose(*(run.trajectory[name].to_numpy() for run in runs), rtol=1e-9, atol=1e-11)


def test_content_in_the_query_matters():
    assert half_time("dense", content_in_query=1.0) < 0.8 * half_time("dense")


def test_what_a_run_states():
    run = mimlab.simulate(SMALL, mimlab.ContrastiveLearning(negatives=2), **FEW)
    last = run.trajectory.to_pylist()[-1]
    assert last["excess_loss"] is None and last["excess_loss_se"] is None
    assert all(last[f"{name}_se"] > 0 for name in ("loss", "attention_own", "attention_global"))
    assert run.summary["fp_share"] + run.summary["pp_share"] == pytest.approx(1)
    assert run.summary["loss_floor"] is None
    names = {claim["claim"] for claim in run.summary["claims"]}
    assert names == {"contrastive global attention", "contrastive training leaves the own area"}
    # At Q = 0 attention is even and all that is seen is the visible share: half of 6 and of 3 of 12 patches.
    first = run.trajectory.to_pylist()[0]
    assert first["attention_global"] == pytest.approx(0.25, abs=0.02)
    assert first["attention_own"] == pytest.approx(0.125, abs=0.02)


def test_it_stops_on_the_global_area_and_its_half_time_is_there():
    run = course("dense")
    columns = {
        name: run.trajectory[name].to_numpy() for name in ("time", "attention_global", "attention_own")
    }
    assert run.summary["status"] == "stopped"
    assert columns["attention_global"][-1] >= 0.7 > columns["attention_global"][-2]
    assert columns["attention_own"].max() < 0.2
    assert np.interp(run.summary["half_time"], columns["time"], columns["attention_global"]) == pytest.approx(
        0.5
    )
    assert run.summary["half_time_se"] > 0
    assert run.summary["phases"][0]["name"] == "growth"


def test_every_query_has_the_loss_of_all():
    """From a random start sixteen rows are read; the loss is of them all."""
    run = mimlab.simulate(WORLD, mimlab.ContrastiveLearning(), **FEW, query="all", start=0.5)
    assert len(run.summary["queries"]) == 16
    query, loss = np.asarray(run.trajectory["query"]), np.asarray(run.trajectory["loss"])
    each = [loss[query == q] for q in np.unique(query)]
    assert all(np.array_equal(each[0], other) for other in each)
    own = np.asarray(run.trajectory["attention_global"])
    assert len({own[query == q][0] for q in np.unique(query)}) == 16


def test_the_regulariser_is_of_the_whole_matrix_of_every_head():
    """Loss at the start less that without: λ/2 ‖Q‖², whose expectation is λ/2 times heads d² start²."""
    runs = [
        mimlab.simulate(
            SMALL,
            mimlab.ContrastiveLearning(negatives=2, regulariser=decay),
            **FEW,
            start=0.5,
            relax=Relaxation(heads=2),
        )
        for decay in (0.0, 0.1)
    ]
    first = [run.trajectory["loss"][0].as_py() for run in runs]
    d = 12 + 2 * 3
    assert first[1] - first[0] == pytest.approx(0.05 * 2 * d * d * 0.25, rel=0.2)


def test_decay_by_the_loss_and_by_the_optimizer_are_one_for_plain_descent():
    runs = [
        mimlab.simulate(
            SMALL,
            mimlab.ContrastiveLearning(negatives=2, regulariser=loss),
            **FEW,
            relax=Relaxation(weight_decay=optimizer),
        )
        for loss, optimizer in ((0.001, 0.0), (0.0, 0.001))
    ]
    for name in ("attention_global", "phi_global", "upsilon_max"):
        np.testing.assert_allclose(*(run.trajectory[name].to_numpy() for run in runs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "relax",
    [
        {"noise": 0.5, "jitter": 0.2, "heads": 2},
        {"coherence": 0.3, "shared_features": 1.0, "signed_latents": 0.2, "latent_correlation": 0.5},
        {"positions": "learned", "value_matrix": 0.5, "content_in_query": 0.5},
        {"positions": "sincos", "mask_shape": "block", "optimizer": "adam", "weight_decay": 0.01},
        {"momentum": 0.5, "batch": 4, "positions": "random"},
    ],
    ids=str,
)
def test_every_key_runs(relax):
    options = FEW | ({"learning_rate": 0.01} if relax.get("optimizer") == "adam" else {})
    paper = mimlab.simulate(SMALL, mimlab.ContrastiveLearning(negatives=2), **options, start=0.2)
    run = mimlab.simulate(
        SMALL, mimlab.ContrastiveLearning(negatives=2), **options, start=0.2, relax=Relaxation(**relax)
    )
    assert run.summary["status"] == "finished"
    for name in ("loss", "attention_own", "attention_global", "phi_global"):
        found, plain = (one.trajectory[name].to_numpy() for one in (run, paper))
        assert np.isfinite(found).all() and not np.allclose(found, plain)


def test_more_negatives_than_an_evaluation_set_holds():
    few = FEW | {"draws": 80, "steps": 1}
    run = mimlab.simulate(SMALL, mimlab.ContrastiveLearning(negatives=70), **few)
    assert run.summary["status"] == "finished" and run.trajectory["loss_se"][-1].as_py() > 0


TYPED = {
    "--area-sizes": ["6", "3", "3"],
    "--clusters": ["2"],
    "--objective": ["contrastive"],
    "--engine": ["dense"],
    "--integrator": ["descent"],
    "--learning-rate": ["20"],
    "--steps": ["4"],
    "--draws": ["8"],
}


def typed(*more: str) -> list[str]:
    """The command, each flag as it is given last."""
    flags, name = {**TYPED}, ""
    for word in more:
        if word.startswith("--"):
            name, flags[word] = word, []
        else:
            flags[name].append(word)
    return ["simulate", *(word for flag, values in flags.items() for word in (flag, *values))]


def simulated(*more: str) -> int:
    return run_command(application("simulate"), typed(*more))


def test_as_typed_and_again_from_its_configuration(tmp_path, capsys):
    asked = ["--content-in-query", "0.5", "--heads", "2", "--noise", "0.1", "--start", "0.5"]
    one, two = tmp_path / "a", tmp_path / "b"
    assert simulated(*asked, "--out", str(one)) == 0
    assert (
        run_command(application("simulate"), ["simulate", str(one / "config.toml"), "--out", str(two)]) == 0
    )
    for name in ("trajectory.parquet", "correlations.parquet"):
        assert read_table(one / name).equals(read_table(two / name))
    assert (one / "report.html").exists()
    capsys.readouterr()
    assert simulated(*asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["objective"] == "contrastive"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--draws", "4"], ("draws = 4", "4 other images", "fewer negatives")),
        (["--batch", "3"], ("batch = 3", "4 other images", "fewer negatives")),
        (["--negatives", "8"], ("draws = 8", "8 other images")),
        (["--negatives", "0"], ("negatives = 0", "at least 1")),
        (["--temperature", "0"], ("temperature = 0", "positive")),
        (["--regulariser", "-1"], ("regulariser = -1", "at least 0")),
        (["--content-in-query", "2"], ("content_in_query = 2.0", "[0, 1]")),
        (["--integrator", "flow"], ("engine = dense", "integrator = descent")),
        (
            ["--engine", "sampled", "--draws", "64", "--heads", "2"],
            ("heads", "engine = sampled", "engine = dense"),
        ),
        (["--engine", "enumerated"], ("engine = enumerated", "sampled", "mean-field", "dense")),
        (["--area-sizes", "4097", "3"], ("4100", "4096")),
        (["--start", "-1"], ("start = -1", "at least 0")),
    ],
)
def test_what_cannot_be_is_refused_as_typed(more, words, tmp_path, capsys):
    code = simulated(*more, "--out", str(tmp_path / "x"))
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2 and not list(tmp_path.iterdir())
    assert all(word in said for word in words), said


def test_a_run_that_flies_apart_says_so(tmp_path):
    """A regulariser whose step overshoots: Q ← -19 Q. However large the rate, the loss itself has bounded slopes."""
    overshooting = ("--regulariser", "1", "--steps", "400", "--stop-attention", "1")
    assert simulated(*overshooting, "--out", str(tmp_path / "x")) == 1
    assert read_json(tmp_path / "x/summary.json")["status"] == "diverged"


def test_reproduce_without_torch_judges_nothing(monkeypatch, tmp_path):
    """Its claims, all inconclusive, where PyTorch is missing."""
    (run,) = [one for one in CONTRASTIVE_RUNS if one.config.get("dynamics", {}).get("engine") == "dense"]
    monkeypatch.setattr(copying, "find_spec", lambda name: None)
    outcome = world_jobs.run_job(run, tmp_path)
    assert {one["claim"] for one in outcome.verdicts} == {claim.name for claim in CONTRASTIVE_CLAIMS}
    assert {one["verdict"] for one in outcome.verdicts} == {"inconclusive"}
    assert not list(tmp_path.iterdir())
