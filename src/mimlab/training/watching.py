"""What attention and outputs do while a network trains: measured on one fixed held-out batch, and an alarm.

Of attention: the `core` statistics of theory, section 7, per layer and head, means over the images of the batch, and
the same statistics of the map averaged over those images (the positional part). Of outputs, one vector an image: their
deviation and their effective rank, for the CLS token ("cls_...") and for the mean over patches ("mean_..."). Of logits:
the shares of theory, section 8, for some images of the batch with their patches permuted.

Values of one batch are comparable among themselves alone: another batch, another number of images (the positional
part averages over them) or another image size in one curve would look like training. Autocast is off, so that a
network that trains in bfloat16 is measured in the precision of its weights.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.callbacks import undisturbed
from mimlab.probing.capture import capture
from mimlab.probing.catalogue import CATALOGUE, CORE
from mimlab.probing.collapse import COLLAPSED, DIVERSE, FALL, Falls
from mimlab.probing.layout import Layout
from mimlab.probing.permuted import logit_shares
from mimlab.probing.shares import intervals
from mimlab.probing.watch import watch
from mimlab.runs.errors import InputError
from mimlab.statistics.terms import effective_rank_of

STATISTICS = (*CORE, *(f"positional_{name}" for name in CORE if f"positional_{name}" in CATALOGUE))
OUTPUTS = ("cls_deviation", "cls_rank", "mean_deviation", "mean_rank")

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("statistic", pa.string()),
        ("value", pa.float64()),
    ]
)
"""A row per step, layer, head and statistic; of `OUTPUTS` a row per step, with neither layer nor head."""

MAPS_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("layer", pa.int64()),
        ("query", pa.int64()),
        ("patch", pa.int64()),
        ("value", pa.float64()),
    ]
)
"""Weight of one query patch on each patch, mean over heads; queries and patches are counted row by row from 0."""

SHARES_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("component", pa.string()),
        ("share", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
"""A row per step, layer, head and component of `mimlab.probing.shares.COMPONENTS`: the mean over images, and its 95%
interval."""

WATCHED = {
    "nmi": (FALL, DIVERSE),
    "cls_deviation": (COLLAPSED, 0.0),
    "mean_deviation": (COLLAPSED, 0.0),
}
"""What gives alarms: below which share of the largest value, and how large that must have been."""


@dataclass(frozen=True)
class Alarm:
    """What fell: `statistic` of `layer` (from 0; None for outputs) is `value` at `step` and was `was` before."""

    step: int
    layer: int | None
    statistic: str
    value: float
    was: float

    def __str__(self) -> str:
        if self.layer is None:
            kind = "CLS outputs" if self.statistic == "cls_deviation" else "mean outputs"
            return (
                f"step {self.step}: the {kind} of different images are nearly alike: their deviation is "
                f"{self.value:.2g} and was {self.was:.2g}, as in a collapse"
            )
        return (
            f"step {self.step}: NMI at depth {self.layer + 1} is {self.value:.2g} and was {self.was:.2g}: its queries "
            "come to attend alike, as in a collapse"
        )


class Watching:
    """A fixed batch, and what an objective's encoder makes of it.

    batch: held-out crops (B, 3, s, s), at least two, as the encoder takes them. The same tensor for a whole run.
    """

    def __init__(self, batch: Tensor) -> None:
        if batch.ndim != 4 or len(batch) < 2:
            raise InputError(
                f"watching needs at least two images (B, 3, s, s) to look at, not {tuple(batch.shape)}"
            )
        self.batch = batch.detach().clone()
        self.layers: list[dict[str, Any]] = []
        """Of each layer, once it was observed: layer, module, heads, grid, prefix, patch_size, windows."""

    def observe(self, objective: nn.Module, step: int) -> pa.Table:
        """Measure now: rows of `SCHEMA`. Weights, gradients, training flags and random state stay as they are.

        objective: has the transformer to watch as `encoder`, which takes pixel_values and gives last_hidden_state.
        """
        encoder: Any = objective.encoder
        with _at_rest(encoder, self.batch) as pixels, capture(encoder, STATISTICS) as found:
            hidden = encoder(pixel_values=pixels).last_hidden_state
        heads = [int(np.isfinite(row).sum()) for row in found["prefix_mass"][0]]
        self.layers = [
            {"layer": place, "module": module, "heads": count, **_plain(layout)}
            for place, (module, layout, count) in enumerate(
                zip(found.layers, found.layouts, heads, strict=True)
            )
        ]
        keys = ["layer", "module", "head", "statistic"]
        means = found.table.group_by(keys, use_threads=False).aggregate([("value", "mean")])
        attention = {key: means[key] for key in keys} | {"value": means["value_mean"]}
        of_outputs = _outputs(hidden, found.layouts[-1].prefix)
        outputs: dict[str, Any] = dict.fromkeys(("layer", "module", "head"), [None] * len(of_outputs))
        outputs |= {"statistic": list(of_outputs), "value": list(of_outputs.values())}
        parts = [
            pa.table({"step": [step] * len(part["value"]), **part}, schema=SCHEMA)
            for part in (attention, outputs)
        ]
        return pa.concat_tables(parts)

    def query_maps(self, objective: nn.Module, step: int, query: int, image: int = 0) -> pa.Table:
        """Where one query patch of one image of the batch attends in every layer: rows of `MAPS_SCHEMA`."""
        encoder: Any = objective.encoder
        weights: list[Tensor] = []

        def look(attention: Attention) -> None:
            row = attention.layout.prefix + query
            logits = attention.logits(slice(0, 1), slice(row, row + 1))[0, :, 0, attention.layout.prefix :]
            weights.append(logits.double().softmax(-1).mean(0).cpu())

        with _at_rest(encoder, self.batch[image : image + 1]) as pixels, watch(encoder, look):
            encoder(pixel_values=pixels)
        values = torch.stack(weights).numpy()
        layer, patch = np.indices(values.shape).reshape(2, -1)
        fixed = {"step": np.full(values.size, step), "query": np.full(values.size, query)}
        return pa.table(
            {**fixed, "layer": layer, "patch": patch, "value": values.ravel()}, schema=MAPS_SCHEMA
        )

    def shares(self, objective: nn.Module, step: int, images: int, permutations: int) -> pa.Table:
        """Shares of logit variance over the first `images` of the batch, each permuted so often: `SHARES_SCHEMA`.

        The permutations are the same at every step, so that steps differ by what was learned between them.
        """
        encoder: Any = objective.encoder
        with _at_rest(encoder, self.batch[:images]) as pixels:
            found = logit_shares(
                encoder,
                pixels,
                permutations=permutations,
                seed=0,
                forward=lambda one: encoder(pixel_values=one),
            )
        means = intervals(found, "").drop_columns("model")
        return means.add_column(0, "step", pa.array([step] * len(means), pa.int64())).cast(SHARES_SCHEMA)


def find_alarms(table: pa.Table, falls: Falls | None = None) -> list[Alarm]:
    """Alarms in rows of `SCHEMA`, in order of steps, then layers: falls of a layer's NMI, mean over heads, and of the
    outputs' deviation, as `mimlab.probing.collapse` has them.

    falls: of the steps before these, to go on from; it takes in these steps, so that a run is read look by look. None:
    the table begins with the run's first step.
    """
    known = Falls() if falls is None else falls
    chosen = table.filter(pc.field("statistic").isin(list(WATCHED)))
    means = chosen.group_by(["step", "layer", "statistic"], use_threads=False).aggregate([("value", "mean")])
    found: list[Alarm] = []
    for row in means.sort_by([(key, "ascending") for key in ("step", "layer", "statistic")]).to_pylist():
        layer, statistic, value = row["layer"], row["statistic"], row["value_mean"]
        was = known.of((layer, statistic), value, *WATCHED[statistic])
        if was is not None:
            found.append(Alarm(row["step"], layer, statistic, value, was))
    return found


def deviation(outputs: Tensor) -> float:
    """How far the directions of vectors (n, dim) differ, as a share of what evenly spread ones have; from 0 up.

    Root mean square over dimensions of the standard deviation of x/‖x‖ over the n vectors, times sqrt(dim): 1 where
    directions cancel, as they do spread evenly over the sphere; 0 where all are one direction.

    >>> deviation(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])), deviation(torch.ones(5, 3))
    (1.0, 0.0)
    """
    directions = nn.functional.normalize(outputs.double(), dim=-1)
    return float((directions - directions.mean(0)).square().sum(-1).mean().sqrt())


def effective_rank(outputs: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the vectors' directions (n, dim), from 1 to min(n, dim).

    The mean is not taken out, as in RankMe (Garrido et al. 2023): equal vectors then have rank 1. nan where a vector
    is not finite.

    >>> round(effective_rank(torch.eye(4)), 6), round(effective_rank(torch.ones(4, 3)), 3)
    (4.0, 1.0)
    """
    directions = nn.functional.normalize(outputs.double(), dim=-1)
    if not bool(directions.isfinite().all()):
        return math.nan
    return float(effective_rank_of(torch.linalg.svdvals(directions)))


def _outputs(hidden: Tensor, prefix: int) -> dict[str, float]:
    """The statistics of outputs from hidden states (B, tokens, dim); of CLS only where there is a prefix."""
    vectors = {"cls": hidden[:, 0]} if prefix else {}
    vectors["mean"] = hidden[:, prefix:].mean(1)
    values: dict[str, float] = {}
    for name, one in vectors.items():
        values |= {f"{name}_deviation": deviation(one), f"{name}_rank": effective_rank(one)}
    return values


@contextmanager
def _at_rest(encoder: nn.Module, batch: Tensor) -> Iterator[Tensor]:
    """The batch where the encoder is and in its type, the encoder undisturbed meanwhile."""
    like = next(encoder.parameters())
    with undisturbed(encoder, like.device):
        yield batch.to(like.device, like.dtype)


def _plain(layout: Layout) -> dict[str, Any]:
    return {
        "grid": list(layout.grid),
        "prefix": layout.prefix,
        "patch_size": list(layout.patch_size),
        "windows": layout.windows,
    }
