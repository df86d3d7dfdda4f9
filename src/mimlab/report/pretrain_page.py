"""The page of a pretraining run, and that of several runs beside each other.

Figures are drawn before, by `draw_pretrain_figures` or `draw_pretrain_comparison`, and arranged here. What a summary
and the tables hold is said in `mimlab.report.pretrain_tables`; statistics are explained by `mimlab.probing.catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mimlab.probing.catalogue import CATALOGUE
from mimlab.probing.shares import COMPONENTS
from mimlab.report.page import Section, write_page
from mimlab.report.pretrain_sections import ends_section, evaluation_section
from mimlab.report.pretrain_tables import (
    Log,
    PretrainRun,
    PretrainSummary,
    as_probed,
    layers_in,
    steps_in,
)
from mimlab.report.probe_sections import cautions_section, glossary, listed
from mimlab.report.probe_tables import layout_of, statistics_in, title_of, warnings_of

START = "weights at the start"
"""What the network before training is called beside the trained one."""

SHARES = (
    "How far a query's logits vary over keys: which share goes with the positions of query and key (PP), with the "
    "query's position and the key's content (FP), with the rest? Estimated on a few held-out crops whose patches are "
    "permuted, the same way at every checkpoint. The shares of a layer add up to 1; estimates are unbiased, so a small "
    "one can be negative. A share of a tiny variance is large as well: read it beside the statistics of attention. "
)

FIGURES = {
    "loss": (
        "Loss",
        "The loss that was minimised, on training crops; below it the learning rate. Losses of different objectives "
        "cannot be compared.",
    ),
    "layers": (
        "Attention against step",
        "On the same held-out crops all along. A line is a layer, the mean over its heads and the crops; its band "
        "reaches from the lowest to the highest head. The ring is the network before training: what a curve does not "
        "leave behind was not learned. Steps are logarithmic from 1 on; each panel has its own scale.",
    ),
    "outputs": (
        "Outputs against step",
        "Deviation: how far the directions of different crops' outputs lie apart, 0 all alike, 1 spread evenly. "
        "Effective rank: how many dimensions they span, from 1 to the smaller of crops and channels. Both fall in a "
        "collapse. Masked objectives leave CLS alone.",
    ),
    "runs": (
        "Runs against step, layer by layer",
        "On held-out crops. A panel is a layer, a line a run: the mean over heads and crops, its band from the "
        "lowest to the highest head. The ring is the network before training. Steps are logarithmic from 1 on; each "
        "panel has its own scale. Runs may have different batches and learning rates, so compare where curves go "
        "rather than when.",
    ),
    "depth": (
        "Against depth, at the end and at the start",
        "A dot is a head, a line the mean over heads, both means over crops. Grey: the same network before training. "
        "Dotted: uniform attention. Dash-dotted: identity, each query attending to itself alone. A baseline far "
        "outside is named at its edge. What lies on grey or on a baseline is no evidence of anything learned.",
    ),
    "shares": (
        "Position and content in the logits, against step",
        SHARES
        + "A line is a component of a layer, the mean over its heads and the crops, its band the 95% interval over "
        "crops; PP and FP are drawn heavier. The ring is the network before training.",
    ),
    "shares_of_runs": (
        "Position and content in the logits, at the last checkpoint",
        SHARES
        + "A dot is a head, a line the mean over heads with its 95% interval over crops. Grey: the same network "
        "before training.",
    ),
    "attention": (
        "One query through training",
        "Where the outlined patch of one held-out crop attends, mean over heads. Each panel is coloured from 0 to its "
        "own maximum, which stands below as a multiple of uniform attention: near 1, a vivid panel is nearly uniform.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Held-out crops, what the network sees of them, and what it makes of the hidden patches; visible patches are "
        "drawn as they were given. One that knew nothing but the colours around would paint them evenly.",
    ),
}

COMPARED = ("nmi", "diversity", "distance", "positional_nmi")
"""Statistics that runs are compared by against step; all of the core stand against depth."""


@dataclass(frozen=True)
class PretrainFigure:
    """A figure file for the page: its kind (a key of FIGURES) and its path, relative to the page's folder."""

    kind: str
    path: str | Path


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Held-out crops (n, h, w, 3), which pixels were seen (n, h, w), and what was made of them by step (n, h, w, 3)."""

    crops: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    predicted: Mapping[int, NDArray[np.uint8]]


def draw_pretrain_figures(
    folder: str | Path,
    summary: PretrainSummary,
    log: Log,
    statistics: pa.Table,
    maps: pa.Table | None = None,
    picture: NDArray[np.uint8] | None = None,
    reconstructions: Reconstructions | None = None,
    alarmed: Sequence[int] = (),
    shares: pa.Table | None = None,
) -> list[PretrainFigure]:
    """Draw what there is into `folder`/figures. alarmed: the steps of alarms, marked in the curves."""
    from mimlab.report.pretrain import draw_layers, draw_loss, draw_outputs, draw_shares_through_training
    from mimlab.report.pretrain_maps import draw_attention_through_training, draw_reconstructions
    from mimlab.report.probes import draw_depth

    run = PretrainRun(summary["objective"], summary, statistics)
    place = Path(folder)
    drawn = [PretrainFigure(kind, f"figures/{kind}.png") for kind in ("loss", "layers", "outputs", "depth")]
    loss, layers, outputs, depth = (place / one.path for one in drawn)
    draw_loss(log, loss)
    draw_layers(statistics, run.model, layers, marks=alarmed)
    draw_outputs(statistics, outputs, alarmed)
    draw_depth(as_probed(run), [run.model], depth, before=START)
    if shares is not None:
        drawn.append(PretrainFigure("shares", "figures/shares.png"))
        draw_shares_through_training(shares, place / drawn[-1].path, alarmed)
    if maps is not None and picture is not None:
        drawn.append(PretrainFigure("attention", "figures/attention.png"))
        draw_attention_through_training(maps, picture, run.model, place / drawn[-1].path)
    if reconstructions is not None:
        drawn.append(PretrainFigure("reconstructions", "figures/reconstructions.png"))
        given = (reconstructions.crops, reconstructions.seen, reconstructions.predicted)
        draw_reconstructions(*given, place / drawn[-1].path)
    return drawn


def draw_pretrain_comparison(folder: str | Path, runs: Sequence[PretrainRun]) -> list[PretrainFigure]:
    """Draw runs beside each other into `folder`/figures; attention over a crop where all followed the same query."""
    from mimlab.report.pretrain import draw_runs
    from mimlab.report.pretrain_maps import draw_attention_of_runs
    from mimlab.report.probes import draw_depth

    place = Path(folder)
    drawn = []
    for name in COMPARED:
        drawn.append(PretrainFigure("runs", f"figures/{name}.png"))
        draw_runs(runs, name, place / drawn[-1].path)
    drawn.append(PretrainFigure("depth", "figures/depth.png"))
    tables = pa.concat_tables([as_probed(run) for run in runs])
    draw_depth(tables, [run.model for run in runs], place / drawn[-1].path, before=START)
    shared = {run.name: run for run in runs if run.shares is not None}
    if shared:
        drawn.append(PretrainFigure("shares_of_runs", "figures/shares.png"))
        tables = pa.concat_tables([as_probed(run, run.shares) for run in shared.values()])
        models = [run.model for run in shared.values()]
        draw_depth(tables, models, place / drawn[-1].path, COMPONENTS, START, alike=True)
    if same_view(runs):
        depth = min(len(layers_in(run.maps)) for run in runs)
        for one in dict.fromkeys((1, (depth + 1) // 2, depth)):
            drawn.append(PretrainFigure("attention", f"figures/attention_{one:02d}.png"))
            draw_attention_of_runs(runs, one, place / drawn[-1].path)
    return drawn


def same_view(runs: Sequence[PretrainRun]) -> bool:
    """Whether all runs followed one query over one picture, cut into the same patches."""
    first = runs[0]
    if any(run.maps is None or run.picture is None for run in runs):
        return False
    assert first.maps is not None and first.picture is not None
    return all(
        run.picture is not None
        and run.maps is not None
        and np.array_equal(run.picture, first.picture)
        and run.maps["query"][0] == first.maps["query"][0]
        and layout_of(run.summary["layers"][0]) == layout_of(first.summary["layers"][0])
        for run in runs[1:]
    )


def write_pretrain_page(
    folder: str | Path,
    summary: PretrainSummary,
    log: Log,
    statistics: pa.Table,
    figures: Sequence[PretrainFigure],
) -> Path:
    """Write report.html of one run into its folder; returns the file. Raises as `write_page`."""
    run = PretrainRun(summary["objective"], summary, statistics)
    steps = steps_in(statistics)
    lead = (
        f"How attention formed in a vision transformer of {len(summary['layers'])} layers while it learned by "
        f"{summary['objective']}, watched on {summary['crops']} held-out crops from step {steps[0]} to {steps[-1]}."
    )
    sections = [
        *cautions_section([*_unfinished(summary), *summary["alarms"], *summary["warnings"]]),
        ends_section([run]),
        *evaluation_section([run]),
        *_figures(figures, statistics),
        glossary([run.model], as_probed(run)),
    ]
    target = Path(folder) / "report.html"
    title = f"Pretraining by {summary['objective']}"
    write_page(target, title, lead, sections, summary["command"], _facts(summary, log))
    return target


def write_pretrain_comparison(
    folder: str | Path, runs: Sequence[PretrainRun], figures: Sequence[PretrainFigure], command: str
) -> Path:
    """Write report.html of several runs into `folder`; returns the file. Raises as `write_page`."""
    names = listed(run.name for run in runs)
    tables = pa.concat_tables([as_probed(run) for run in runs])
    facts: dict[str, Any] = {
        f"Run {run.name}": f"{run.summary['objective']}, {run.summary['step']} steps, seed {run.summary['seed']}; "
        f"{run.summary['command']}"
        for run in runs
    }
    facts["Versions"] = {run.name: " ".join(map(" ".join, run.summary["versions"].items())) for run in runs}
    sections = [
        *cautions_section(comparison_warnings(runs)),
        ends_section(runs),
        *evaluation_section(runs),
        *_figures(figures, tables),
        glossary([run.model for run in runs], tables),
    ]
    target = Path(folder) / "report.html"
    lead = f"How attention formed in {names}, beside each other and beside what each started from."
    write_page(target, f"Pretraining compared: {names}", lead, sections, command, facts)
    return target


def comparison_warnings(runs: Sequence[PretrainRun]) -> list[str]:
    """What a reader of these runs beside each other must know: those of each, and what differs that should not."""
    found = [
        f"{run.name}: {one}"
        for run in runs
        for one in (*_unfinished(run.summary), *run.summary["alarms"], *run.summary["warnings"])
    ]
    found += warnings_of([run.model for run in runs], pa.concat_tables([as_probed(run) for run in runs]))
    if len({(run.summary["crops"], run.summary["held_out"]) for run in runs}) > 1:
        told = "; ".join(f"{run.name}: {run.summary['crops']} of {run.summary['held_out']}" for run in runs)
        found.append(
            f"Not all runs were watched on the same crops ({told}): differences may be those of the crops."
        )
    if len({run.summary["images"] for run in runs}) > 1:
        told = "; ".join(f"{run.name}: {run.summary['images']}" for run in runs)
        found.append(f"Not all runs learned from the same images ({told}).")
    without = [run.name for run in runs if run.shares is None]
    if without:
        found.append(
            f"Shares of logit variance are not shown of {listed(without)}, which did not measure them."
        )
    if not same_view(runs) and all(run.maps is not None for run in runs):
        found.append(
            "The runs followed different queries or crops, so their attention over a crop is not shown."
        )
    return found


def _unfinished(summary: PretrainSummary) -> list[str]:
    if summary["status"] == "finished":
        return []
    return [f"The run is not finished: {summary['status']} (step {summary['step']} of {summary['steps']})."]


def _facts(summary: PretrainSummary, log: Log) -> dict[str, Any]:
    losses = [one["loss"] for one in log if one.get("loss") is not None]
    late = losses[-max(1, len(losses) // 20) :]
    rows, columns = summary["layers"][0]["grid"] if summary["layers"] else (0, 0)
    return {
        "Objective": summary["objective"],
        "Started from": summary["start"] or "random weights",
        "Steps": f"{summary['step']} of {summary['steps']}",
        "Loss, last twentieth of the log": float(np.mean(late)) if late else None,
        "Encoder": f"{len(summary['layers'])} layers, {rows} × {columns} patches, {summary['parameters']:,} parameters",
        "Trained on": summary["images"],
        "Watched on": f"{summary['crops']} crops of {summary['held_out']}",
        "Seed": summary["seed"],
        "Seconds": summary["seconds"],
        "Images per second": summary["images_per_second"],
        "Versions": summary["versions"],
    }


def _figures(figures: Sequence[PretrainFigure], statistics: pa.Table) -> list[Section]:
    """A section for each kind of figure."""
    found = []
    for kind, (heading, sentence) in FIGURES.items():
        files = [one.path for one in figures if one.kind == kind]
        if files:
            found.append(Section(heading, sentence, (), files, (), _directions(kind, statistics)))
    return found


def _directions(kind: str, statistics: pa.Table) -> list[tuple[str, str]]:
    """What a higher value says, for the figures of statistics."""
    if kind not in ("layers", "runs"):
        return []
    from mimlab.report.pretrain import SHOWN

    known = statistics_in(statistics)
    names = [name for name in (SHOWN if kind == "layers" else COMPARED) if name in known]
    return [
        (title_of(name), f"{CATALOGUE[name].formula}. Higher: {CATALOGUE[name].higher}.") for name in names
    ]
