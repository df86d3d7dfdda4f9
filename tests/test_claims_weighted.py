"""Claims about the weighted sum: ladders where each must hold, must fail, and cannot be told; its job and figure."""

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mimlab import Latent, WeightedSum, World
from mimlab.claims.catalogue import judge_ladder
from mimlab.claims.weighted import LADDER_CLAIMS, LadderEvidence, balance
from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.report import draw_ladder
from mimlab.studies.weighted import EXPECTED, RUNGS_SCHEMA, climbed

from .claim_case import Case, Records, cases, check, check_all, name_of

ERROR = 0.001


def rungs(*ends: tuple[float, float], error: float | None = ERROR) -> list[dict[str, float | None]]:
    """Runs at w = 1, 2, 4, ... with attention on the own and on the global area at the end."""
    return [
        {
            "contrastive_weight": 2.0**place,
            "attention_own": own,
            "attention_own_se": error,
            "attention_global": everywhere,
            "attention_global_se": error,
        }
        for place, (own, everywhere) in enumerate(ends)
    ]


TIP = rungs((0.98, 0.01), (0.97, 0.01), (0.01, 0.98), (0.0, 0.99))
SHARED = rungs((0.95, 0.02), (0.8, 0.15), (0.55, 0.4), (0.3, 0.65), (0.05, 0.94))
ONE_SIDE = rungs((0.98, 0.01), (0.97, 0.02), (0.8, 0.15))
UNSURE = rungs((0.98, 0.01), (0.6, 0.35), (0.01, 0.98), error=None)


def ladder(
    rows: Sequence[dict[str, float | None]], halves: tuple[float | None, float | None], shares: float
) -> Callable[[], Records]:
    evidence = LadderEvidence(rows, halves, shares)
    return lambda: [verdict.as_dict() for verdict in judge_ladder(evidence)]


CASES = [
    *cases(
        "the weighted sum tips over",
        holds=("neighbouring weights on either side", ladder(TIP, (1.0, 3.0), 3.0)),
        fails=("three weights between 1 and 16 whose rows are on neither", ladder(SHARED, (1.0, 3.0), 3.0)),
        inconclusive=("the ladder ends below the global side", ladder(ONE_SIDE, (1.0, 3.0), 3.0)),
    ),
    *cases(
        "where the weighted sum tips over",
        holds=("between 2 and 4, half times 3 apart", ladder(TIP, (1.0, 3.0), 3.0)),
        fails=("between 2 and 4, half times 20 apart", ladder(TIP, (1.0, 20.0), 3.0)),
        inconclusive=("the contrastive objective never gets to a half", ladder(TIP, (1.0, None), 3.0)),
    ),
    *cases(
        "balance of the weighted sum",
        holds=("the lead changes between 4 and 8", ladder(SHARED, (1.0, 3.0), 5.0)),
        fails=("the same ladder beside a weight of 50", ladder(SHARED, (1.0, 3.0), 50.0)),
        inconclusive=("the errors of the ends are not known", ladder(UNSURE, (1.0, 3.0), 3.0)),
    ),
]


def test_no_claim_lacks_a_case():
    check_all(CASES, LADDER_CLAIMS)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case(case: Case):
    check(case)


def test_what_the_intervals_are():
    """Widths: from the rungs that surely are on neither side to those that surely are on one."""
    tip, place, shares = judge_ladder(LadderEvidence(SHARED, (2.0, 8.0), 4.0))
    assert (tip.measurement.low, tip.measurement.high) == (8 / 2, 16 / 1)
    assert (place.measurement.low, place.measurement.high) == (1 / 4, 16 / 4)
    assert (shares.measurement.low, shares.measurement.high) == (4 / 4, 8 / 4)
    assert shares.measurement.value == pytest.approx(2 ** (0.15 / 0.5))


@pytest.mark.parametrize("error", [0.0, 0.1, None])
def test_ends_near_the_level_are_on_neither_side_for_sure(error):
    rows = rungs((0.91, 0.05), (0.02, 0.97), error=error)
    verdict = judge_ladder(LadderEvidence(rows, (1.0, 1.0), 1.0))[0].verdict
    assert verdict == ("holds" if error == 0 else "inconclusive")


def test_a_lead_that_changes_twice_has_no_place():
    rows = rungs((0.95, 0.02), (0.3, 0.6), (0.6, 0.3), (0.02, 0.95))
    assert judge_ladder(LadderEvidence(rows, (1.0, 1.0), 2.0))[2].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("share", "mask_ratio", "clusters", "negatives"), [(0.5, 0.5, 4, 4), (0.2, 0.75, 2, 1)]
)
def test_the_balance_is_where_the_pulls_of_its_derivation_meet(share, mask_ratio, clusters, negatives):
    """Two areas, A_own = A_global = 1/2: 2γ A_1 = (w c/P) (s + (1-s) A_1)."""
    weight = balance(1000, round(1000 * share), mask_ratio, clusters, negatives)
    contrast = (1 - 1 / clusters) * negatives / (negatives + 1)
    pulls = 2 * mask_ratio * 0.5, weight * contrast / 1000 * (share + (1 - share) * 0.5)
    assert pulls[0] == pytest.approx(pulls[1], rel=1e-12)
    assert balance(1000, 500, 0.5, 1, 4) == inf


def test_a_ladder_is_climbed(tmp_path):
    """A small world: every file, every rung, the expectations of known claims."""
    (tmp_path / "figures").mkdir()
    world = World(area_sizes=(12, 4, 4, 4), clusters=2, latent=Latent(low=0.5, high=1.5))
    dynamics = Dynamics(engine="mean-field", integrator="descent", draws=64, learning_rate=0.25, steps=12)
    outcome = climbed(SimulationConfig(world, WeightedSum(negatives=2), dynamics), (1.0, 500.0), tmp_path)
    table = pq.read_table(tmp_path / "worlds/weighted-sum/rungs.parquet")
    assert table.schema == RUNGS_SCHEMA
    assert table["contrastive_weight"].to_pylist() == [1.0, 500.0]
    assert np.diff(table["attention_global"].to_numpy())[0] > 0.2
    assert [record["claim"] for record in outcome.verdicts] == [claim.name for claim in LADDER_CLAIMS]
    assert set(EXPECTED) <= {claim.name for claim in LADDER_CLAIMS}
    assert len(outcome.statuses) == 4
    assert (tmp_path / outcome.figures["ladder"][0]).exists()
    assert "--contrastive-weight 500.0" in outcome.verdicts[0]["command"]


def test_the_figure_shows_both_areas_and_tells_them(tmp_path):
    figure = draw_ladder(SHARED, tmp_path / "l.png", 3.0)
    (axes,) = figure.axes
    drawn = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in axes.containers}
    assert drawn == {"own area": [0.95, 0.8, 0.55, 0.3, 0.05], "global area": [0.02, 0.15, 0.4, 0.65, 0.94]}
    with Image.open(tmp_path / "l.png") as image:
        told = image.info["Description"]
    assert "0.55 at 4" in told and "equal shares at 3" in told


def test_the_figure_takes_what_is_not_known(tmp_path):
    missing = [dict(rungs((0.5, 0.4), error=None)[0], attention_own=None)]
    draw_ladder(missing, tmp_path / "m.png")
    assert draw_ladder([], tmp_path / "e.png").axes[0].texts[0].get_text() == "no runs"
