"""Pretraining runs made of real attention, nearly uniform at the start and sharper with every step."""

from functools import cache

import numpy as np
import pyarrow as pa

from mimlab import statistics
from mimlab.probing.layout import Layout
from mimlab.probing.shares import COMPONENTS
from mimlab.report.pretrain_tables import PretrainRun

LAYOUT = Layout((4, 4), prefix=1, patch_size=(4, 4))
LAYERS, HEADS, CROPS, QUERY = 2, 2, 3, 5
STEPS = (0, 1, 2, 4, 8, 16, 32)
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def attention(layer, head, step, sharp):
    """Nearly uniform at the start, sharper with every step, more so in the first layer."""
    draws = np.random.default_rng([layer, head]).normal(size=(CROPS, LAYOUT.patches, LAYOUT.patches))
    weights = np.exp(sharp * (0.01 + np.log1p(step)) / (1 + layer) * draws)
    return weights / weights.sum(-1, keepdims=True)


@cache
def statistics_table(sharp=0.5, steps=STEPS):
    rows = []
    for step in steps:
        for layer in range(LAYERS):
            for head in range(HEADS):
                maps = attention(layer, head, step, sharp)
                distance = statistics.distance(maps, LAYOUT.positions()).mean()
                values = {
                    **{"distance": distance, "distance_ratio": distance / LAYOUT.uniform_distance()},
                    **{
                        name: getattr(statistics, name)(maps).mean()
                        for name in ("entropy", "information", "nmi", "diversity", "spread")
                    },
                    "mean_row_entropy": statistics.row_entropy(
                        np.broadcast_to(maps.mean(1, keepdims=True), maps.shape)
                    ).mean(),
                    "prefix_mass": 1 / 17,
                    "positional_nmi": float(statistics.nmi(maps.mean(0))),
                }
                where = {"step": step, "layer": layer, "module": f"layers.{layer}", "head": head}
                rows += [where | {"statistic": name, "value": float(one)} for name, one in values.items()]
        outputs = {
            "cls_deviation": 0.2,
            "mean_deviation": 0.3 + step / 100,
            "cls_rank": 2,
            "mean_rank": 3 + step,
        }
        rows += [
            {
                "step": step,
                "layer": None,
                "module": None,
                "head": None,
                "statistic": name,
                "value": float(one),
            }
            for name, one in outputs.items()
        ]
    return pa.Table.from_pylist(rows)


@cache
def maps_table(sharp=0.5, steps=STEPS, query=QUERY):
    return pa.Table.from_pylist(
        [
            {"step": step, "layer": layer, "query": query, "patch": patch, "value": float(one)}
            for step in steps
            for layer in range(LAYERS)
            for patch, one in enumerate(
                np.mean([attention(layer, h, step, sharp)[0, query] for h in range(HEADS)], 0)
            )
        ]
    )


@cache
def shares_table(steps=(0, 4, 32)):
    """Shares that add up to 1, other in every layer and head and at every step, with wider and narrower intervals."""
    rows = []
    for step in steps:
        for layer in range(LAYERS):
            for head in range(HEADS):
                draws = np.random.default_rng([step, layer, head])
                for name, share in zip(COMPONENTS, draws.dirichlet(np.ones(len(COMPONENTS))), strict=True):
                    width = draws.random() / 10
                    where = {"step": step, "layer": layer, "module": f"layers.{layer}", "head": head}
                    value = {"share": share, "low": share - width, "high": share + width}
                    rows.append(where | {"component": name} | value)
    return pa.Table.from_pylist(rows)


def log_of(steps=32):
    return [
        {"step": n, "loss": 1 / n + 0.1, "lr": 1e-3 * min(n / 4, 1 - n / 40)} for n in range(1, steps + 1)
    ]


def summary(**change):
    record = {"grid": [4, 4], "prefix": 1, "patch_size": [4.0, 4.0], "windows": 1, "heads": HEADS}
    guesses = {"chance": 0.077, "image_mean": 0.36, "nearest_patch": 0.19}
    evaluation = [
        guesses | {"step": step, "knn": knn, "linear": 0.3, "model": loss}
        for step, knn, loss in ((0, 0.25, 1.36), (8, 0.27, 0.6), (32, 0.39, 0.15))
    ]
    return {
        **{"status": "finished", "objective": "simmim", "start": None, "seed": 3, "step": 32, "steps": 32},
        **{"images": "13 photographs", "held_out": "3 photographs", "crops": CROPS, "parameters": 123456},
        **{"layers": [{"layer": n, "module": f"layers.{n}", **record} for n in range(LAYERS)]},
        **{"evaluation": evaluation, "alarms": [], "warnings": [], "command": "mimlab pretrain --out run"},
        **{"seconds": 12.5, "images_per_second": 170.0, "versions": {"mimlab": "0", "torch": "2"}},
        **change,
    }


def run_of(name="simmim", sharp=0.5, query=QUERY, picture=PICTURE, **change):
    maps = maps_table(sharp, query=query)
    return PretrainRun(name, summary(**change), statistics_table(sharp), maps, picture, shares_table())
