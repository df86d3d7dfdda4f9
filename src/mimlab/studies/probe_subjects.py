"""Models as a probe run measures them: each tried on one image first, then batch by batch.

Whatever can be refused (no attention, a grid that does not match, heads that are not there) is refused on that
first image, before anything is written. What is learned there (layers, layouts, heads, a digest of the weights,
maps of a few queries) is a `Subject`; a run that is resumed checks that it is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.capture import Capture, capture
from mimlab.probing.hugging import UNTRAINED, Preprocess
from mimlab.probing.images import Batch, batches
from mimlab.probing.layout import Layout
from mimlab.probing.models import NamedModel, of_transformers
from mimlab.probing.permuted import logit_shares
from mimlab.probing.preprocessing import published
from mimlab.probing.watch import watch
from mimlab.report.probe_tables import LayerRecord, ModelRecord, layout_of
from mimlab.runs import InputError
from mimlab.studies.probe_config import ProbeConfig
from mimlab.studies.probe_parts import OFFSETS_SCHEMA, PROBE_SCHEMA, Part, moments_of

QUERIES = ((1, 4), (1, 2), (3, 4))  # where the queries of maps stand, as parts of the grid's sides
PANELS = 4  # layers that get a map
REASONS = 3  # files named where no image can be used


@dataclass(frozen=True, eq=False)
class Views:
    """Maps of a few queries over one image: (panels, queries, patches), mean over heads.

    picture: (h, w, 3) in [0, 1], what the model was given, its values stretched to that range. layers: of the panels.
    """

    picture: NDArray[np.float32]
    layout: Layout
    queries: Sequence[int]
    layers: Sequence[int]
    maps: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that was tried. load: gives it again. digest: of its weights."""

    load: Callable[[], NamedModel]
    record: ModelRecord
    digest: str
    warnings: Sequence[str]
    views: Views | None

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        return self.record["name"]


def named_module(module: torch.nn.Module, preprocess: Preprocess | None = None) -> NamedModel:
    """A module of one's own as a named model, called after its class.

    preprocess: an RGB image to pixels (3, h, w). Without it ImageNet's, at the side that the module's configuration
    tells, else 224: wrong for a model that was trained on other pixels. Raises InputError in training mode.
    """
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"model = {module!r} must be a name, a torch.nn.Module, a NamedModel, or a list of these"
        )
    if preprocess is not None and not callable(preprocess):
        raise InputError(
            f"preprocess = {preprocess!r} must be a function of an RGB image to pixels (3, h, w)"
        )
    name = type(module).__name__
    if module.training:
        raise InputError(
            f"{name} is in training mode, where dropout disturbs attention; call model.eval() first"
        )
    config: Any = getattr(module, "config", None)
    if getattr(module, "main_input_name", None) != "pixel_values" or config is None:
        return NamedModel(name, module, preprocess or published(224), module)
    return of_transformers(name, module, preprocess or published(int(np.max(config.image_size))))


def tried(load: Callable[[], NamedModel], paths: Sequence[Path], config: ProbeConfig) -> Subject:
    """Try a model on the first image that can be used. Raises InputError for whatever stands in the way."""
    named = on_device(load(), config)
    pixels = _first(paths, named).to(config.device)
    seen = _Seen(config.heads)
    try:
        with _running(config), _captured(named, config):  # before `watch`: it knows what to refuse
            named.forward(pixels)
        with _running(config), watch(named.module, seen.on_attention, named.layout, config.layers):
            named.forward(pixels)
        if config.shares:
            _shares(named, seen.layers, pixels, 0, replace(config, permutations=2))
    except InputError as error:
        raise InputError(f"{named.name}: {error}") from None
    except Exception as error:  # of anybody's model
        raise InputError(
            f"{named.name} fails on an image of {pixels.shape[2]} x {pixels.shape[3]} pixels: "
            f"{type(error).__name__}: {_line(error)}"
        ) from error
    parameters = dict(named.module.named_parameters())
    broken = [name for name, one in parameters.items() if not bool(one.isfinite().all())]
    warnings = [_broken(named.name, broken, len(parameters))] if broken else []
    record: ModelRecord = {
        "name": named.name,
        "parameters": sum(one.numel() for one in parameters.values()),
        "layers": seen.layers,
    }
    return Subject(load, record, _digest(named.module), warnings, seen.views(pixels[0].cpu()))


def on_device(named: NamedModel, config: ProbeConfig) -> NamedModel:
    """The model where it is to run. Raises InputError where that device cannot be had."""
    try:
        named.module.to(config.device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"device = {config.device}: {_line(error)}; cpu can always be had") from None
    return named


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def measured(
    named: NamedModel, record: ModelRecord, label: str, batch: Batch, number: int, config: ProbeConfig
) -> Part:
    """A batch in a model, called `label` in the tables; number: of the batch's first image among all."""
    if not batch.names:
        return Part({}, 0, batch.skipped)
    pixels = batch.pixels.to(config.device)
    with _running(config), _captured(named, config) as found:
        named.forward(pixels)
    if found.layouts != [layout_of(one) for one in record["layers"]]:
        raise InputError(
            f"{batch.names[0]} has another grid of patches than the images before it; let the preprocessing "
            "crop all images to one size"
        )
    heads = [config.heads or range(one["heads"]) for one in record["layers"]]
    where = [(one["layer"], one["module"]) for one in record["layers"]]
    tables = {
        "probe": _table(found.table, label, batch.names),
        "moments": moments_of({name: found[name] for name in found.statistics}, where, heads),
    }
    if has_offsets(record) and "all" in config.statistics:
        tables["offsets"] = _offsets(found, record, heads, label)
    if config.shares:
        tables["shares"] = _shares(named, record["layers"], pixels, number, config)
    return Part(tables, len(batch.names), batch.skipped)


