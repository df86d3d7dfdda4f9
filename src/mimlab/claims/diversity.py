"""Claims about the whole attention map of one run: how much it depends on the query (docs/diversity.md)."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.rows import PAPER, RowEvidence
from mimlab.statistics.bounds import nmi_lower_bound

LEAK = 0.05
"""What may be missing from the own area after training: see "area-wide attention"."""
NEAR = 0.1
LOST = {"nmi": 0.05, "diversity": 0.1}
ALIKE = 1e-9
"""Diversity of rows that a symmetry keeps alike: rounding."""


def areas_bound(area_sizes: Any, leak: float = 0.0) -> float:
    """The bound on NMI from areas, as [size, number] each."""
    sizes, counts = zip(*area_sizes, strict=True)
    return float(nmi_lower_bound(sizes, leak, counts=counts))


def _masked(row: RowEvidence) -> bool:
    return row.summary["objective"] == "masked" and bool(np.isfinite(row.columns["nmi"][-1]))


def _bound(row: RowEvidence) -> float:
    return areas_bound(row.summary["area_sizes"], LEAK)


def _nmi(row: RowEvidence) -> Measurement | None:
    if not _masked(row):
        return None
    if not _bound(row) > 0:
        return Measurement.missing("the areas are so few or so uneven that nothing follows from them")
    value, width = row.final("nmi")
    own = float(row.columns["nmi_bound"][-1])
    told = (
        f"NMI {row.columns['nmi'][0]:.3g} at the start, {value:.4g} at time {row.columns['time'][-1]:.3g}; "
        f"bound at the map's own attention {own:.4g}, without leak {areas_bound(row.summary['area_sizes']):.4g}"
    )
    return Measurement(value, value - width, value + width, told)


def _nmi_by_areas(row: RowEvidence) -> Measurement | None:
    if not _masked(row):
        return None
    expected = areas_bound(row.summary["area_sizes"])
    if not expected > 0:
        return Measurement.missing("there is one area")
    value, width = row.final("nmi")
    told = f"NMI {value:.4g}; (log P - mean log C_a)/log P = {expected:.4g}, log P = {log(row.summary['patches']):.4g}"
    return Measurement(value / expected, (value - width) / expected, (value + width) / expected, told)


def _lost(name: str, row: RowEvidence) -> Measurement | None:
    """Of rows that started apart: that they stay alike where they are is no finding, nor that little stays little."""
    if row.summary["objective"] != "contrastive" or not row.columns["diversity"][0] > ALIKE:
        return None
    start, (value, width) = float(row.columns[name][0]), row.final(name)
    told = f"{name} {start:.3g} at the start, {value:.3g} at time {row.columns['time'][-1]:.3g}"
    if start <= LOST[name]:
        return Measurement.missing(f"there was nothing to lose: {told}; start further apart")
    return Measurement(value, value - width, value + width, told)


def _nmi_lost(row: RowEvidence) -> Measurement | None:
    return _lost("nmi", row)


def _diversity_lost(row: RowEvidence) -> Measurement | None:
    return _lost("diversity", row)


MAP_CLAIMS: tuple[Claim[RowEvidence], ...] = (
    Claim(
        "NMI of a converged masked model",
        "After masked training attention depends on the query at least as much as the areas demand.",
        f"{PAPER}, attention after training; docs/diversity.md, Fano's inequality",
        "NMI of the whole map at the end",
        lambda row: Threshold(low=_bound(row)),
        _nmi,
        "≥ (log P - mean log C_a - h(ε) - ε log(n-1))/log P at ε = 0.05",
        'It follows where "area-wide attention" holds of every row: 0.95 on the own area. An earlier map can '
        "lie below.",
    ),
    Claim(
        "NMI by area sizes",
        "After masked training the sizes of the areas give NMI: 1 - κs for many patches.",
        "docs/diversity.md (own derivation: rows even over their areas)",
        "NMI at the end / (1 - mean log C_a/log P)",
        Threshold(low=1 - NEAR, high=1 + NEAR),
        _nmi_by_areas,
        "in [0.9, 1.1]",
        "A tenth: more than leaks of 0.01 take in these worlds. Areas of few patches may exceed it, where a "
        "query weighs itself apart.",
    ),
    Claim(
        "contrastive NMI",
        "After contrastive training from a random start in which the positions of an area start alike, "
        "attention hardly depends on the query.",
        f"{PAPER}, contrastive learning (its ICLR 2025 version); theory, section 6",
        "NMI of the whole map at the end",
        Threshold(high=LOST["nmi"]),
        _nmi_lost,
        "≤ 0.05",
        "What rows of 16 kinds with 0.95 on the global area can have at most, at P = 1000: (h(0.05) + 0.05 "
        "log 16)/log P. From Q = 0 all rows are alike by symmetry: nothing is then judged, nor where the start is "
        "already below. Where positions start apart it fails: each row ends on places of its own in the global area.",
    ),
    Claim(
        "contrastive diversity",
        "After contrastive training from a random start in which the positions of an area start alike, all "
        "queries attend to the same patches.",
        f"{PAPER}, contrastive learning (its ICLR 2025 version); theory, section 6",
        "diversity of the whole map at the end",
        Threshold(high=LOST["diversity"]),
        _diversity_lost,
        "≤ 0.1",
        "Masked training ends above 0.6 in the same worlds; a leak of 0.03 to one small area of its own in each "
        "row would exceed it.",
    ),
)
