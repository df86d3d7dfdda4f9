"""Claims about one row of one run (theory, section 5): measured on trajectory.parquet and summary.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.fits import SIGMAS, fit_line

Array = np.ndarray
EXACT = ("enumerated", "mean-field")  # engines without sampling error
PAPER = "Huang et al., arXiv 2403.02233"


@dataclass(frozen=True, eq=False)
class RowEvidence:
    """One query's rows of the trajectory, as arrays by column, the summary, and the summary's entry for the query."""

    columns: Mapping[str, Array]
    summary: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def is_local(self) -> bool:
        return bool(self.facts["area"] != 0)

    @property
    def constant_latent(self) -> bool:
        low, high = self.summary["latent"]
        return bool(low == high)

    def error(self, name: str) -> Array:
        """Half width of the 95% interval of a column: 0 for an engine without sampling error, nan where the error is
        not known, so that nothing is concluded from it."""
        error = self.columns[f"{name}_se"]
        if self.summary["engine"] in EXACT and self.summary["objective"] == "masked":
            return np.zeros(len(error))
        width: Array = SIGMAS * error
        return width

    def final(self, name: str) -> tuple[float, float]:
        """Last value of a column and the half width of its interval."""
        return float(self.columns[name][-1]), float(self.error(name)[-1])


def _convergence(row: RowEvidence) -> Measurement | None:
    start = float(row.columns["excess_loss"][0])
    if not start > 0:
        return Measurement.missing("the loss starts at its floor")
    value, width = row.final("excess_loss")
    when = f"excess loss {start:.3g} at the start, {value:.3g} at time {row.columns['time'][-1]:.3g}"
    return Measurement(value / start, (value - width) / start, (value + width) / start, when)


def _attention(row: RowEvidence) -> Measurement | None:
    value, width = row.final("attention_own")
    if np.isnan(value):
        return Measurement.missing("the query's area is wholly masked whenever the query is")
    start = float(row.columns["attention_own"][0])
    return Measurement(
        value, value - width, value + width, f"attention on the own area rose from {start:.3g} to {value:.4g}"
    )


def _position(row: RowEvidence) -> Measurement | None:
    upsilon, width_upsilon = row.final("upsilon_max")
    phi, width_phi = row.final("phi_own")
    if not phi > 0:
        return Measurement.missing("the target feature was not learned")
    relative = width_upsilon / max(upsilon, 1e-300) + width_phi / phi
    value = upsilon / phi
    predicted = 1 / (row.facts["area_size"] - 1) if row.facts["area_size"] > 1 else np.inf
    words = f"largest |Υ| {upsilon:.3g} beside Φ {phi:.3g}; theory for z = 1: 1/(C_a - 1) = {predicted:.3g}"
    return Measurement(value, value * (1 - relative), value * (1 + relative), words)


def _features(row: RowEvidence) -> Measurement | None:
    summary = row.summary
    if summary["engine"] != "dense" or row.facts["query"] != summary["queries"][0]["query"]:
        return None  # the share is of all rows together: one verdict a run
    share, error = summary["fp_share"], summary["pp_share_se"]
    if share is None:
        return Measurement.missing("nothing was learned: the logits do not vary")
    width = np.nan if error is None else SIGMAS * error
    words = f"of the logits' variance over the keys {share:.3g} is feature-position, {1 - share:.3g} position-position"
    return Measurement(share, share - width, share + width, words)


def _first_rates(row: RowEvidence) -> Measurement:
    time = row.columns["time"]
    own, everywhere = (row.columns[name] - row.columns[name][0] for name in ("phi_own", "phi_global"))
    moved = np.flatnonzero(own > 0)
    if not len(moved) or len(time) < 3:
        return Measurement.missing("the target feature never moved")
    at = int(moved[0])
    fall, rise = -float(everywhere[at]), float(own[at])
    width = abs(fall / rise) * float(
        row.error("phi_global")[at] / max(abs(fall), 1e-300) + row.error("phi_own")[at] / rise
    )
    names = [p["name"] for p in row.summary["phases"] if p["query"] == row.facts["query"]]
    words = f"Δ_p = {row.facts['patch_gap']:.3f}; phases found: {', '.join(names) or 'none'}"
    return Measurement(fall / rise, fall / rise - width, fall / rise + width, words)


def _two_phases(row: RowEvidence) -> Measurement | None:
    if not (row.is_local and row.facts["patch_gap"] > 0):
        return None
    found = [p["name"] for p in row.summary["phases"] if p["query"] == row.facts["query"]]
    if found == ["decoupling"]:
        return Measurement.missing("the run ended while the row was still decoupling")
    return _first_rates(row)


def _one_phase(row: RowEvidence) -> Measurement | None:
    return _first_rates(row) if row.is_local and row.facts["patch_gap"] < 0 else None


def _phi_global_at_half(row: RowEvidence) -> tuple[float, float] | Measurement:
    """Phi of the global area at half attention and the half width of its interval."""
    if row.facts["half_time"] is None:
        return Measurement.missing("half attention was never reached")
    at = int(np.argmin(np.abs(row.columns["time"] - row.facts["half_time"])))
    return float(row.facts["phi_global_at_half"]), float(row.error("phi_global")[at])


def _plateau_formula(row: RowEvidence) -> Measurement | None:
    if not (row.is_local and row.facts["patch_gap"] > 0 and row.constant_latent):
        return None
    found = _phi_global_at_half(row)
    if isinstance(found, Measurement):
        return found
    phi, width = found
    predicted = row.facts["predicted_phi_global_at_half"] / row.summary["latent_mean"]
    words = f"Φ_global = {phi:.3f} at half attention; formula {predicted:.3f}; -Δ_p/2 log P = {_half_gap(row):.3f}"
    return Measurement(phi / predicted, (phi + width) / predicted, (phi - width) / predicted, words)


def _half_gap(row: RowEvidence) -> float:
    return -0.5 * float(row.facts["patch_gap"]) * log(row.summary["patches"])


def _plateau_range(row: RowEvidence) -> Measurement | None:
    if not (row.is_local and row.facts["patch_gap"] > 0) or row.constant_latent:
        return None
    found = _phi_global_at_half(row)
    if isinstance(found, Measurement):
        return found
    phi, width = found
    scale = log(row.summary["patches"])
    low, high = row.summary["latent"]
    words = (
        f"-Φ_global / log P at half attention, Δ_p = {row.facts['patch_gap']:.3f}, z from {low:g} to {high:g}"
    )
    return Measurement(-phi / scale, (-phi - width) / scale, (-phi + width) / scale, words)


def _paper_range(row: RowEvidence) -> Threshold:
    low, high = row.summary["latent"]
    gap = row.facts["patch_gap"]
    return Threshold(gap / (2 * high), gap / (2 * low) if low > 0 else np.inf)


def _global_unmoved(row: RowEvidence) -> Measurement | None:
    if not (row.is_local and row.facts["patch_gap"] < 0):
        return None
    found = _phi_global_at_half(row)
    if isinstance(found, Measurement):
        return found
    phi, width = found
    words = f"Φ_global = {phi:.3f} at half attention; Δ_p = {row.facts['patch_gap']:.3f}"
    return Measurement(abs(phi), abs(phi) - width, abs(phi) + width, words)


def _at_zero_gap(row: RowEvidence) -> Threshold:
    scale = row.summary["latent_mean"]
    return Threshold(high=0.5 * log(1 + 2 * (1 - row.summary["mask_ratio"])) / scale)


def _monotone(row: RowEvidence) -> Measurement | None:
    if row.is_local:
        return None
    falls = []
    for name in ("phi_own", "attention_own"):
        values = row.columns[name]
        if np.isnan(values[-1]) or not values.max() > 0:
            return Measurement.missing("the global feature was not learned")
        falls.append(float((np.maximum.accumulate(values) - values).max() / values.max()))
    worst = max(falls)
    return Measurement(
        worst,
        worst,
        worst,
        f"largest fall below the running maximum: Φ {falls[0]:.2g}, attention {falls[1]:.2g}",
    )


def _half_time(row: RowEvidence) -> Measurement | None:
    if not (row.is_local and row.constant_latent):
        return None
    half = row.facts["half_time"]
    if half is None:
        return Measurement.missing("half attention was never reached")
    scale = (
        row.summary["latent_mean"] ** 4
    )  # at z = c the flow runs c^4 times as fast, in cΦ and Υ alike but for Υ
    predicted = row.facts["predicted_half_time"] / scale
    error = row.facts["half_time_se"]
    width = 0.0 if row.summary["engine"] in EXACT else np.nan if error is None else SIGMAS * error
    words = f"T_half = {half:.4g}; K P/(γ(1-γ)C_a) = {predicted:.4g}"
    return Measurement(half / predicted, (half - width) / predicted, (half + width) / predicted, words)


def _final_decay(row: RowEvidence) -> Measurement | None:
    if (
        not float(row.columns["attention_own"][-1]) >= 0.999 - 1e-9
    ):  # a run that stops at 0.999 does so to a bit
        return None
    time, excess = row.columns["time"], row.columns["excess_loss"]
    late = time >= time[-1] / 3
    line = fit_line(np.log(time[late]).tolist(), np.log(np.maximum(excess[late], 1e-300)).tolist())
    if line is None:
        return Measurement.missing("too few recorded times")
    words = f"slope of log excess loss in log time over the last factor 3 of time, {line.points} times"
    return Measurement(line.slope, line.low, line.high, words)


ROW_CLAIMS: tuple[Claim[RowEvidence], ...] = (
    Claim(
        "convergence",
        "Training brings the loss down to its floor.",
        f"{PAPER}, convergence theorems",
        "excess loss at the end / at the start",
        Threshold(high=0.01),
        _convergence,
        "≤ 0.01",
        "At 99% attention solvable images keep about (1 - 0.99)² of their excess; 1% leaves room for that and for rare "
        "hopeless images, and is far from the 1 of a row that learned nothing. A run is judged as far as it went.",
    ),
    Claim(
        "area-wide attention",
        "A masked patch ends up attending to the visible patches of its own area.",
        f"{PAPER}, attention after training: 1 - o(1) on the own area",
        "attention on the own area at the end",
        Threshold(low=0.95),
        _attention,
        "≥ 0.95",
        "The paper's 1 - o(1) read at a twentieth. A run is judged as far as it went: one that stops by itself at 0.99 "
        "has reached it, one that was cut short has not.",
    ),
    Claim(
        "small position correlations",
        "What is learned is feature-position correlation; position-position correlations stay small.",
        f"{PAPER}, PP correlations are o(1); theory, section 5: Υ ≈ Φ/(C_a - 1) for z = 1",
        "largest |Υ| / Φ of the own area, at the end",
        Threshold(high=0.1),
        _position,
        "≤ 0.1",
        "An order of magnitude. With Υ ≈ Φ/(C_a - 1) it must hold for areas of a dozen patches and more, and fail for "
        "smaller ones.",
    ),
    Claim(
        "features exceed positions",
        "What tells keys apart is their feature more than their position.",
        f"{PAPER}, PP correlations are o(1); theory, section 8",
        "FP / (FP + PP), shares of the logits' variance over the keys, all rows together, at the end",
        Threshold(low=0.5),
        _features,
        "≥ 0.5",
        "The larger of the two shares. Largest |Υ| beside one Φ, as above, says nothing of what the many other "
        "positions and features do; this is their sum, and it can be measured in any network.",
    ),
    Claim(
        "two phases",
        "With a positive information gap a local patch first decouples from the global feature, then finds its own.",
        f"{PAPER}, local areas with Δ > 0; theory, section 5",
        "initial fall of Φ_global / initial rise of Φ_own",
        Threshold(low=1.0),
        _two_phases,
        "≥ 1",
        "Decoupling is there exactly if the global feature moves faster than the target at the start; for z = 1 the "
        "ratio is (1-γ) P^Δ_p to leading order, so a small positive gap needs a large P.",
    ),
    Claim(
        "one phase",
        "With a negative information gap a local patch finds its own feature from the start.",
        f"{PAPER}, local areas with Δ < 0; theory, section 5",
        "initial fall of Φ_global / initial rise of Φ_own",
        Threshold(high=1.0),
        _one_phase,
        "≤ 1",
        "The same ratio and the same boundary as for two phases.",
    ),
    Claim(
        "depth of decoupling",
        "At half attention the global feature stands at -½ log(1 + 2(1-γ)C₁²/(P C_a)).",
        "theory, section 5 (constant latents; own derivation)",
        "Φ_global at half attention / formula",
        Threshold(low=0.8, high=1.25),
        _plateau_formula,
        "in [0.8, 1.25]",
        "The formula is leading order in 1/log P; a quarter either way separates gaps that differ by a quarter.",
    ),
    Claim(
        "range of decoupling",
        "With varying latents the depth lies between Δ/(2U) and Δ/(2L), in units of log P.",
        f"{PAPER}, local areas with Δ > 0: end of the first phase",
        "-Φ_global / log P at half attention",
        _paper_range,
        _plateau_range,
        "in [Δ_p/(2U), Δ_p/(2L)]",
        "The paper's range, with the gap of the query's own area.",
    ),
    Claim(
        "global feature unmoved",
        "With a negative information gap the global feature hardly moves before the target is found.",
        f"{PAPER}, local areas with Δ < 0; theory, section 5: |Φ_global| stays o(1)",
        "|Φ_global| at half attention",
        _at_zero_gap,
        _global_unmoved,
        "≤ ½ log(1 + 2(1-γ)) / E[z]",
        "The value of the formula for the depth of decoupling at Δ_p = 0, where the two regimes meet.",
    ),
    Claim(
        "monotone growth",
        "A patch of the global area learns the global feature in one monotone phase.",
        f"{PAPER}, global areas",
        "largest fall of Φ_own or of attention below its running maximum, relative to the maximum",
        Threshold(high=1e-4),
        _monotone,
        "≤ 1e-4",
        "A hundred times the solver's relative tolerance of 1e-6: anything more is a real setback.",
    ),
    Claim(
        "half-attention time",
        "A local patch reaches half attention at about K P/(γ(1-γ)C_a).",
        "theory, section 5 (constant latents; own derivation)",
        "T_half / (K P/(γ(1-γ)C_a))",
        Threshold(low=0.5, high=2.0),
        _half_time,
        "in [0.5, 2]",
        "An estimate of the order: within a factor of two either way.",
    ),
    Claim(
        "final decay",
        "Finally the excess loss falls as 1/t.",
        "theory, section 5 (own measurement; where hopeless images are negligible)",
        "slope of log excess loss in log t, over the last factor 3 of time, at attention above 0.999",
        Threshold(low=-1.1, high=-0.9),
        _final_decay,
        "in [-1.1, -0.9]",
        "A power of -1 to a tenth: far from the -1.5 passed before and from the 0 of a stalled loss.",
    ),
)
