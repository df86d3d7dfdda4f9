"""The probe: attention statistics of models over images, with baselines, as tables and as a run directory.

Everything that can be refused is refused first, on one image in each model. Then images are streamed in batches;
each finished batch is kept, so a run that was interrupted, or killed, goes on where it was and gives the same
tables, to the last bit where processor, library versions and number of threads are the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa

from mimlab.dynamics.integrators import Progress
from mimlab.probing.catalogue import baselines
from mimlab.probing.layout import Layout
from mimlab.runs import InputError, RunDirectory, to_mapping, write_toml
from mimlab.runs.files import replacing
from mimlab.studies.probe_config import ProbeConfig
from mimlab.studies.probe_parts import (
    LAYERS_SCHEMA,
    PROBE_SCHEMA,
    Parts,
    PartsInFolder,
    PartsInMemory,
    layers_of,
    offsets_of,
    shares_of,
)
from mimlab.studies.single import versions

if TYPE_CHECKING:
    from torch import nn

    from mimlab.probing.hugging import Preprocess
    from mimlab.probing.models import NamedModel
    from mimlab.report.probe_tables import ProbeSummary
    from mimlab.studies.probe_subjects import Subject

BUNDLED = "scikit-image's photographs"


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

    model: names as `mimlab probe` takes them, or modules in eval mode. images: folders or files; None: scikit-image's
    photographs. preprocess: for modules, an RGB image to pixels (3, h, w); by default ImageNet's at 224 pixels, or
    at the size that the module's configuration tells. The other parameters are those of `ProbeConfig`. Baselines
    with weights drawn anew are made where the architecture is known by name. Raises InputError for whatever cannot
    be done as asked.
    """
    from mimlab.probing.models import NamedModel, load_model
    from mimlab.studies.probe_subjects import named_module

    given = [model] if isinstance(model, str | NamedModel) or not isinstance(model, Sequence) else list(model)
    loads: dict[str, Callable[[], NamedModel]] = {}
    for one in given:
        if isinstance(one, str):
            name, load = one, partial(load_model, one)
        else:
            named = one if isinstance(one, NamedModel) else named_module(one, preprocess)
            name, load = named.name, partial(_itself, named)
        if name in loads:
            raise InputError(
                f"two models are called {name}; give one, or a NamedModel with a name of its own"
            )
        loads[name] = load
    paths = None if images is None else [images] if isinstance(images, str | Path) else list(images)
    config = ProbeConfig(
        models=tuple(loads),
        images=None if paths is None else tuple(Path(path) for path in paths),
        statistics=(statistics,) if isinstance(statistics, str) else tuple(statistics),
        layers=None if layers is None else tuple(layers),
        heads=None if heads is None else tuple(heads),
        batch_size=batch_size,
        method=method,  # type: ignore[arg-type]
        shares=shares,
        permutations=permutations,
        random_weights=random_weights,
        device=device,
        dtype=dtype,  # type: ignore[arg-type]
        seed=seed,
    )
    parts = PartsInMemory()
    plan = _Plan.of(config, loads)
    plan.measure(parts, progress)
    tables = [part.tables["probe"] for n in range(len(plan.variants)) for part in parts.of(n) if part.images]
    found = plan.collected(parts)
    return Probe(pa.concat_tables(tables), *found, plan.summary(parts, found[0], ""))


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
    from mimlab.probing.models import load_model

    directory = RunDirectory(out, overwrite=overwrite, resume=resume, keep=True)
    directory.check()
    heads = config.checkpoint_heads
    load = lru_cache(1)(partial(load_model, heads=heads) if heads else load_model)
    plan = _Plan.of(config, {name: partial(load, name) for name in config.models})
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


Collected = tuple[pa.Table, pa.Table | None, pa.Table | None]


@dataclass(frozen=True, eq=False)
class _Variant:
    """What is measured: a model, or its architecture with weights drawn anew; `label` stands in the tables."""

    label: str
    subject: Subject
    load: Callable[[], NamedModel]


