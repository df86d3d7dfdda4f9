"""Records of runs of pretraining, drawn from a seed: what `mimlab.claims.training` judges, without a network."""

import math
import random
from functools import cache

import numpy as np

from mimlab.claims.training import TrainingEvidence

MASKED, OTHERS, AFTER = "simmim", ("simclr", "supervised"), "simclr-after-simmim"
LAYERS, STEPS = 3, (0, 10, 40, 150, 600, 1000)
AFTER_STEPS = (400, 900)
"""A run may start from where another ended: its own first step is its start."""
UNIFORM = {"nmi": 0.0, "diversity": 0.0, "distance_ratio": 1.0}


@cache
def evidence_of(signs, seed=0, chance=0.01, noise=0.02):
    """A table of every kind, in no order. signs: of each seed, +1 where everything goes as the claims say, else -1.

    chance: how far attention starts from uniform. Beside the runs that are judged there is one that is not, whose
    values would change every number.
    """
    draws = np.random.default_rng(seed)
    looks, evaluations, shares, photographs = [], [], [], []

    def wobble(size):
        return size * draws.uniform(-1, 1)

    for place, sign in enumerate(signs):
        for run in (MASKED, *OTHERS, "stranger"):
            ahead = 0.15 * sign if run == MASKED else 0.0
            ends = {"nmi": 0.4 + ahead, "diversity": 0.5 + ahead, "distance_ratio": 0.7 - ahead}
            for layer in range(LAYERS):
                middle = 4 + sign * 0.8 * (layer - 1) + wobble(0.1)
                for statistic, end in ends.items():
                    end, start = end + wobble(noise), UNIFORM[statistic] + wobble(chance)
                    for step in STEPS:
                        risen = 1 / (1 + math.exp(-3 * (math.log1p(step) - middle))) if step else 0.0
                        value = 5.0 if run == "stranger" else start + (end - start) * risen
                        looks.append(look(run, place, step, layer, statistic, value))
                for step in STEPS:
                    looks.append(look(run, place, step, layer, "positional_nmi", 9 + wobble(1)))
                    high = 7.0 if step < STEPS[-1] else 0.3 + 0.1 * sign + wobble(noise)
                    low = -7.0 if step < STEPS[-1] else 0.3 + wobble(noise)
                    for component, share in (
                        ("FP", high),
                        ("PP", low),
                        ("FF", wobble(9)),
                        ("rest", wobble(9)),
                    ):
                        kept = {"run": run, "seed": place, "step": step, "layer": layer}
                        shares.append({**kept, "component": component, "share": share})
            for step in STEPS:
                record = {"run": run, "seed": place, "step": step, "chance": 0.1, "linear": wobble(1)}
                record["knn"] = 0.3 + wobble(noise) + (0.1 * sign if step == STEPS[-1] else 0)
                if run == MASKED:
                    image_mean, nearest = 1 + wobble(0.3), 1 + wobble(0.3)
                    better = min(image_mean, nearest) * math.exp(-0.3 * sign + wobble(noise))
                    record |= {"image_mean": image_mean, "nearest_patch": nearest, "model": better}
                evaluations.append(record)
        for layer in range(LAYERS):
            for statistic in UNIFORM:
                start = 0.4 + wobble(noise)
                for step, value in zip(
                    AFTER_STEPS, (start, start - 0.15 * sign + wobble(noise)), strict=True
                ):
                    looks.append(look(AFTER, place, step, layer, statistic, value))
        for number in range(8):
            gap = -0.3 + 0.1 * number
            for run, slope in ((MASKED, -sign), (OTHERS[0], 5), ("stranger", 5)):
                kept = {"photograph": f"p{number}", "gap": gap, "run": run, "seed": place}
                photographs.append({**kept, "distance_ratio": 1 + 0.3 * slope * gap + wobble(0.06)})
    tables = (looks, evaluations, shares, photographs)
    for number, table in enumerate(tables):
        random.Random(number).shuffle(table)
    return TrainingEvidence(*tables)


def look(run, seed, step, layer, statistic, value):
    return {"run": run, "seed": seed, "step": step, "layer": layer, "statistic": statistic, "value": value}
