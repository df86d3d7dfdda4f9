"""``mimlab reproduce --published``: the paper's comparison of pretrained models, on weights that others published.

MAE (masked image modeling) against MoCo v3 (contrastive), DINO (distilled) and DeiT (supervised), all ViT-B/16. The
probe measures them over a folder of images, each beside the same architecture with random weights; the claims are
judged on its table (`mimlab.claims.networks`), and the run directory of the probe stays under published/. Nothing is
downloaded but models that are given by a name of the Hugging Face hub: what is not at hand is said to be needed.

What would mislead: methods are told by names. A file called after a method that did not make it is compared as it is
called.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mimlab.claims import judge_networks
from mimlab.claims.networks import DIVERSITIES, NETWORK_CLAIMS, NetworkEvidence
from mimlab.probing.catalogue import CATALOGUE, RANDOM_WEIGHTS
from mimlab.runs import InputError
from mimlab.studies.outcomes import AGAIN, Outcome, Setting

if TYPE_CHECKING:
    from mimlab.report import Section
    from mimlab.report.probe_tables import ModelRecord


@dataclass(frozen=True)
class Method:
    """A way to pretrain, and its published ViT-B/16.

    spelled: pattern of names that mean it. files: as published, the first that is there is taken. project: where the
    weights are, in words.
    """

    name: str
    kind: str
    spelled: str
    files: tuple[str, ...]
    project: str


METHODS = (
    Method(
        "MAE",
        "masked image modeling",
        r"mae",
        ("mae_pretrain_vit_base.pth", "mae_pretrain_vit_base_full.pth"),
        "project facebookresearch/mae: README, pre-trained checkpoint, ViT-Base; or facebook/vit-mae-base on the hub",
    ),
    Method(
        "MoCo v3",
        "contrastive",
        r"moco|vit-b-300ep",
        ("vit-b-300ep.pth.tar",),
        "project facebookresearch/moco-v3: CONFIG.md, ViT-Base, 300 epochs",
    ),
    Method(
        "DINO",
        "distilled from itself",
        r"dino(?![-_]?v[23])",
        ("dino_vitbase16_pretrain.pth", "dino_vitbase16_pretrain_full_checkpoint.pth"),
        "project facebookresearch/dino: README, ViT-B/16, backbone only; or facebook/dino-vitb16 on the hub",
    ),
    Method(
        "DeiT",
        "supervised",
        r"deit",
        ("deit_base_patch16_224-b5f2ef4d.pth",),
        "project facebookresearch/deit: README of DeiT, DeiT-base; or facebook/deit-base-patch16-224 on the hub",
    ),
)
MASKED, OTHERS = METHODS[0].name, tuple(method.name for method in METHODS[1:])
BESIDE = ("entropy", "distance_ratio")
"""Statistics drawn beside those that are judged: a diverse map that is nearly uniform, or far, is told by them."""


def find_published(names: Sequence[str]) -> dict[str, str]:
    """The name of a model for each method that is at hand.

    names: of folders in which the published files lie, anywhere below; or of models as `mimlab probe` takes them
    (files, directories of transformers, hub names), called so that the method is told: mae.pth, facebook/dino-vitb16.
    Raises InputError where a name tells no method or a folder holds none, and for two models of one method.

    >>> find_published(["facebook/vit-mae-base", "./weights/mocov3.pth", "facebook/dino-vitb16"])
    {'MAE': 'facebook/vit-mae-base', 'MoCo v3': './weights/mocov3.pth', 'DINO': 'facebook/dino-vitb16'}
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(name).expanduser()
        folder = path.is_dir() and not (path / "config.json").is_file()
        for method, model in (_in_folder(path) if folder else {_method_of(name): name}).items():
            if method in found:
                raise InputError(
                    f"published: {found[method]} and {model} are both {method}; give one of them"
                )
            found[method] = model
    return {method.name: found[method.name] for method in METHODS if method.name in found}


def _method_of(name: str) -> str:
    last = name.rstrip("/").rpartition("/")[2].lower()
    told = [method.name for method in METHODS if re.search(method.spelled, last)]
    if len(told) != 1:
        raise InputError(
            f"published: {name} does not tell by its name which of {_listed(METHODS)} it is; put one of mae, moco, "
            "dino and deit into the name of the file or directory (DINOv2 and DINOv3 are none of them)"
        )
    return told[0]


def _in_folder(folder: Path) -> dict[str, str]:
    found = {}
    for method in METHODS:
        for file in method.files:
            places = sorted(path for path in folder.rglob(file) if path.is_file())
            if len(places) > 1:
                raise InputError(
                    f"published: {places[0]} and {places[1]} are both {method.name}; name one of them"
                )
            if places:
                found[method.name] = str(places[0])
                break
    if not found:
        wanted = ", ".join(method.files[0] for method in METHODS)
        raise InputError(
            f"published: {folder} holds none of {wanted}; give the folder that does, or files by name"
        )
    return found


def _listed(methods: Sequence[Method]) -> str:
    *first, last = (method.name for method in methods)
    return f"{', '.join(first)} and {last}" if first else last


def published_command(names: Sequence[str], images: Sequence[Path] | None) -> str:
    """The command line that compares these models again."""
    given = ["--images", *map(str, images)] if images else []
    return shlex.join([*shlex.split(AGAIN), "--published", *names, *given])