@dataclass(frozen=True, eq=False)
class _Plan:
    """A run that can be done: every model has been tried."""

    config: ProbeConfig
    paths: Sequence[Path]
    subjects: Sequence[Subject]
    variants: Sequence[_Variant]

    @classmethod
    def of(cls, config: ProbeConfig, loads: dict[str, Callable[[], NamedModel]]) -> _Plan:
        """Try every model. Raises InputError for whatever stands in the way."""
        from mimlab.probing.capture import names_of
        from mimlab.probing.images import find_images
        from mimlab.report.probe_tables import with_random_weights
        from mimlab.studies.probe_subjects import tried

        names_of(config.statistics)
        sources = [None] if config.images is None else config.images
        paths = [path for source in sources for path in find_images(source)]
        subjects, variants = [], []
        for name in config.models:
            subject = tried(loads[name], paths, config)
            subjects.append(subject)
            variants.append(_Variant(name, subject, subject.load))
            draw = subject.load().random if config.random_weights else None
            if draw is not None:
                label = with_random_weights(name)
                variants.append(_Variant(label, subject, partial(_redrawn, subject.load, config.seed)))
        return cls(config, paths, subjects, variants)

    def measure(self, parts: Parts, progress: Progress | None) -> None:
        """Measure whatever parts there are not."""
        from dataclasses import replace

        from mimlab.probing.images import batches
        from mimlab.studies.probe_subjects import measured, on_device

        size, images = self.config.batch_size, len(self.paths)
        total = len(self.variants) * images
        began, fresh = perf_counter(), 0
        for place, variant in enumerate(self.variants):
            first = parts.done(place)
            if first * size >= images:
                continue
            named = on_device(variant.load(), self.config)
            since = perf_counter()
            for number, batch in enumerate(batches(self.paths, named.preprocess, size, first), start=first):
                part = measured(
                    named, variant.subject.record, variant.label, batch, number * size, self.config
                )
                now = perf_counter()
                parts.add(place, replace(part, seconds=now - since))
                since, fresh = now, fresh + part.images
                if progress is not None:
                    done = place * images + min((number + 1) * size, images)
                    rate = fresh / (now - began)
                    progress(done / total, f"{variant.label}: {rate:.3g} images/s")

    def collected(self, parts: Parts) -> Collected:
        """The tables layers, offsets and shares of all variants. Raises InputError where no image was measured."""
        layers, offsets, shares = [], [], []
        for place, variant in enumerate(self.variants):
            layers.append(layers_of(variant.label, parts.of(place)))
            offsets.append(offsets_of(parts.of(place)))
            shares.append(shares_of(variant.label, parts.of(place)))
        return (
            pa.concat_tables([LAYERS_SCHEMA.empty_table(), *layers]),
            _joined(offsets),
            _joined(shares),
        )

    def summary(self, parts: Parts, layers: pa.Table, command: str) -> ProbeSummary:
        """What summary.json holds."""
        import torch

        from mimlab.report.probe_tables import warnings_of

        seconds, images, measured = 0.0, 0, 0
        skipped: list[Sequence[str]] = []
        for place in range(len(self.variants)):
            for part in parts.of(place):
                seconds += part.seconds
                measured += part.images
                if place == 0:
                    images += part.images
                    skipped += part.skipped
        models = [subject.record for subject in self.subjects]
        warnings = [warning for subject in self.subjects for warning in subject.warnings]
        warnings += warnings_of(models, layers)
        if skipped:
            named = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
            warnings.append(f"{len(skipped)} of {len(self.paths)} images could not be used: {named}")
        said = self.config.images
        return {
            "status": "finished",
            "models": models,
            "images": images,
            "source": BUNDLED if said is None else ", ".join(map(str, said)),
            "skipped": skipped,
            "warnings": warnings,
            "baselines": list(self._baselines()),
            "command": command,
            "seconds": seconds,
            "images_per_second": measured / seconds if seconds else 0.0,
            "versions": versions() | {"torch": torch.__version__},
        }

    def _baselines(self) -> Iterator[dict[str, str | float]]:
        """Values of uniform, identity and random attention for each layout of each model, from its first layer on."""
        from mimlab.probing.capture import names_of
        from mimlab.report.probe_tables import layout_of

        for subject in self.subjects:
            seen: set[Layout] = set()
            for record in subject.record["layers"]:
                layout = layout_of(record)
                if layout not in seen:
                    seen.add(layout)
                    for found in baselines(layout, names_of(self.config.statistics)):
                        yield {"model": subject.name, "layer": record["layer"], **found}

    def claim(self, folder: Path) -> None:
        """Note the inputs in a folder. Raises InputError where it holds the work of others."""
        from mimlab.runs.tables import read_json, to_json, write_json

        stats = [path.stat() for path in self.paths]
        inputs = {
            **to_mapping(self.config),
            "images": [
                [str(path), stat.st_size, stat.st_mtime_ns]
                for path, stat in zip(self.paths, stats, strict=True)
            ],
            "weights": [subject.digest for subject in self.subjects],
            "versions": versions(),
        }
        file = folder / "inputs.json"
        if file.exists():
            found = read_json(file)
            other = sorted(
                key
                for key in inputs.keys() | found.keys()
                if to_json(inputs.get(key)) != to_json(found.get(key))
            )
            if other:
                raise InputError(
                    f"{folder} was begun with other inputs ({', '.join(other)}): resume with the same, or begin "
                    "again without --resume"
                )
        write_json(file, inputs)


def _redrawn(load: Callable[[], NamedModel], seed: int) -> NamedModel:
    draw = load().random
    assert draw is not None
    return draw(seed)


def _joined(tables: Sequence[pa.Table | None]) -> pa.Table | None:
    found = [table for table in tables if table is not None]
    return pa.concat_tables(found) if found else None


def _write(folder: Path, plan: _Plan, parts: Parts, found: Collected, summary: ProbeSummary) -> None:
    """All files of the run; then its parts are removed."""
    import pyarrow.parquet as pq

    from mimlab.report.probe_page import ProbeFigure, draw_probe_figures, slug, write_probe_page
    from mimlab.runs.tables import write_json, write_table

    with (
        replacing(folder / "probe.parquet") as file,
        pq.ParquetWriter(file, PROBE_SCHEMA) as writer,
    ):
        for place in range(len(plan.variants)):
            for part in parts.of(place):
                if part.images:
                    writer.write_table(part.tables["probe"])
    for name, table in zip(("layers", "offsets", "shares"), found, strict=True):
        if table is not None:
            write_table(folder / f"{name}.parquet", table)
    (folder / "figures").mkdir(exist_ok=True)
    figures = draw_probe_figures(folder, summary, *found)
    for place, subject in enumerate(plan.subjects):
        if subject.views is not None:
            name = f"figures/maps_{place:02d}_{slug(subject.name)}.png"
            _draw_views(subject, folder / name)
            figures.append(ProbeFigure("maps", name, subject.name))
    write_probe_page(folder, summary, found[0], figures)
    write_toml(folder / "config.toml", plan.config)
    write_json(folder / "summary.json", summary)
    shutil.rmtree(folder / "parts")
    (folder / "inputs.json").unlink()


def _draw_views(subject: Subject, path: Path) -> None:
    from mimlab.report.probe_maps import draw_query_maps

    views = subject.views
    assert views is not None
    titles = [f"depth {layer + 1}" for layer in views.layers]
    draw_query_maps(views.picture, views.layout, views.maps, views.queries, titles, path)
