"""What the terminal shows of results, null where a world has no such thing."""

import io

import pytest
from rich.console import Console

from mimlab.cli.console import show_exponents, show_gap, show_simulation, show_verdicts


@pytest.fixture
def shown():
    """The text that a function shows of a result, blanks run together."""

    def call(show, result):
        console = Console(file=io.StringIO(), width=160, markup=False, highlight=False)
        show(console, result)
        return " ".join(console.file.getvalue().split())

    return call


VERDICTS = [
    {
        "claim": "two phases",
        "world": "Δ > 0 [a]",
        "verdict": "holds",
        "value": -0.23,
        "low": -0.25,
        "high": -0.2,
        "threshold": "within 10%",
        "expected": "two phases",
    },
    {"claim": "one phase", "verdict": "inconclusive", "value": None},
    {
        "claim": "convergence",
        "verdict": "holds",
        "value": 1e-12,
        "low": None,
        "high": None,
        "threshold": None,
    },
]

SUMMARY = {
    "patches": 10**12,
    "area_sizes": [[63095734448, 1], [3981, 235347072]],
    "information_gap": 0.5,
    "status": "stopped",
    "half_time": 1340.4,
    "half_time_se": 2.25,
    "phi_global_at_half_over_log_patches": -0.23,
    "loss_floor": None,
    "phases": [{"query": 0, "name": "decoupling", "start": 0.0, "end": 1200.0}],
    "claims": VERDICTS,
}


def test_simulation(shown):
    text = shown(show_simulation, SUMMARY)
    assert "10¹² patches, areas 63095734448, 235347072 x 3981" in text
    assert "half-attention time 1340 ± 2.2" in text
    assert "loss floor –" in text
    assert "0 decoupling 0 1200" in text
    assert "2 holds, 1 inconclusive" in text


def test_simulation_that_never_got_there(shown):
    nothing = {"information_gap": None, "half_time": None, "half_time_se": None, "phases": [], "claims": []}
    text = shown(show_simulation, {**SUMMARY, **nothing, "status": "horizon"})
    assert "half-attention time –" in text
    assert "decoupling" not in text
    assert "holds" not in text


def test_verdicts_of_one_run(shown):
    text = shown(show_verdicts, {"claims": VERDICTS[1:]})
    assert "claim measured threshold verdict" in text
    assert "one phase – inconclusive" in text
    assert "convergence 10⁻¹² holds" in text
    assert "expected" not in text


def test_verdicts_on_several_worlds_stand_below_their_claim(shown):
    expected = {"expected": "holds", "world": "Δ > 0 [a]"}
    records = [record | expected for record in VERDICTS]
    text = shown(show_verdicts, {"claims": records})
    assert "claim, and world measured threshold verdict" in text
    assert "two phases Δ > 0 [a] −0.23 [−0.25, −0.2] within 10% holds as expected" in text
    assert "one phase Δ > 0 [a] – inconclusive (not holds)" in text
    assert "2 holds, 1 inconclusive 2 of 3 as expected" in text


def test_exponents(shown):
    exponents = [
        {"quantity": "half_time", "slope": 0.7, "low": 0.68, "high": 0.72, "bound": 1.4, "predicted": 0.7},
        {"quantity": "final_stage", "slope": None, "low": None, "high": None, "bound": None},
    ]
    text = shown(show_exponents, {"exponents": exponents, "claims": VERDICTS[:1]})
    assert "half_time 0.7 [0.68, 0.72] 0.7 1.4" in text
    assert "final_stage – – –" in text
    assert "1 holds" in text


def test_gap(shown):
    photographs = [
        {
            "name": "coins",
            "patches": 196,
            "global_exponent": 0.9123,
            "local_exponent": 0.2,
            "information_gap": 0.6246,
            "mean_patch_gap": 0.5,
            "two_phase_share": 0.85,
        },
        {
            "name": "plain",
            "patches": 196,
            "global_exponent": 1.0,
            "local_exponent": None,
            "information_gap": None,
            "mean_patch_gap": None,
            "two_phase_share": None,
        },
    ]
    folder = {"photographs": 2, "local_patches": 110, "mean_patch_gap": 0.25, "two_phase_share": 0.75}
    text = shown(show_gap, {"photographs": photographs, "folder": folder})
    assert "coins 196 0.912 0.2 0.625 0.5 85%" in text
    assert "plain 196 1 – – – –" in text
    assert "all 2 0.25 75%" in text
    alone = {"photographs": 1, "local_patches": 0, "mean_patch_gap": None, "two_phase_share": None}
    assert "all" not in shown(show_gap, {"photographs": photographs[1:], "folder": alone})