def compare_published(
    found: Mapping[str, str], images: Sequence[Path] | None, command: str, folder: Path
) -> Outcome:
    """Judge what is at hand (`find_published`) and say what is needed. Raises InputError for bad input."""
    needed = [method for method in METHODS if method.name not in found]
    models: Sequence[ModelRecord] = ()
    table = pa.table({name: pa.array([], kind) for name, kind in _COLUMNS.items()})
    figures: list[str] = []
    layers: list[dict[str, Any]] = []
    label = "no pretrained model at hand; what is needed, and where it is, is said under Published models"
    if found:
        models, table, label, figures = _measured(found, images, folder)
    evidence = NetworkEvidence.of(table, models, MASKED, OTHERS)
    verdicts = judge_networks(evidence)
    if found:
        at_hand = replace(evidence, others=tuple(name for name in OTHERS if name in found))
        layers = [record for statistic in DIVERSITIES for record in _judged_layers(at_hand, statistic)]
    expected = {claim.name: "inconclusive" for claim in NETWORK_CLAIMS} if needed else {}
    setting = Setting("published models", label, expected, command)
    records = setting.records(verdicts, figures[0] if figures else None)
    return Outcome(
        "published models",
        records,
        {"depth": figures},
        records=layers,
        sections=[_methods(found, figures, command), *_by_depth(layers)],
    )


_COLUMNS = {
    "model": pa.string(),
    "image": pa.string(),
    "layer": pa.int64(),
    "statistic": pa.string(),
    "value": pa.float64(),
}
"""What is read of probe.parquet."""


def _measured(
    found: Mapping[str, str], images: Sequence[Path] | None, folder: Path
) -> tuple[list[ModelRecord], pa.Table, str, list[str]]:
    """The probe's models and values, called by their methods; where they are from; and the figure."""
    from mimlab.report.probes import draw_depth
    from mimlab.studies.probe import run_probe
    from mimlab.studies.probe_config import ProbeConfig

    config = ProbeConfig(tuple(found.values()), None if images is None else tuple(images))
    again = ["mimlab", "probe", *found.values(), *(["--images", *map(str, images)] if images else [])]
    command = shlex.join([*again, "--out", "runs/published"])
    summary, layers = run_probe(config, folder / "published", command=command)
    names = {name: method for method, name in found.items()}
    names |= {name + RANDOM_WEIGHTS: method + RANDOM_WEIGHTS for name, method in names.items()}
    models = [cast("ModelRecord", {**model, "name": names[model["name"]]}) for model in summary["models"]]
    figure = "figures/published.png"
    draw_depth(_renamed(layers, names), models, folder / figure, [*DIVERSITIES, *BESIDE])
    table = pq.read_table(
        folder / "published/probe.parquet",
        columns=list(_COLUMNS),
        filters=[("statistic", "in", list(DIVERSITIES))],
    )
    label = f"{', '.join(found)} on {summary['images']} images from {summary['source']}"
    return models, _renamed(table, names), label, [figure]


def _renamed(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """The table with its models called otherwise."""
    models = table["model"].combine_chunks().dictionary_encode()
    called = pa.array([names[name] for name in models.dictionary.to_pylist()], pa.string())
    return table.set_column(table.column_names.index("model"), "model", called.take(models.indices))


def _methods(found: Mapping[str, str], figures: Sequence[str], command: str) -> Section:
    """Which models there are, and how to get those that there are not."""
    from mimlab.report import Section

    details = [
        (
            f"{method.name}, {method.kind}",
            found.get(method.name) or f"needs the weights: {method.files[0]}, from {method.project}",
        )
        for method in METHODS
    ]
    sentence = (
        "ViT-B/16 of the paper's comparison. No file is downloaded: get them from their projects into one "
        "folder, and name that with --published. Each model is measured beside the same architecture with random "
        "weights; what lies there, or at uniform attention, is no evidence of anything learned."
    )
    return Section("Published models", sentence, figures=figures, details=details, command=command)


def _judged_layers(evidence: NetworkEvidence, statistic: str) -> Iterator[dict[str, Any]]:
    """A record per layer: the least difference there and its verdict, and the mean of each model, over images and
    heads; of random weights the largest."""
    claim = NETWORK_CLAIMS[DIVERSITIES.index(statistic)]
    for layer in range(max(len(grid) for grid in evidence.grids.values())):
        means = {name: _mean(evidence, name, statistic, layer) for name in evidence.grids}
        chance = [_mean(evidence, name + RANDOM_WEIGHTS, statistic, layer) for name in evidence.grids]
        verdict = claim.judge(evidence.at(layer))
        assert verdict is not None
        told = verdict.as_dict()
        yield {
            "statistic": statistic,
            "layer": layer,
            **{key: told[key] for key in ("value", "low", "high", "verdict", "evidence")},
            "means": means,
            "random_weights": max((one for one in chance if one is not None), default=None),
        }


def _mean(evidence: NetworkEvidence, name: str, statistic: str, layer: int) -> float | None:
    values = evidence.values.get((name, statistic))
    if values is None or layer >= values.shape[1] or not len(values):
        return None
    return float(values[:, layer].mean())


def _by_depth(layers: Sequence[Mapping[str, Any]]) -> list[Section]:
    """A table for each statistic, of the records of `_judged_layers`."""
    from mimlab.report import Section, format_interval

    rows: dict[str, list[dict[str, Any]]] = {}
    for one in layers:
        ends = (one["value"], one["low"], one["high"])
        row = {
            "depth": one["layer"] + 1,
            **one["means"],
            "random weights": one["random_weights"],
            "least difference": one["evidence"] if ends[0] is None else format_interval(*ends, digits=3),
            "verdict": one["verdict"],
        }
        rows.setdefault(one["statistic"], []).append(row)
    sentence = (
        f"Means over heads and images; of random weights the largest. The least difference of {MASKED} to another is "
        "paired by image; its interval covers all depths and models at once, widened by what random weights reach."
    )
    return [
        Section(f"Published models by depth: {CATALOGUE[statistic].title}", sentence, rows=found)
        for statistic, found in rows.items()
    ]
