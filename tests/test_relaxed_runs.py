"""Whole runs of the dense engine with its assumptions relaxed: what they equal, what they refuse, what they state."""

import json
import shlex
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import mimlab  # noqa: E402
from mimlab.claims.fits import SIGMAS  # noqa: E402
from mimlab.cli import application  # noqa: E402
from mimlab.cli.session import run as run_command  # noqa: E402
from mimlab.dynamics.config import SimulationConfig  # noqa: E402
from mimlab.dynamics.dense import measure, train_dense  # noqa: E402
from mimlab.dynamics.dense_images import DenseWorld  # noqa: E402
from mimlab.dynamics.dense_rows import shares_of  # noqa: E402
from mimlab.dynamics.relax import Relaxation  # noqa: E402
from mimlab.dynamics.relaxed import RelaxedAttention, RelaxedWorld  # noqa: E402
from mimlab.runs import build, merge, read_toml, to_mapping, write_toml  # noqa: E402
from mimlab.runs.flags import read_flag  # noqa: E402
from mimlab.runs.schema import walk  # noqa: E402
from mimlab.runs.tables import read_table  # noqa: E402
from mimlab.studies.survival import BASE, LADDERS, adam_command, survival_command  # noqa: E402

WORLD = mimlab.World(area_sizes=(8, 4, 4))
FAST = {"engine": "dense", "integrator": "descent", "learning_rate": 2.0, "steps": 6, "draws": 8}
AREAS = np.array([[0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 0, 1, 2, 2, 3]])
MEASURES = (
    "loss",
    "excess_loss",
    "attention_own",
    "attention_global",
    "phi_own",
    "phi_global",
    "upsilon_max",
)


def numbers(run, names=MEASURES):
    return np.array([run.trajectory[name].to_numpy() for name in names], dtype=float)


