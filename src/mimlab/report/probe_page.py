"""The page of a probe run, and that of several runs beside each other.

Both take the summary's keys and the table `layers` as `mimlab.report.probe_tables` documents them; figures are
drawn before, by `draw_probe_figures` or `draw_comparison_figures`, and arranged here. The words that say how to
read a figure, a statistic or a layer stand in this package once: captions here, statistics in
`mimlab.probing.catalogue`, readings in `mimlab.report.probe_readings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mimlab.probing.catalogue import CATALOGUE, CORE, RANDOM_WEIGHTS
from mimlab.report.page import Section, write_page
from mimlab.report.probe_readings import readings
from mimlab.report.probe_sections import (
    cautions_section,
    counted,
    glossary,
    layer_rows,
    listed,
    model_facts,
    overview,
    skipped_section,
)
from mimlab.report.probe_tables import (
    ModelRecord,
    ProbeSummary,
    models_in,
    statistics_in,
    title_of,
    warnings_of,
    with_random_weights,
)

GREY = "Grey: the same architecture with random weights. "
FIGURES = {
    "depth": (
        "Statistics against depth",
        "A dot is a head, its mean over images; a line is the mean over heads, its band the 95% interval over images "
        "(often narrower than the line). Dotted: uniform attention. Dash-dotted: identity, each query attending to "
        f"itself alone. {GREY}A baseline far outside is named at its edge. "
        "What lies on a baseline is no evidence of anything learned.",
    ),
    "heads": (
        "Head by head",
        "Means over images. Each panel has its own colours, its baselines above it; grey cells have no value: a layer "
        "with fewer heads, or values that are not numbers.",
    ),
    "offsets": (
        "By offset",
        "Where keys lie relative to their query, mean over heads, images and queries; each panel sums to 1. Far "
        "offsets have few pairs of patches, so that even uniform attention falls off: compare with its panel.",
    ),
    "maps": (
        "Over an image",
        "Attention of the outlined patch, coloured from 0 to the panel's own maximum, which stands below as a multiple "
        "of uniform attention: near 1, a vivid panel is nearly uniform. Identity would be the outlined patch alone.",
    ),
    "shares": (
        "Shares of logit variance",
        "What moves the logits when an image's patches change places: PP, query position with key position; FP, query "
        "position with the item at the key; FF, item with item; terms of the key alone; the rest. A whisker stands at "
        "its own bar's end, the 95% interval over images. Shares are unbiased and may be negative; noise is all rest. "
        "Images with permuted patches are unlike what a trained model has seen.",
    ),
}


@dataclass(frozen=True)
class ProbeFigure:
    """A figure file for the page: its kind (a key of FIGURES), and the model that it shows alone, if any.

    Relative paths start at the page's folder.
    """

    kind: str
    path: str | Path
    model: str | None = None


@dataclass(frozen=True)
class ProbeRun:
    """One run to compare: how it is called (its folder's name), its summary, and its table of layers."""

    name: str
    summary: ProbeSummary
    layers: pa.Table


def draw_probe_figures(
    folder: str | Path,
    summary: ProbeSummary,
    layers: pa.Table,
    offsets: pa.Table | None = None,
    shares: pa.Table | None = None,
) -> list[ProbeFigure]:
    """Draw what the tables hold into `folder`/figures; maps over images are drawn by `draw_query_maps`, one by one."""
    from mimlab.report.probe_maps import draw_offsets
    from mimlab.report.probe_shares import draw_shares
    from mimlab.report.probes import draw_heads

    drawn = _depth_figures(Path(folder), summary["models"], layers)
    statistics = [name for name in CORE if name in statistics_in(layers)]
    for index, model in enumerate(summary["models"]):
        end, name = f"{index:02d}_{slug(model['name'])}.png", model["name"]
        if statistics and name in models_in(layers):
            draw_heads(layers, model, Path(folder) / f"figures/heads_{end}", statistics)
            drawn.append(ProbeFigure("heads", f"figures/heads_{end}", name))
        if offsets is not None and name in models_in(offsets):
            draw_offsets(offsets, model, Path(folder) / f"figures/offsets_{end}")
            drawn.append(ProbeFigure("offsets", f"figures/offsets_{end}", name))
        if shares is not None and name in models_in(shares):
            draw_shares(shares, model, Path(folder) / f"figures/shares_{end}")
            drawn.append(ProbeFigure("shares", f"figures/shares_{end}", name))
    return drawn


def draw_comparison_figures(folder: str | Path, runs: Sequence[ProbeRun]) -> list[ProbeFigure]:
    """Draw the statistics of all runs' models against depth into `folder`/figures."""
    models, layers = joined(runs)
    return _depth_figures(Path(folder), models, layers)


def _depth_figures(folder: Path, models: Sequence[ModelRecord], layers: pa.Table) -> list[ProbeFigure]:
    """One figure of the core statistics, and one of any others that the table has."""
    from mimlab.report.probes import draw_depth

    found = statistics_in(layers)
    parts = {
        "depth": [one for one in found if one in CORE],
        "depth_more": [one for one in found if one not in CORE],
    }
    drawn = []
    for name, statistics in parts.items():
        if statistics:
            draw_depth(layers, models, folder / f"figures/{name}.png", statistics)
            drawn.append(ProbeFigure("depth", f"figures/{name}.png"))
    return drawn


def write_probe_page(
    folder: str | Path, summary: ProbeSummary, layers: pa.Table, figures: Sequence[ProbeFigure]
) -> Path:
    """Write report.html of one run into its folder; returns the file. Raises as `write_page`."""
    models = summary["models"]
    names = listed(model["name"] for model in models)
    lead = (
        f"Where the patches of {counted(summary['images'], 'image')} attend in {names}: how far, how widely, and how "
        "differently from each other, layer by layer and head by head."
    )
    facts = {
        **model_facts(models),
        "Images": f"{summary['images']} from {summary['source']}",
        "Seconds": summary["seconds"],
        "Images per second": summary["images_per_second"],
        "Versions": summary["versions"],
    }
    sections = [
        *cautions_section(summary["warnings"]),
        *_figure_sections(figures, None, layers),
        *(section for model in models for section in _model_sections(model, layers, figures)),
        *skipped_section(summary["skipped"]),
        glossary(models, layers),
    ]
    target = Path(folder) / "report.html"
    write_page(target, f"Attention of {names}", lead, sections, summary["command"], facts)
    return target


def write_comparison_page(
    folder: str | Path, runs: Sequence[ProbeRun], figures: Sequence[ProbeFigure], command: str
) -> Path:
    """Write report.html of several runs into `folder`; returns the file. Raises as `write_page`."""
    models, layers = joined(runs)
    names = listed(model["name"] for model in models)
    cautions = list(dict.fromkeys(one for run in runs for one in run.summary["warnings"]))
    cautions += [one for one in warnings_of(models, layers) if one not in cautions]
    measured = {(run.summary["images"], run.summary["source"]) for run in runs}
    if len(measured) > 1:
        told = "; ".join(f"{run.name}: {run.summary['images']} from {run.summary['source']}" for run in runs)
        cautions.append(
            f"Not all runs measured the same images ({told}): differences may be those of the images."
        )
    facts = {
        **model_facts(models),
        **{f"Run {run.name}": f"{run.summary['images']} images; {run.summary['command']}" for run in runs},
        "Versions": {run.name: " ".join(map(" ".join, run.summary["versions"].items())) for run in runs},
    }
    sections = [
        *cautions_section(cautions),
        overview(models, layers),
        *_figure_sections(figures, None, layers),
        *(section for model in models for section in _model_sections(model, layers, ())),
        *(part for run in runs for part in skipped_section(run.summary["skipped"], run.name)),
        glossary(models, layers),
    ]
    target = Path(folder) / "report.html"
    lead = (
        f"Attention statistics of {names}, beside each other and beside the attention that needs no learning."
    )
    write_page(target, f"Attention compared: {names}", lead, sections, command, facts)
    return target


def joined(runs: Sequence[ProbeRun]) -> tuple[list[ModelRecord], pa.Table]:
    """Models and layers of all runs; a model that several runs measured is named with its run."""
    counts: dict[str, int] = {}
    for run in runs:
        for model in run.summary["models"]:
            counts[model["name"]] = counts.get(model["name"], 0) + 1
    models: list[ModelRecord] = []
    tables = []
    for run in runs:
        renamed: dict[str, str] = {}
        for model in run.summary["models"]:
            name = model["name"]
            label = name if counts[name] == 1 else f"{name} ({run.name})"
            renamed |= {name: label, with_random_weights(name): with_random_weights(label)}
            models.append({**model, "name": label})
        labels = [renamed.get(name, name) for name in run.layers["model"].to_pylist()]
        place = run.layers.column_names.index("model")
        tables.append(run.layers.set_column(place, "model", pa.array(labels, pa.string())))
    return models, pa.concat_tables(tables, promote_options="default")


def slug(name: str) -> str:
    """A model's name as part of a file's name.

    >>> slug("facebook/vit-mae-base")
    'facebook-vit-mae-base'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60] or "model"


def _model_sections(
    model: ModelRecord, layers: pa.Table, figures: Sequence[ProbeFigure]
) -> Iterator[Section]:
    name = model["name"]
    yield Section(
        f"What the layers show: {name}",
        "Mean over heads; a layer is named where its whole 95% interval over images lies beyond the threshold. "
        "A layer may have several readings or none.",
        rows=readings(layers, model),
    )
    yield from _figure_sections(figures, name, layers)
    yield Section(
        f"Layer by layer: {name}",
        "Mean over heads and images with its 95% interval over images; below, the baselines (of several layers, the "
        "range).",
        rows=layer_rows(model, layers),
    )


def _figure_sections(
    figures: Sequence[ProbeFigure], model: str | None, layers: pa.Table
) -> Iterator[Section]:
    """A section for each kind of figure of one model, or of those that show all."""
    for kind, (heading, sentence) in FIGURES.items():
        files = [one.path for one in figures if one.kind == kind and one.model == model]
        if files:
            told = _directions(layers) if kind == "depth" else []
            if not any(name.endswith(RANDOM_WEIGHTS) for name in models_in(layers)):
                sentence = sentence.replace(GREY, "")
            yield Section(heading if model is None else f"{heading}: {model}", sentence, (), files, (), told)


def _directions(layers: pa.Table) -> list[tuple[str, str]]:
    return [
        (title_of(name), f"{CATALOGUE[name].formula}. Higher: {CATALOGUE[name].higher}.")
        for name in statistics_in(layers)
        if name in CORE
    ]
