"""Every claim, and how tables are judged by all of them. The thresholds stand in docs/claims.md as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from mimlab.claims.claim import Claim, Evidence, Verdict
from mimlab.claims.contrastive import CONTRASTIVE_CLAIMS, CONTRASTIVE_SERIES_CLAIMS
from mimlab.claims.diversity import MAP_CLAIMS
from mimlab.claims.grids import GRID_CLAIMS, GridEvidence
from mimlab.claims.in_context import COPYING_CLAIMS, IN_CONTEXT_CLAIMS
from mimlab.claims.networks import AGREEMENT_CLAIMS, NETWORK_CLAIMS, AgreementEvidence, NetworkEvidence
from mimlab.claims.points import POINT_CLAIMS, PointsEvidence
from mimlab.claims.rates import RATE_CLAIMS
from mimlab.claims.rows import ROW_CLAIMS, RowEvidence
from mimlab.claims.surveys import SURVEY_CLAIMS, SurveyEvidence
from mimlab.claims.training import TRAINING_CLAIMS, TrainingEvidence
from mimlab.claims.weighted import LADDER_CLAIMS, LadderEvidence

CLAIMS: tuple[Claim[Any], ...] = (
    *ROW_CLAIMS,
    *CONTRASTIVE_CLAIMS,
    *COPYING_CLAIMS,
    *LADDER_CLAIMS,
    *MAP_CLAIMS,
    *POINT_CLAIMS,
    *RATE_CLAIMS,
    *CONTRASTIVE_SERIES_CLAIMS,
    *GRID_CLAIMS,
    *SURVEY_CLAIMS,
    *NETWORK_CLAIMS,
    *AGREEMENT_CLAIMS,
    *TRAINING_CLAIMS,
)


def judge(trajectory: pa.Table, summary: Mapping[str, Any]) -> list[Verdict]:
    """Verdicts on one run, from its trajectory table and its summary; every claim that speaks of a row under its
    objective, for every query, in order, and then those of the whole map, where it is known. An unfinished run is
    judged as far as it went.

    >>> import mimlab
    >>> run = mimlab.simulate(mimlab.World(area_sizes=(40, 20, 20, 20)), engine="mean-field")
    >>> [v.verdict for v in judge(run.trajectory, run.summary) if v.claim.name == "area-wide attention"]
    ['holds']
    """
    query = np.asarray(trajectory["query"])
    numbers = {name: np.asarray(trajectory[name].to_numpy(), dtype=float) for name in trajectory.column_names}
    rows = []
    for facts in summary["queries"]:
        here = query == facts["query"]
        rows.append(RowEvidence({name: values[here] for name, values in numbers.items()}, summary, facts))
    claims = claims_of_rows(summary["objective"])
    verdicts = [
        replace(verdict, query=row.facts["query"]) for row in rows for verdict in _judged(claims, row)
    ]
    return verdicts + _judged(MAP_CLAIMS, rows[0])  # whose columns of the whole map are those of all


def claims_of_rows(objective: str) -> tuple[Claim[RowEvidence], ...]:
    """The claims about a row under an objective, by its name."""
    special = {"contrastive": CONTRASTIVE_CLAIMS, "in-context": IN_CONTEXT_CLAIMS, "weighted": ()}
    return special.get(objective, ROW_CLAIMS)


def judge_points(evidence: PointsEvidence) -> list[Verdict]:
    """Verdicts on a series of runs."""
    return _judged((*POINT_CLAIMS, *CONTRASTIVE_SERIES_CLAIMS, *RATE_CLAIMS), evidence)


def judge_grid(evidence: GridEvidence) -> list[Verdict]:
    """Verdicts on many worlds together."""
    return _judged(GRID_CLAIMS, evidence)


def judge_ladder(evidence: LadderEvidence) -> list[Verdict]:
    """Verdicts on runs that differ in the weight of the contrastive objective."""
    return _judged(LADDER_CLAIMS, evidence)


def judge_survey(evidence: SurveyEvidence) -> list[Verdict]:
    """Verdicts on many queries of photographs."""
    return _judged(SURVEY_CLAIMS, evidence)


def judge_networks(evidence: NetworkEvidence) -> list[Verdict]:
    """Verdicts on pretrained networks, one for each statistic of diversity."""
    return _judged(NETWORK_CLAIMS, evidence)


def judge_agreement(evidence: AgreementEvidence) -> list[Verdict]:
    """Verdict on the probe itself."""
    return _judged(AGREEMENT_CLAIMS, evidence)


def judge_training(evidence: TrainingEvidence) -> list[Verdict]:
    """Verdicts on pretraining over several seeds."""
    return _judged(TRAINING_CLAIMS, evidence)


def _judged(claims: Iterable[Claim[Evidence]], evidence: Evidence) -> list[Verdict]:
    """Verdicts of those claims that speak of the evidence."""
    return [verdict for claim in claims if (verdict := claim.judge(evidence)) is not None]


def thresholds_table() -> str:
    """The table of docs/claims.md: claim, quantity, threshold, reason, source."""
    lines = ["| claim | quantity | holds where | why there | source |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        quantity = claim.quantity.replace("|", "\\|")
        lines.append(f"| {claim.name} | {quantity} | {claim.rule} | {claim.reason} | {claim.source} |")
    return "\n".join(lines) + "\n"