@pytest.mark.parametrize(
    ("areas", "masked", "latent"),
    [
        (AREAS, 5, mimlab.Latent(low=0.5, high=1.5)),
        (AREAS[:1], 3, mimlab.Latent(low=1, high=1)),
        (np.array([[0, 0, 0, 1, 2, 2]]), 4, mimlab.Latent(values=(0.5, 0.5, 1.5))),
    ],
)
def test_without_a_relaxation_the_layer_is_the_plain_one(areas, masked, latent):
    """The same draws and, to rounding, the same numbers at every record, through two codes."""
    options = {"learning_rate": 3.0, "steps": 40, "batch": 8, "seed": 5, "record": [1, 10], "observe": [1, 4]}
    plain = train_dense(DenseWorld(areas, latent, masked), **options)
    world = RelaxedWorld(areas, latent, masked, Relaxation())
    relaxed = train_dense(world, **options, network=lambda seed: RelaxedAttention(world, seed=seed))
    assert np.nanmax(np.abs(plain.records[-1].phi)) > 0.3
    for one, other in zip(plain.records, relaxed.records, strict=True):
        np.testing.assert_allclose(one.phi, other.phi, atol=1e-10)
        np.testing.assert_allclose(one.upsilon, other.upsilon, atol=1e-10)
        for first, second in zip(one.measures, other.measures, strict=True):
            assert vars(first) == pytest.approx(vars(second), rel=1e-9, abs=1e-12, nan_ok=True)
    images = RelaxedAttention(world).draw(np.random.default_rng(3), 20)
    for one, other in zip(
        plain.model.logit_variances(images), relaxed.model.logit_variances(images), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("name", [field.name for field in fields(Relaxation) if field.name != "batch"])
def test_each_key_at_strength_zero_is_the_unrelaxed_run(name, tmp_path, capsys):
    """As typed: the flag with the paper's value, and no flag at all."""
    flag, value = "--" + name.replace("_", "-"), getattr(Relaxation(), name)
    typed = ["simulate", "--area-sizes", "8", "4", "4", "--seed", "3", "--engine", "dense"]
    typed += ["--integrator", "descent", "--learning-rate", "2", "--steps", "3", "--draws", "8", "--json"]
    found = []
    for more in ([], [flag, str(value)]):
        assert run_command(application("simulate"), [*typed, *more]) == 0
        summary = json.loads(capsys.readouterr().out)
        found.append({key: value for key, value in summary.items() if key != "seconds"})
    assert found[0] == found[1]


# Strengths so small that they are none: the code of the relaxation runs, and must give the paper's numbers.
NEARLY_NONE = {
    "coherence": 1e-18,
    "noise": 1e-13,
    "latent_correlation": 1e-300,
    "value_matrix": 1e-13,
    "content_in_query": 1.0,
    "weight_decay": 1e-13,
    "momentum": 1e-14,
}


@pytest.mark.parametrize(
    "name", ["coherence", "noise", "value_matrix", "content_in_query", "weight_decay", "momentum"]
)
def test_a_relaxation_fades_into_the_unrelaxed_run(name):
    """The code of the relaxation runs here. A basis of another dimension is another rotation, on which nothing depends;
    content in the query changes nothing at full strength: queries that count are masked."""
    paper = mimlab.simulate(WORLD, **FAST, seed=2)
    relaxed = mimlab.simulate(WORLD, **FAST, seed=2, relax=Relaxation(**{name: NEARLY_NONE[name]}))
    if name == "noise":  # its draws come after all others of an image, so only the first images are the same
        np.testing.assert_allclose(numbers(relaxed)[:, :2], numbers(paper)[:, :2], atol=1e-10)
    else:
        np.testing.assert_allclose(numbers(relaxed), numbers(paper), atol=1e-10)
        assert relaxed.summary["fp_share"] == pytest.approx(paper.summary["fp_share"], rel=1e-9)


@pytest.mark.parametrize("heads", [2, 5])
def test_heads_that_start_equal_are_one_head_at_a_lower_learning_rate(heads):
    """The mean of H equal heads has 1/H of the gradient in each."""
    many = mimlab.simulate(WORLD, **FAST, relax=Relaxation(heads=heads))
    one = mimlab.simulate(WORLD, **FAST | {"learning_rate": FAST["learning_rate"] / heads})
    np.testing.assert_allclose(numbers(many), numbers(one), atol=1e-11)


def test_batch_stands_for_draws():
    one = mimlab.simulate(WORLD, **FAST, relax=Relaxation(batch=5))
    other = mimlab.simulate(WORLD, **FAST | {"draws": 5})
    np.testing.assert_allclose(numbers(one), numbers(other), atol=1e-11)


def test_a_start_tells_heads_apart_and_is_the_seeds():
    runs = [
        mimlab.simulate(WORLD, **FAST, start=0.5, seed=seed, relax=Relaxation(heads=2)) for seed in (1, 1, 2)
    ]
    first = [numbers(run)[:, 0] for run in runs]
    np.testing.assert_array_equal(first[0], first[1])
    assert np.abs(first[0] - first[2]).max() > 0.01
    alone = mimlab.simulate(WORLD, **FAST, start=0.5, seed=1)
    assert abs(numbers(alone)[MEASURES.index("phi_own"), 0]) > 0
    assert numbers(mimlab.simulate(WORLD, **FAST))[MEASURES.index("phi_own"), 0] == 0


def test_phases_are_measured_from_where_a_run_starts():
    """What a random start puts into Phi is not what training moved: the ratio of the first rates is that of changes."""
    run = mimlab.simulate(mimlab.World(area_sizes=(12, 4, 4)), **FAST, start=0.01, seed=1)
    own, everywhere = (run.trajectory[name].to_numpy() for name in ("phi_own", "phi_global"))
    (claim,) = [c for c in run.summary["claims"] if c["claim"] == "two phases"]
    at = int(np.flatnonzero(own > own[0])[0])
    assert at > 0
    assert claim["value"] == pytest.approx(-(everywhere[at] - everywhere[0]) / (own[at] - own[0]))


KEYS = {
    "noise": st.floats(0, 2),
    "coherence": st.floats(0, 0.95),
    "shared_features": st.floats(0, 1),
    "latent_correlation": st.floats(0, 0.95),
    "signed_latents": st.floats(0, 0.5),
    "jitter": st.floats(0, 0.5),
    "positions": st.sampled_from(["orthogonal", "sincos", "random", "learned"]),
    "content_in_query": st.floats(0, 1),
    "value_matrix": st.floats(0, 1),
    "heads": st.integers(1, 3),
    "mask_shape": st.sampled_from(["random", "block"]),
    "optimizer": st.sampled_from(["sgd", "adam"]),
    "momentum": st.floats(0, 0.9),
    "batch": st.none() | st.integers(1, 9),
    "weight_decay": st.floats(0, 0.3),
}


def test_every_key_is_combined():
    assert set(KEYS) == {field.name for field in fields(Relaxation)}


@settings(max_examples=25)
@given(
    st.fixed_dictionaries({}, optional=KEYS),
    st.sampled_from([0.0, 0.3]),
    st.integers(1, 2),
    st.integers(0, 9),
)
def test_any_keys_together_run(tmp_path_factory, keys, start, clusters, seed):
    if keys.get("optimizer") == "adam":
        keys["momentum"] = 0.0
    world = mimlab.World(
        area_sizes=(5, 2, 3), clusters=clusters, partitions="random", latent=mimlab.Latent(0.5, 1.5)
    )
    few = FAST | {"steps": 2, "learning_rate": 0.1, "draws": 4}
    run = mimlab.simulate(world, **few, relax=Relaxation(**keys), start=start, seed=seed)
    assert run.summary["status"] == "finished"
    assert np.isfinite(numbers(run)).all() and numbers(run).shape == (7, 3)
    shares = run.summary["fp_share"], run.summary["pp_share"]
    assert all(0 <= share <= 1 for share in shares) and sum(shares) == pytest.approx(1)
    path = tmp_path_factory.mktemp("keys") / "config.toml"
    write_toml(path, run.config)
    assert build(SimulationConfig, read_toml(path)) == run.config


def test_the_configuration_repeats_the_run(tmp_path, capsys):
    flags = [
        "--noise",
        "0.2",
        "--heads",
        "2",
        "--start",
        "0.2",
        "--positions",
        "learned",
        "--optimizer",
        "adam",
    ]
    typed = [
        "--area-sizes",
        "8",
        "4",
        "4",
        "--engine",
        "dense",
        "--integrator",
        "descent",
        "--learning-rate",
        "0.1",
    ]
    typed += ["--steps", "4", "--draws", "8", "--seed", "4", *flags]
    one, two = tmp_path / "a", tmp_path / "b"
    assert run_command(application("simulate"), ["simulate", *typed, "--out", str(one)]) == 0
    config = read_toml(one / "config.toml")
    assert (
        config["relax"]["noise"] == 0.2
        and config["relax"]["optimizer"] == "adam"
        and "batch" not in config["relax"]
    )
    assert (
        run_command(application("simulate"), ["simulate", str(one / "config.toml"), "--out", str(two)]) == 0
    )
    for name in ("trajectory.parquet", "correlations.parquet"):
        assert read_table(one / name).equals(read_table(two / name))
    capsys.readouterr()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--noise", "-1"], ("noise = -1.0", "at least 0")),
        (["--noise", "loud"], ("--noise", "number", "loud")),
        (["--coherence", "1"], ("coherence = 1.0", "[0, 1)")),
        (["--shared-features", "1.5"], ("shared_features = 1.5", "[0, 1]")),
        (["--latent-correlation", "1"], ("latent_correlation = 1.0", "[0, 1)")),
        (["--signed-latents", "0.6"], ("signed_latents = 0.6", "[0, 0.5]")),
        (["--jitter", "0.6"], ("jitter = 0.6", "[0, 0.5]")),
        (["--positions", "rotary"], ("'rotary'", "sincos", "learned")),
        (["--content-in-query", "2"], ("content_in_query = 2.0", "[0, 1]")),
        (["--value-matrix", "-0.1"], ("value_matrix = -0.1", "at least 0")),
        (["--heads", "0"], ("heads = 0", "at least 1")),
        (["--heads", "1.5"], ("--heads", "whole number")),
        (["--mask-shape", "stripe"], ("'stripe'", "random", "block")),
        (["--optimizer", "lion"], ("'lion'", "sgd", "adam")),
        (["--momentum", "1"], ("momentum = 1.0", "[0, 1)")),
        (["--momentum", "0.5", "--optimizer", "adam"], ("momentum = 0.5", "sgd")),
        (["--batch", "0"], ("batch = 0", "at least 1")),
        (["--weight-decay", "-1"], ("weight_decay = -1.0", "at least 0")),
        (["--noise", "0.1", "--engine", "sampled"], ("noise", "engine = sampled", "engine = dense")),
        (
            ["--heads", "2", "--jitter", "0.1", "--engine", "mean-field"],
            ("heads", "jitter", "engine = dense"),
        ),
        (["--noise", "0.1", "--objective", "in-context"], ("noise", "in-context", "masked or contrastive")),
        (["--start", "0.1", "--engine", "sampled"], ("start", "dense")),
        (["--start", "-0.1"], ("start = -0.1", "at least 0")),
    ],
)
def test_what_cannot_be_is_refused_as_typed(typed, words, tmp_path, capsys):
    base = ["simulate", "--area-sizes", "8", "4", "4", "--integrator", "descent", "--learning-rate", "1"]
    engine = [] if "--engine" in typed else ["--engine", "dense"]
    code = run_command(
        application("simulate"), [*base, "--steps", "2", *engine, *typed, "--out", str(tmp_path / "x")]
    )
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2 and not list(tmp_path.iterdir())
    assert all(word in said for word in words), said


