"""The claim on the logits' shares, which only the dense engine can measure: where it holds, fails and cannot tell.

Worlds are chosen by the theory, and `why` says by what of it; none is tuned.
"""

import pytest

pytest.importorskip("torch")

from mimlab import Latent, World, judge, simulate

CLAIM = "features exceed positions"
RUN = {"engine": "dense", "integrator": "descent", "learning_rate": 1.0, "steps": 60, "draws": 32}
CASES = [
    (
        "holds",
        World(area_sizes=(12, 12)),
        "Υ ≈ Φ/(C_a - 1) = Φ/11 on 11 positions, against Φ on the visible quarter",
    ),
    (
        "fails",
        World(area_sizes=(2,) * 6),
        "Υ ≈ Φ on the one other position of the area, always; Φ itself only in the quarter of images that shows it",
    ),
    (
        "inconclusive",
        World(area_sizes=(4, 4, 4), latent=Latent(values=(0.0,) * 200 + (4.0,))),
        "one latent in 200 is not 0: FP lies in a handful of 512 images, so that its mean is hardly known",
    ),
]


@pytest.mark.parametrize(("verdict", "world", "why"), CASES, ids=[case[0] for case in CASES])
def test_case(verdict, world, why):
    run = simulate(world, **RUN)
    (found,) = [c for c in run.summary["claims"] if c["claim"] == CLAIM]
    assert found["verdict"] == verdict, (
        f"{found['value']} in [{found['low']}, {found['high']}]; expected as {why}"
    )


def test_nothing_learned_is_no_share():
    run = simulate(World(area_sizes=(4, 4)), **RUN | {"steps": 1})
    nothing = run.summary | {"fp_share": None, "pp_share_se": None}
    (found,) = [v for v in judge(run.trajectory, nothing) if v.claim.name == CLAIM]
    assert found.verdict == "inconclusive" and "nothing was learned" in found.measurement.evidence


def test_a_network_of_zeros_has_no_share():
    """Latents of a thousandth and a learning rate of 1e-290: Q's squares are below the least number."""
    tiny = RUN | {"learning_rate": 1e-290, "steps": 1}
    summary = simulate(World(area_sizes=(4, 4), latent=Latent(low=1e-3, high=1e-3)), **tiny).summary
    assert [summary[key] for key in ("fp_share", "pp_share", "pp_share_se")] == [None] * 3
