"""The probe: attention statistics of models over images, with baselines, as tables and as a run directory.

Everything that can be refused is refused first, on one image in each model. Then images are streamed in batches;
each finished batch is kept, so a run that was interrupted, or killed, goes on where it was and gives the same
tables, to the last bit where processor, library versions and number of threads are the same.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mimlab.dynamics.integrators import Progress
from mimlab.runs import InputError, RunDirectory, build, write_toml
from mimlab.runs.files import replacing
from mimlab.studies.probe_config import ProbeConfig
from mimlab.studies.probe_parts import PROBE_SCHEMA, Parts, PartsInFolder, PartsInMemory

if TYPE_CHECKING:
    from torch import nn

    from mimlab.probing.hugging import Preprocess
    from mimlab.probing.models import NamedModel
    from mimlab.report.probe_page import ProbeFigure
    from mimlab.report.probe_tables import ProbeSummary
    from mimlab.studies.probe_plan import Collected, Plan


@dataclass(frozen=True, eq=False)
class Probe:
    """A finished probe (columns in docs/file-contract.md).

    table: a value per model, image, layer, head and statistic. layers: means over images with 95% intervals.
    offsets: mean attention by relative offset, with statistics "all". shares: of logit variance, if asked for.
    """

    table: pa.Table
    layers: pa.Table
    offsets: pa.Table | None
    shares: pa.Table | None
    summary: ProbeSummary

    @property
    def skipped(self) -> list[list[str]]:
        """Files that could not be used, each with its reason."""
        return [list(pair) for pair in self.summary["skipped"]]


def probe(
    model: str | nn.Module | NamedModel | Sequence[str | nn.Module | NamedModel],
    images: str | Path | Sequence[str | Path] | None = None,
    statistics: str | Sequence[str] = "core",
    layers: Sequence[int | str] | None = None,
    heads: Sequence[int] | None = None,
    batch_size: int = 8,
    random_weights: bool = True,
    method: str = "auto",
    seed: int = 0,
    *,
    shares: bool = False,
    permutations: int = 16,
    device: str = "cpu",
    dtype: str = "float32",
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> Probe:
    """Measure what the attention of one or more models does on images.

    model: names as `mimlab probe` takes them, or modules in eval mode. images: folders or files; None: the held-out
    crops of pretraining runs, else scikit-image's photographs. preprocess: for modules, an RGB image to pixels
    (3, h, w); by default ImageNet's at 224 pixels, or at the size that the module's configuration tells. The other
    parameters are those of `ProbeConfig`. Weights are drawn anew, for a baseline, where it is known how: for models of
    transformers and timm. Raises InputError for whatever cannot be done as asked.
    """
    from mimlab.probing.models import NamedModel
    from mimlab.studies.probe_given import Given, models_given
    from mimlab.studies.probe_plan import Plan
    from mimlab.studies.probe_subjects import named_module

    given = [model] if isinstance(model, str | NamedModel) or not isinstance(model, Sequence) else list(model)
    models = [one if isinstance(one, str | NamedModel) else named_module(one, preprocess) for one in given]
    names = [one if isinstance(one, str) else one.name for one in models]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(
                f"two models are called {name}; give one, or a NamedModel with a name of its own"
            )
    own = {one.name: Given(partial(_itself, one)) for one in models if isinstance(one, NamedModel)}
    known = own | models_given([name for name in names if name not in own], own)
    options = {
        "images": [images] if isinstance(images, str | Path) else _listed(images),
        "statistics": [statistics] if isinstance(statistics, str) else _listed(statistics),
        "layers": _listed(layers),
        "heads": _listed(heads),
        "batch_size": batch_size,
        "random_weights": random_weights,
        "method": method,
        "seed": seed,
        "shares": shares,
        "permutations": permutations,
        "device": device,
        "dtype": dtype,
    }
    config = build(ProbeConfig, {"models": names, **options}, "probe")
    parts = PartsInMemory()
    plan = Plan.of(config, {name: known[name] for name in names})
    plan.measure(parts, progress)
    tables = [part.tables["probe"] for n in range(len(plan.variants)) for part in parts.of(n) if part.images]
    found = plan.collected(parts)
    return Probe(pa.concat_tables(tables), *found, plan.summary(parts, found[0], ""))


def _listed(given: object) -> object:
    """A list of whatever is a sequence of another kind; the configuration refuses what is none."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else given


def _itself(named: NamedModel) -> NamedModel:
    return named


def run_probe(
    config: ProbeConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> tuple[ProbeSummary, pa.Table]:
    """Measure and write the run directory; return its summary and its table of layers.

    What an interrupted run has measured stays in DIR.partial, and `resume` goes on from there. Raises InputError
    for bad input before anything is written, also where `resume` finds a run of other inputs.
    """
    from mimlab.studies.probe_given import models_given
    from mimlab.studies.probe_plan import Plan

    directory = RunDirectory(out, overwrite=overwrite, resume=resume, keep=True)
    directory.check()
    plan = Plan.of(config, models_given(config.models, heads=config.checkpoint_heads))
    with directory as folder:
        try:
            plan.claim(folder)
            parts = PartsInFolder(folder / "parts")
            plan.measure(parts, progress)
            found = plan.collected(parts)
            summary = plan.summary(parts, found[0], command)
            if progress is not None:
                progress(1.0, "figures and page")
            _write(folder, plan, parts, found, summary)
        except InputError:
            if not resume:
                shutil.rmtree(folder)
            raise
    return summary, found[0]


def _write(folder: Path, plan: Plan, parts: Parts, found: Collected, summary: ProbeSummary) -> None:
    """All files of the run; then its parts are removed."""
    import pyarrow.parquet as pq

    from mimlab.report.probe_page import write_probe_page
    from mimlab.runs.tables import write_json, write_table

    with (
        replacing(folder / "probe.parquet") as file,
        pq.ParquetWriter(file, PROBE_SCHEMA) as writer,
    ):
        for place in range(len(plan.variants)):
            for part in parts.of(place, "probe"):
                if part.images:
                    writer.write_table(part.tables["probe"])
    for name, table in zip(("layers", "offsets", "shares"), found, strict=True):
        if table is not None:
            write_table(folder / f"{name}.parquet", table)
    write_probe_page(folder, summary, found[0], _draw(folder, plan, found, summary))
    write_toml(folder / "config.toml", plan.config)
    write_json(folder / "summary.json", summary)
    shutil.rmtree(folder / "parts")
    (folder / "inputs.json").unlink()


def _draw(folder: Path, plan: Plan, found: Collected, summary: ProbeSummary) -> list[ProbeFigure]:
    """All figures, those of maps over an image among them."""
    from mimlab.report.probe_maps import draw_query_maps
    from mimlab.report.probe_page import ProbeFigure, draw_probe_figures, slug

    (folder / "figures").mkdir(exist_ok=True)
    figures = draw_probe_figures(folder, summary, *found)
    for place, subject in enumerate(plan.subjects):
        views = subject.views
        if views is not None:
            name = f"figures/maps_{place:02d}_{slug(subject.name)}.png"
            titles = [f"depth {layer + 1}" for layer in views.layers]
            draw_query_maps(views.picture, views.layout, views.maps, views.queries, titles, folder / name)
            figures.append(ProbeFigure("maps", name, subject.name))
    return figures