def test_an_unknown_key_is_told_the_nearest():
    mapping = to_mapping(SimulationConfig(WORLD)) | {"relax": {"noize": 0.1}}
    with pytest.raises(mimlab.InputError, match=r"relax.noize.*nearest is relax.noise"):
        build(SimulationConfig, mapping)


def test_no_other_engine_knows_shares():
    summary = mimlab.simulate(WORLD, engine="mean-field").summary
    assert [summary[key] for key in ("fp_share", "pp_share", "pp_share_se")] == [None] * 3
    assert "features exceed positions" not in {claim["claim"] for claim in summary["claims"]}


def test_one_verdict_on_the_shares_for_all_queries():
    run = mimlab.simulate(WORLD, **FAST, query="all")
    assert len(run.summary["queries"]) == 2
    (claim,) = [c for c in run.summary["claims"] if c["claim"] == "features exceed positions"]
    share, error = run.summary["fp_share"], run.summary["pp_share_se"]
    assert claim["value"] == share and claim["high"] - share == pytest.approx(SIGMAS * error)


def test_standard_errors_are_those_of_other_images():
    """One network on many sets of fresh images: means of attention, loss and FP's share scatter by their errors."""
    world = RelaxedWorld(AREAS, mimlab.Latent(low=0.5, high=1.5), 5, Relaxation(noise=0.3))
    trained = train_dense(
        world,
        learning_rate=3.0,
        steps=30,
        batch=8,
        seed=1,
        observe=[4],
        network=lambda s: RelaxedAttention(world, seed=s),
    )
    generator = np.random.default_rng(8)
    shares = [shares_of(trained.model, 100, seed) for seed in range(100)]
    looks = [measure(trained.model, trained.model.draw(generator, 100, 4), 4) for _ in range(200)]
    for value, error in (
        ([m.loss for m in looks], [m.loss_se for m in looks]),
        ([m.loss - m.floor for m in looks], [m.excess_se for m in looks]),
        ([m.attention_own for m in looks], [m.attention_own_se for m in looks]),
        ([m.attention_global for m in looks], [m.attention_global_se for m in looks]),
        ([found["fp_share"] for found in shares], [found["pp_share_se"] for found in shares]),
    ):
        value, error = np.array(value), np.array(error)
        assert np.std(value) == pytest.approx(
            np.sqrt(np.mean(error**2)), rel=0.25
        )  # of 100, 7% each way is one sd


