"""A probe run before, while and after it measures: models tried, batches measured, tables and summary collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import torch

from mimlab.dynamics.integrators import Progress
from mimlab.probing.capture import names_of
from mimlab.probing.catalogue import baselines
from mimlab.probing.images import batches, each_once
from mimlab.probing.layout import Layout
from mimlab.probing.models import NamedModel
from mimlab.report.probe_tables import (
    LAYERS_SCHEMA,
    ProbeSummary,
    layout_of,
    warnings_of,
    with_random_weights,
)
from mimlab.runs import InputError, to_mapping
from mimlab.runs.tables import read_json, to_json, write_json
from mimlab.studies.probe_config import ProbeConfig
from mimlab.studies.probe_given import Given, images_given
from mimlab.studies.probe_parts import Parts, layers_of, offsets_of, shares_of
from mimlab.studies.probe_subjects import Subject, measured, on_device, tried
from mimlab.studies.single import versions

SHOWN = 3  # files named in a warning

Collected = tuple[pa.Table, pa.Table | None, pa.Table | None]


@dataclass(frozen=True, eq=False)
class Variant:
    """What is measured: a model, or its architecture with weights drawn anew; `label` stands in the tables."""

    label: str
    subject: Subject
    load: Callable[[], NamedModel]


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that can be done: every model has been tried. source: where the images are from, in words. repeated: how
    often a file was given again. cautions: what must be known of the models, before anything is measured."""

    config: ProbeConfig
    paths: Sequence[Path]
    source: str
    repeated: int
    cautions: Sequence[str]
    subjects: Sequence[Subject]
    variants: Sequence[Variant]

    @classmethod
    def of(cls, config: ProbeConfig, models: Mapping[str, Given]) -> Plan:
        """Try every model. Raises InputError for whatever stands in the way."""
        names_of(config.statistics)
        files, source = images_given(config.images, models)
        paths = each_once(files)
        subjects, variants = [], []
        for given in models.values():
            subject = tried(given.load, paths, config)
            subjects.append(subject)
            variants.append(Variant(subject.name, subject, subject.load))
            draw = subject.load().random if config.random_weights else None
            if draw is not None:
                label = with_random_weights(subject.name)
                variants.append(Variant(label, subject, partial(_redrawn, subject.load, config.seed)))
        cautions = [given.caution for given in models.values() if given.caution]
        return cls(config, paths, source, len(files) - len(paths), cautions, subjects, variants)

    def measure(self, parts: Parts, progress: Progress | None) -> None:
        """Measure whatever parts there are not."""
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
            layers.append(layers_of(variant.label, parts.of(place, "moments")))
            offsets.append(offsets_of(parts.of(place, "offsets")))
            shares.append(shares_of(variant.label, parts.of(place, "shares")))
        return (
            pa.concat_tables([LAYERS_SCHEMA.empty_table(), *layers]),
            _joined(offsets),
            _joined(shares),
        )

    def summary(self, parts: Parts, layers: pa.Table, command: str) -> ProbeSummary:
        """What summary.json holds."""
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
        warnings = [*self.cautions, *(one for subject in self.subjects for one in subject.warnings)]
        drawn = {variant.subject.name for variant in self.variants if variant.label != variant.subject.name}
        warnings += [
            f"{model['name']}: no baseline with random weights, since nothing says how they are drawn: probe a "
            "model that was never trained beside it"
            for model in models
            if self.config.random_weights and model["name"] not in drawn
        ]
        warnings += warnings_of(models, layers)
        if self.repeated:
            times = "once" if self.repeated == 1 else f"{self.repeated} times"
            warnings.append(
                f"an image was given again {times}, by another path or the same: each counts once"
            )
        if skipped:
            named = "; ".join(f"{name}: {reason}" for name, reason in skipped[:SHOWN])
            more = f"; and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
            warnings.append(f"{len(skipped)} of {len(self.paths)} images could not be used: {named}{more}")
        return {
            "status": "finished",
            "models": models,
            "images": images,
            "source": self.source,
            "skipped": skipped,
            "warnings": warnings,
            "baselines": list(self._baselines()),
            "command": command,
            "seconds": seconds,
            "images_per_second": measured / seconds if seconds else 0.0,
            "versions": _versions(),
        }

    def _baselines(self) -> Iterator[dict[str, str | float]]:
        """Values of uniform, identity and random attention for each layout of each model, from its first layer on."""
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
        stats = [path.stat() for path in self.paths]
        inputs = {
            **to_mapping(self.config),
            "images": [
                [str(path), stat.st_size, stat.st_mtime_ns]
                for path, stat in zip(self.paths, stats, strict=True)
            ],
            "weights": [subject.digest for subject in self.subjects],
            "versions": _versions(),
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


def _versions() -> dict[str, str]:
    return versions() | {"torch": torch.__version__}


def _redrawn(load: Callable[[], NamedModel], seed: int) -> NamedModel:
    draw = load().random
    assert draw is not None
    return draw(seed)


def _joined(tables: Sequence[pa.Table | None]) -> pa.Table | None:
    found = [table for table in tables if table is not None]
    return pa.concat_tables(found) if found else None
