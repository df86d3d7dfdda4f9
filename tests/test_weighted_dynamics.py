"""The weighted sum followed in time: which rows are followed, when a run ends, what its columns mean, what is refused.

Loss, attention and velocity have their oracle in test_weighted_oracle.py.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest

from mimlab import ContrastiveLearning, InputError, Latent, MaskedReconstruction, WeightedSum, World, simulate
from mimlab.cli import application
from mimlab.cli.session import run as carry_out
from mimlab.studies.single import Simulation

VARYING = Latent(low=0.5, high=1.5)
SMALL = World(area_sizes=(12, 4, 4, 4), clusters=2, latent=VARYING)
UNLIKE = World(area_sizes=(8, 2, 3, 2, 3), clusters=2, latent=VARYING)
STEPS = {"integrator": "descent", "learning_rate": 2.0, "steps": 8, "stop_attention": 1.0, "draws": 64}


@cache
def run(weight: float, **options: Any) -> Simulation:
    given = {"engine": "mean-field", "draws": 64, **options}
    return simulate(SMALL, WeightedSum(contrastive_weight=weight), **given)


def column(simulation: Simulation, name: str, query: int | None = None) -> np.ndarray:
    table = simulation.trajectory
    query = table["query"][0].as_py() if query is None else query
    return table[name].to_numpy()[table["query"].to_numpy() == query]


@pytest.mark.parametrize("engine", ["sampled", "mean-field"])
def test_without_the_contrastive_part_a_run_is_the_masked_one(engine):
    """Flow: the same half time and ends, whichever other rows are beside it."""
    options = {"engine": engine, "draws": 64, "stop_attention": 0.8, "query": "local"}
    both = simulate(SMALL, WeightedSum(contrastive_weight=0), **options)
    alone = simulate(SMALL, MaskedReconstruction(0.5), **options)
    assert both.summary["half_time"] == pytest.approx(alone.summary["half_time"], rel=1e-4)
    for name in ("attention_own", "attention_global", "phi_own", "upsilon_max"):
        assert column(both, name)[-1] == pytest.approx(column(alone, name)[-1], rel=1e-4)


def test_a_row_ends_on_either_area_by_the_weight():
    """Stopped by the own area, by the global one, and by neither: attention is shared, and the flow's time is over."""
    own, everywhere = run(1.0, stop_attention=0.9), run(2000.0, stop_attention=0.9)
    shared = run(30.0, stop_attention=0.9, learning_rate=1.0, steps=200)
    assert own.summary["status"] == everywhere.summary["status"] == "stopped"
    assert column(own, "attention_own")[-1] == pytest.approx(0.9, abs=1e-6)
    assert column(everywhere, "attention_global")[-1] == pytest.approx(0.9, abs=1e-6)
    assert shared.summary["status"] == "horizon"
    ends = [column(shared, name)[-1] for name in ("attention_own", "attention_global")]
    assert min(ends) > 0.05 and max(ends) < 0.9


def test_half_time_is_when_either_area_has_half():
    for weight, name in ((1.0, "attention_own"), (2000.0, "attention_global")):
        found = run(weight, stop_attention=0.9)
        times, attention = column(found, "time"), column(found, name)
        assert np.interp(0.5, attention, times) == pytest.approx(found.summary["half_time"], rel=1e-3)
        assert found.summary["half_time_se"] > 0


def test_attention_is_the_masked_objectives():
    """At the start a masked query sees (1-γ) of each area; the row of a contrastive run, its own position, too."""
    first = column(run(30.0, engine="sampled", **STEPS), "attention_own")[0]
    alone = column(simulate(SMALL, MaskedReconstruction(0.5), **STEPS), "attention_own")[0]
    assert first == pytest.approx(alone, rel=1e-12)
    assert first != pytest.approx(column(simulate(SMALL, ContrastiveLearning(), **STEPS), "attention_own")[0])


def test_the_loss_is_that_of_all_rows_and_both_parts():
    """Linear in w at the start, where it is the masked rows' sum and a contrastive run's."""
    whole = [column(run(weight, **STEPS), "loss")[0] for weight in (0.0, 5.0)]
    options = {"engine": "mean-field", "query": "all", **STEPS}
    masked = simulate(SMALL, MaskedReconstruction(0.5), **options)
    rows = {0: 12, 12: 12}
    assert whole[0] == pytest.approx(
        sum(number * column(masked, "loss", query)[0] for query, number in rows.items())
    )
    contrastive = simulate(SMALL, ContrastiveLearning(), **options)
    assert whole[1] - whole[0] == pytest.approx(5 * column(contrastive, "loss")[0])
    assert column(run(5.0, **STEPS), "loss")[-1] < whole[1]
    assert np.isnan(column(run(5.0, **STEPS), "excess_loss")).all()


