"""Each statement of the theory as an object: source, measurement, threshold, evidence, verdict. Runs nothing."""

from mimlab.claims.catalogue import (
    judge,
    judge_agreement,
    judge_grid,
    judge_networks,
    judge_points,
    judge_survey,
    judge_training,
)
from mimlab.claims.claim import Claim, Measurement, Threshold, Verdict

__all__ = [
    "Claim",
    "Measurement",
    "Threshold",
    "Verdict",
    "judge",
    "judge_agreement",
    "judge_grid",
    "judge_networks",
    "judge_points",
    "judge_survey",
    "judge_training",
]