def _shares(
    named: NamedModel, layers: Sequence[LayerRecord], pixels: Tensor, number: int, config: ProbeConfig
) -> pa.Table:
    layouts = {layout_of(one) for one in layers}
    layout = layouts.pop() if len(layouts) == 1 else None  # None: it is refused, and told why
    options = (config.permutations, config.seed, config.layers, config.heads)
    with _running(config):
        return logit_shares(named.module, pixels, layout, *options, forward=named.forward, first=number)


def has_offsets(record: ModelRecord) -> bool:
    """Whether attention by offset can be put in one table: one grid, and one number of heads."""
    return len({(tuple(one["grid"]), one["heads"]) for one in record["layers"]}) == 1


@contextmanager
def _running(config: ProbeConfig) -> Iterator[None]:
    """Without gradients, in the type that was asked for."""
    kind = torch.device(config.device).type
    dtype = getattr(torch, config.dtype)
    try:
        with torch.inference_mode(), torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{config.device} has too little memory ({_line(error)}): lower batch_size = {config.batch_size}"
            + (f" or permutations = {config.permutations}" if config.shares else "")
        ) from None


def _captured(named: NamedModel, config: ProbeConfig) -> Any:
    chosen = (config.statistics, config.layers, config.heads, named.layout, config.method)
    return capture(named.module, *chosen)


def _first(paths: Sequence[Path], named: NamedModel) -> Tensor:
    """Pixels (1, 3, h, w) of the first image that can be used."""
    skipped: list[str] = []
    for batch in batches(paths, named.preprocess, 1):
        if batch.names:
            return batch.pixels
        skipped += [reason for _, reason in batch.skipped[: REASONS - len(skipped)]]
    raise InputError("\n".join([f"none of the {len(paths)} images can be used, among them:", *skipped]))


def _broken(model: str, names: Sequence[str], count: int) -> str:
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{model}: {len(names)} of {count} parameters hold NaN or infinity: {few}. The weights may be damaged."


def _digest(module: torch.nn.Module) -> str:
    """Of all parameters and buffers, names included; without those that weights on disk may lack, drawn on loading."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        if any(part in name for part in UNTRAINED):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _table(table: pa.Table, label: str, names: Sequence[str]) -> pa.Table:
    """A capture's table with the model, and with the images' names for their numbers."""
    columns = {name: table[name] for name in table.column_names}
    image = pa.array(names, pa.string()).take(table["image"].combine_chunks())
    return pa.table(columns | {"model": np.full(len(table), label), "image": image}, schema=PROBE_SCHEMA)


def _offsets(found: Capture, record: ModelRecord, heads: Sequence[Sequence[int]], label: str) -> pa.Table:
    values = found.offsets
    place, head, dy, dx = (axis.ravel() for axis in np.indices(values.shape))
    numbers = np.array([one["layer"] for one in record["layers"]])
    columns = {
        "model": np.full(values.size, label),
        "layer": numbers[place],
        "head": np.asarray(heads[0])[head],
        "dy": dy - values.shape[2] // 2,
        "dx": dx - values.shape[3] // 2,
        "value": values.ravel(),
    }
    return pa.table(columns, schema=OFFSETS_SCHEMA)


@dataclass
class _Seen:
    """What one image shows of each layer: where it is, its layout, and maps of a few queries."""

    heads: Sequence[int] | None
    layers: list[LayerRecord] = field(default_factory=list)
    _maps: dict[int, tuple[Layout, NDArray[np.float64]]] = field(default_factory=dict)

    def on_attention(self, attention: Attention) -> None:
        """Look at one layer, and leave it as it is."""
        layout = attention.layout
        record: LayerRecord = {
            "layer": attention.layer,
            "module": attention.module,
            "heads": attention.heads,
            **asdict(layout),  # type: ignore[typeddict-item]
        }
        self.layers.append(record)
        if layout.windows == 1:
            rows = [layout.prefix + query for query in _queries(layout)]
            logits = [attention.logits(slice(0, 1), slice(row, row + 1))[0, :, 0] for row in rows]
            weights = torch.stack(logits)[..., layout.prefix :].double().softmax(-1)
            chosen = weights if self.heads is None else weights[:, list(self.heads)]
            self._maps[attention.layer] = layout, chosen.mean(1).cpu().numpy()

    def views(self, pixels: Tensor) -> Views | None:
        """Maps of layers spread over the depth, where they cover the image; None where there are none."""
        layouts = {layout for layout, _ in self._maps.values()}
        if len(layouts) != 1:
            return None
        (layout,) = layouts
        covered = [n * side for n, side in zip(layout.grid, layout.patch_size, strict=True)]
        if any(side > length for side, length in zip(covered, pixels.shape[1:], strict=True)):
            return None
        layers = sorted(self._maps)
        spread = np.linspace(0, len(layers) - 1, min(PANELS, len(layers))).round().astype(int)
        shown = [layers[place] for place in dict.fromkeys(spread.tolist())]
        picture = pixels.permute(1, 2, 0).float().numpy()
        low, high = float(picture.min()), float(picture.max())
        return Views(
            (picture - low) / ((high - low) or 1.0),
            layout,
            _queries(layout),
            shown,
            np.stack([self._maps[layer][1] for layer in shown]),
        )


def _queries(layout: Layout) -> list[int]:
    """A few patches of the grid, each once."""
    rows, columns = layout.grid
    places = [(rows * a // b) * columns + columns * a // b for a, b in QUERIES]
    return list(dict.fromkeys(min(place, layout.patches - 1) for place in places))