def test_all_types_have_a_row_and_share_the_loss():
    found = simulate(UNLIKE, WeightedSum(contrastive_weight=5.0), engine="sampled", query="all", **STEPS)
    assert [facts["area_size"] for facts in found.summary["queries"]] == [8, 2, 3]
    losses = [column(found, "loss", facts["query"]) for facts in found.summary["queries"]]
    assert all(np.array_equal(losses[0], other) for other in losses)
    assert not np.isnan(column(found, "nmi")).any()


def test_a_query_of_a_later_area_is_the_row_of_its_type():
    """Its other areas come in another order; mean counts and the pairs of one seed know nothing of either."""
    world = World(area_sizes=(8, 2, 4, 2, 4), clusters=2)
    first, later = (
        simulate(world, WeightedSum(contrastive_weight=20.0), engine="mean-field", query=query, **STEPS)
        for query in (8, 14)
    )
    for name in ("loss", "attention_own", "phi_own", "phi_global", "upsilon_max", "entropy"):
        assert column(first, name) == pytest.approx(column(later, name), rel=1e-9, abs=1e-12)


def test_a_regulariser_counts_with_the_weight():
    """λ belongs to the contrastive loss: w λ is what pulls."""
    descents = [
        simulate(
            SMALL,
            WeightedSum(contrastive_weight=weight, regulariser=regulariser),
            engine="mean-field",
            **STEPS | {"steps": 40},
        )
        for weight, regulariser in ((1e-6, 1e4), (1e-6, 0.0))
    ]
    assert column(descents[0], "phi_own")[-1] < 0.9 * column(descents[1], "phi_own")[-1]


@pytest.mark.parametrize(
    ("world", "options", "said"),
    [
        (SMALL, {"engine": "enumerated"}, "engine = enumerated"),
        (SMALL, {"engine": "dense", "integrator": "descent", "learning_rate": 1.0, "steps": 1}, "dense"),
        (SMALL, {"start": 0.5}, "start"),
        (SMALL, {"draws": 64, "negatives": 8}, "negatives"),
        (World(area_sizes=(12, 4, 4, 4), clusters=2, partitions="nested"), {}, "partitions = shared"),
        (World(area_sizes=(12, 4, 1, 4)), {"engine": "mean-field"}, "mask_ratio = 0.5"),
        (World(10**6, 0.9, 0.3, clusters=4), {}, "fewer patches"),
        (World(area_sizes=(1, 1)), {"mask_ratio": 0.1}, "mask_ratio = 0.1"),
    ],
)
def test_what_cannot_be_done_is_refused(world, options, said):
    keys = {key: options[key] for key in ("negatives", "mask_ratio") if key in options}
    rest = {key: value for key, value in options.items() if key not in keys}
    with pytest.raises(InputError, match=said):
        simulate(world, WeightedSum(**keys), **rest)


def mimlab(typed: list[str]) -> int:
    return carry_out(application(*typed[:1]), typed)


TYPED = ["simulate", "--area-sizes", "12", "4", "4", "4", "--objective", "weighted"]


def test_as_typed(tmp_path, capsys):
    out = tmp_path / "run"
    words = [*TYPED, "--contrastive-weight", "3", "--draws", "64", "--stop-attention", "0.5"]
    assert mimlab([*words, "--clusters", "2", "--engine", "mean-field", "--out", str(out)]) == 0
    assert "contrastive_weight = 3.0" in (out / "config.toml").read_text()
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--contrastive-weight", "-1"], "contrastive_weight = -1.0 must be at least 0"),
        (["--contrastive-weight", "much"], "--contrastive-weight"),
        (["--temperature", "0"], "temperature"),
        (["--start", "0.5"], "start"),
        (["--engine", "enumerated"], "enumerated"),
        (["--clusters", "2", "--partitions", "random"], "partitions = shared"),
    ],
)
def test_bad_input_as_typed(words, said, tmp_path, capsys):
    assert mimlab([*TYPED, *words, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run").exists()
