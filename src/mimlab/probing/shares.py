"""Shares of a head's logit variance: position, content, and their products (theory, section 8).

Contents are moved: B random permutations π_b of an image's patches, item i at position π_b(i). s^b are the
logits then, rows the query positions, every row centred. What stays with (query position, key position) over
the permutations is PP, what stays with (query position, item at the key) is FP, and so on: for a re-indexing
R of the logits,

    T_R = mean over entries of ( |Σ_b R s^b|² - Σ_b |R s^b|² ) / (B(B-1))

estimates the mean square over entries of E[R s], the mean over permutations (docs/shares.md derives it).

Every T is unbiased where the permutations are independent and uniform and the logits a function of the
permutation alone (no dropout). A share is a ratio of two unbiased numbers, each from B permutations: its own
bias is of the order of their covariance, far below its spread. Estimates of a small share can be negative and
are never clipped: a clipped estimate would not average to the truth over images.

What would give wrong numbers: one permutation used twice (B copies of it read as if all were position and
content at once), permutations given as their inverses (position of item i is meant, not item at position
i), logits that miss their position bias or mask, prefix tokens left among the rows or columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mimlab.runs.errors import InputError
from mimlab.statistics.intervals import student_width

Array = NDArray[np.float64]

COMPONENTS = (
    *("key position", "key content", "PP", "FP"),
    *("query content x key position", "FF", "rest"),
)
"""Names of the shares, in the order in which they are listed; they add up to 1."""

INTERVALS_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("component", pa.string()),
        ("share", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)


def shares_of(logits: Any, permutations: Any, drop_self: bool = False) -> dict[str, float]:
    """Shares of one head's logit variance V = mean s², by name; they add up to 1.

    Parameters
    ----------
    logits
        (B, N, N): logits of query position p and key position q in sample b. Rows need not be centred.
    permutations
        (B, N) whole numbers: item i is at position permutations[b, i] in sample b.
    drop_self
        Leave out the entries in which a query meets its own token, and centre rows without them. In a trained
        network a token's match with itself is large, always at q = p and always of an item with itself, and
        would be read as PP and as FF.

    No unit. Each share but "rest" estimates a number in [0, 1] and may itself be a little below 0 or above 1;
    all are nan where V is 0 (uniform attention) or the logits are not finite. Raises InputError where the
    shapes disagree, there are fewer than 2 samples, too few patches, or a row that is no permutation.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> moved = np.array([rng.permutation(50) for _ in range(16)])
    >>> by_position, by_content = rng.normal(size=(2, 50, 50))
    >>> content = np.array([by_content[:, np.argsort(order)] for order in moved])
    >>> shares = shares_of(by_position + 2 * content, moved)
    >>> print(f"{shares['PP']:.2f} {shares['FP']:.2f} {shares['rest']:.2f}")
    0.19 0.78 0.01
    """
    s, order = np.asarray(logits, dtype=np.float64), checked_permutations(permutations, drop_self)
    B, N = order.shape
    if s.shape != (B, N, N):
        raise InputError(
            f"logits have shape {s.shape}; {B} permutations of {N} patches need ({B}, {N}, {N}), patches only"
        )
    present = ~np.eye(N, dtype=bool) if drop_self else np.ones((N, N), dtype=bool)
    if not np.isfinite(s).all():
        return dict.fromkeys(COMPONENTS, float("nan"))
    s = np.where(present, s - s.mean(axis=2, where=present, keepdims=True), 0.0)
    every = N / (N - 1) if drop_self else 1.0  # from a mean with the zeros left out to one without them

    key, query = order[:, None, :], order[:, :, None]
    pc = np.take_along_axis(s, key, axis=2)
    hq = np.take_along_axis(s, query, axis=1)
    hc = np.take_along_axis(pc, query, axis=1)
    q = every * s.mean(axis=1)
    # An entry of pc and hq is absent from a sample with probability 1/N, and from a pair as independent events.
    T = {
        "pq": every * _constant_part(s),
        "pc": every**2 * _constant_part(pc),
        "hq": every**2 * _constant_part(hq),
        "hc": every * _constant_part(hc),
        "q": _constant_part(q),
        "c": _constant_part(np.take_along_axis(q, order, axis=1)),
    }
    return {name: float(share) for name, share in shares_from(T, every * np.mean(s * s)).items()}


def _constant_part(samples: Array) -> Any:
    """T: mean over entries of the products of two different samples (axis 0), over all ordered pairs."""
    B = len(samples)
    return np.mean(samples.sum(axis=0) ** 2 - (samples**2).sum(axis=0)) / (B * (B - 1))


def shares_from(T: Mapping[str, Any], V: Any) -> dict[str, Array]:
    """Shares by name, in the order of COMPONENTS, from the six T and V; scalars or arrays of one shape."""
    parts = {
        "key position": T["q"],
        "key content": T["c"],
        "PP": T["pq"] - T["q"],
        "FP": T["pc"] - T["c"],
        "query content x key position": T["hq"] - T["q"],
        "FF": T["hc"] - T["c"],
    }
    whole = np.where(V > 0, V, np.nan)
    shares = {name: np.asarray(part / whole) for name, part in parts.items()}
    return shares | {"rest": np.asarray(1 - sum(shares.values()))}


def checked_permutations(permutations: Any, drop_self: bool) -> NDArray[np.int64]:
    """The permutations as an array (B, N); InputError where they are none, or too few or too short to estimate."""
    order = np.asarray(permutations)
    least = 3 if drop_self else 2
    if order.ndim != 2 or len(order) < 2 or order.shape[1] < least:
        raise InputError(
            f"permutations have shape {order.shape}; give (B, N), at least 2 permutations of {least} patches"
        )
    if not np.array_equal(np.sort(order, axis=1), np.broadcast_to(np.arange(order.shape[1]), order.shape)):
        raise InputError(f"a row of permutations does not hold each of 0 to {order.shape[1] - 1} once")
    return order.astype(np.int64)


def intervals(table: pa.Table, model: str) -> pa.Table:
    """Mean share over images with its 95% t interval, for each layer, head and component: INTERVALS_SCHEMA.

    `table` is what `mimlab.probing.permuted.logit_shares` gives; tables of several runs over different images
    may be joined first. The interval speaks of images like these: permutations are drawn anew for each image,
    so their scatter is part of it. With one image low and high are null; where a share is nan, so is its mean.
    """
    import pyarrow.compute as pc

    keys = ["layer", "module", "head", "component"]
    sample = pc.VarianceOptions(ddof=1)
    groups = table.group_by(keys, use_threads=False).aggregate(
        [("share", "mean"), ("share", "variance", sample), ("share", "count")]
    )
    images = groups["share_count"].to_numpy()
    variance = groups["share_variance"].to_numpy(zero_copy_only=False).astype(np.float64)
    width = student_width(variance, images)
    alone = images < 2
    mean = groups["share_mean"].to_numpy()
    columns = {
        "model": np.full(len(images), model),
        **{key: groups[key] for key in keys},
        "share": mean,
        "low": pa.array(mean - width, mask=alone),
        "high": pa.array(mean + width, mask=alone),
    }
    return pa.table(columns, schema=INTERVALS_SCHEMA)