def test_a_targets_own_noise_is_no_excess():
    """Uniform attention averages the noise of visible patches, ½ γ σ² (1-γ)/P; the target's own, ½ γ σ², is floor."""
    areas, sigma = np.repeat([[0, 1, 2]], [8, 4, 4], axis=1), 2.0
    model = RelaxedAttention(RelaxedWorld(areas, mimlab.Latent(low=1, high=1), 12, Relaxation(noise=sigma)))
    generator, losses, excess = np.random.default_rng(0), [], []
    for _ in range(10):
        images = model.draw(generator, 2000, 9)
        noisy, plain = measure(model, images, 9), measure(model, replace(images, noise=None), 9)
        losses.append(noisy.loss - plain.loss)
        excess.append((noisy.loss - noisy.floor) - (plain.loss - plain.floor))
    of_seen = 0.5 * 0.75 * sigma**2 * 0.25 / 16
    assert np.mean(losses) == pytest.approx(0.5 * 0.75 * sigma**2 + of_seen, rel=0.02)
    # The target's noise times what is left of the feature has mean 0 and, over 20 000 images, 1/8 of this as its error.
    assert np.mean(excess) == pytest.approx(of_seen, rel=0.4)


def test_attention_on_the_own_area_follows_areas_that_move():
    """A query's area is the one that it lies in in each image: uniform attention on it is its visible share."""
    run = mimlab.simulate(WORLD, **FAST, relax=Relaxation(jitter=0.5), query=8)
    columns = run.trajectory.to_pylist()[0]
    # Patch 8 lies in an area of 8 in half of the images: more than the 3/16 of its own area in place.
    still = mimlab.simulate(WORLD, **FAST, query=8).trajectory.to_pylist()[0]
    assert columns["attention_own"] > 1.2 * still["attention_own"]
    # In the global area for half of the images, so that attention on it is on one's own there.
    assert columns["attention_global"] == pytest.approx(still["attention_global"], rel=0.1)


def test_a_configuration_says_what_is_relaxed():
    relax = Relaxation(noise=0.1, heads=2)
    assert relax.relaxed == ("noise", "heads") and not relax.is_paper
    assert replace(relax, noise=0, heads=1).is_paper


def test_the_survival_table_starts_from_the_paper_and_takes_keys_that_there_are():
    base = read_toml(BASE)
    assert build(SimulationConfig, base).relax.is_paper
    for key, values in LADDERS.items():
        table, name = key.split(".")
        for value in values.split(","):
            (known,) = [one for one in walk(SimulationConfig) if str(one) == key]
            config = build(SimulationConfig, merge(base, {table: {name: read_flag(known, [value])}}))
            assert config != build(SimulationConfig, base)
    assert {key.removeprefix("relax.") for key in LADDERS} >= {f.name for f in fields(Relaxation)} - {
        "optimizer"
    }
    words = shlex.split(survival_command("runs/s"))
    assert words[words.index("--design") + 1] == "one-at-a-time" and words.count("--over") == len(LADDERS) + 1
    assert "adam" in adam_command("runs/s")
