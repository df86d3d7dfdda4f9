"""Attention statistics of a model while it runs.

    with mimlab.capture(model) as capture:
        model(pixels)
    capture["entropy"]  # (images, layers, heads)

The model's outputs stay what they are within rounding (1e-5). Statistics are those of theory section 7, over the
patches alone, for each image, layer and head; `mimlab.probing.catalogue` says what each means.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.catalogue import ALL, CATALOGUE, CORE
from mimlab.probing.conventions import CONVENTIONS, of_codebase, published
from mimlab.probing.extras import Extras
from mimlab.probing.layout import Layout
from mimlab.probing.methods import Method
from mimlab.probing.sums import Sums, finish
from mimlab.probing.watch import watch
from mimlab.runs.checks import items_of
from mimlab.runs.errors import InputError

SCHEMA = pa.schema(
    [
        ("image", pa.int64()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("statistic", pa.string()),
        ("value", pa.float64()),
    ]
)
"""A row per image, layer, head and statistic; image is null where a row speaks of all images of a call, head where
it speaks of a layer."""


@contextmanager
def capture(
    model: torch.nn.Module,
    statistics: str | Sequence[str] = "core",
    layers: Sequence[int | str] | None = None,
    heads: Sequence[int] | None = None,
    layout: Layout | None = None,
    method: str = "auto",
) -> Iterator["Capture"]:
    """Measure every self-attention of `model` while it runs in this context.

    model: any eager PyTorch model whose attention goes through F.scaled_dot_product_attention, a softmax over a
        square table, or nn.MultiheadAttention; compiled ones run eagerly inside. May be called several times.
    statistics: "core", "all", or names: of statistics (`mimlab.probing.catalogue`), of published ones or of the
        codebase that published them (`mimlab.probing.conventions`).
    layers: places in the forward pass, from 0, or module names; heads: numbers from 0. By default all.
    layout: where the tokens stand, by default read off the model.
    method: "tiles" computes in PyTorch, "compiled" in C++ where a compiler is found, "triton" in a kernel for CUDA;
        "auto" takes the fastest that can be had.

    Raises InputError for what is not known or not to be had, at the start, and for attention that was missed, masked
    or between other tokens, when it happens or when the context ends.
    """
    wanted = names_of(statistics)
    _check_model(model, layout)
    numbers = _listed("heads", heads, "numbers from 0", Integral)
    places = _listed(
        "layers", layers, "places in the forward pass from 0 and names of modules", Integral | str
    )
    found = Capture(wanted, numbers, Method(method))
    with watch(model, found.on_attention, layout, places):
        yield found
    found.close()


def names_of(statistics: str | Sequence[str]) -> tuple[str, ...]:
    """The names that a choice of statistics stands for, each once. Raises InputError for a name that is none."""
    several = statistics if not isinstance(statistics, str) else [statistics]
    names: dict[str, None] = {}
    for name in map(str, items_of("statistics", several, 'names, or "core", or "all"')):
        found = {"core": CORE, "all": ALL}.get(name) or of_codebase(name) or [name]
        names.update(dict.fromkeys(found))
    for name in names:
        if name not in CATALOGUE and name not in CONVENTIONS:
            known = ", ".join(["core", "all", *CATALOGUE, *CONVENTIONS])
            raise InputError(f'no statistic is called "{name}"; known are {known}')
    return tuple(names)


def _check_model(model: object, layout: object) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"model = {model!r} must be a torch.nn.Module; `mimlab.probe` takes models by name, too"
        )
    if layout is not None and not isinstance(layout, Layout):
        raise InputError(
            f"layout = {layout!r} must be a Layout, as Layout(grid=(14, 14), prefix=1, patch_size=(16, 16)) "
            "of mimlab.probing.layout; leave it out to read it off the model"
        )


def _listed(name: str, given: Any, kind: str, types: Any) -> list[Any] | None:
    """A choice of layers or heads as a list. Raises InputError where it is none."""
    if given is None:
        return None
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not items or not all(isinstance(item, types) and not isinstance(item, bool) for item in items):
        raise InputError(f"{name} = {given!r} must be a list of {kind}, at least one; leave it out for all")
    return [int(item) if isinstance(item, Integral) else item for item in items]


def _per(statistic: str) -> str:
    """What has a value of its own: "head", "layer" or "batch"."""
    return CATALOGUE[statistic].per if statistic in CATALOGUE else "head"


@dataclass(eq=False)
class _Layer:
    """What is known of a layer: a tensor for each statistic and call of the model."""

    module: str
    layout: Layout
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    offsets: list[Tensor] = field(default_factory=list)


class Capture:
    """The statistics of what ran. Filled while the context is open, to be read afterwards."""

    def __init__(self, names: tuple[str, ...], heads: list[int] | None, method: Method) -> None:
        self.statistics = names
        self._heads = heads
        self._method = method
        self._extras = [name for name in names if name in CATALOGUE and name not in CORE]
        self._positional = all(name.startswith("positional_") for name in self._extras)
        self._published = [name for name in names if name in CONVENTIONS]
        self._layers: dict[int, _Layer] = {}

    @property
    def layers(self) -> list[str]:
        """Names of the modules, in forward order."""
        return [layer.module for layer in self._in_order()]

    @property
    def layouts(self) -> list[Layout]:
        """Where the tokens of each layer stand."""
        return [layer.layout for layer in self._in_order()]

    def __getitem__(self, statistic: str) -> NDArray[np.float64]:
        """Values of a statistic: (images, layers, heads), nan where a layer has fewer heads.

        (images, layers) for one that speaks of a layer; (calls, layers, heads) for a positional one.
        Raises InputError for one that was not captured.
        """
        if statistic not in self.statistics:
            raise InputError(
                f'"{statistic}" was not captured; captured were {", ".join(self.statistics)}: '
                "ask for it with statistics="
            )
        columns = [self._values(layer, statistic) for layer in self._in_order()]
        heads = max((column.shape[1] for column in columns), default=0)
        padded = [np.pad(c, ((0, 0), (0, heads - c.shape[1])), constant_values=np.nan) for c in columns]
        together = np.stack(padded, axis=1)
        return together[..., 0] if _per(statistic) == "layer" else together

    @property
    def offsets(self) -> NDArray[np.float64]:
        """Mean weight by offset from query to key, (layers, heads, 2 rows - 1, 2 columns - 1), of sum 1.

        Raises InputError where no statistic beyond the core and its positional part was captured, or the layers have
        several grids.
        """
        grids = {layout.grid for layout in self.layouts}
        if self._positional or len(grids) != 1:
            raise InputError(
                'attention by offset needs statistics="all", and layers of one grid: '
                f"these have {sorted(grids)}; choose some with layers="
            )
        return np.stack([torch.cat(layer.offsets).mean(0).cpu().numpy() for layer in self._in_order()])

    @property
    def table(self) -> pa.Table:
        """All values as a tidy table; see `SCHEMA`."""
        parts = []
        for place, layer in sorted(self._layers.items()):
            for statistic in self.statistics:
                values = self._values(layer, statistic)
                image, head = np.indices(values.shape).reshape(2, -1)
                if self._heads is not None:
                    head = np.asarray(self._heads)[head]
                count = values.size
                columns = [
                    pa.nulls(count, pa.int64()) if _per(statistic) == "batch" else pa.array(image),
                    pa.array(np.full(count, place)),
                    pa.array([layer.module] * count),
                    pa.nulls(count, pa.int64()) if _per(statistic) == "layer" else pa.array(head),
                    pa.array([statistic] * count),
                    pa.array(values.ravel()),
                ]
                parts.append(pa.Table.from_arrays(columns, schema=SCHEMA))
        return pa.concat_tables(parts) if parts else SCHEMA.empty_table()

    def on_attention(self, attention: Attention) -> Tensor | None:
        """Measure one call, and return the output that takes the place of its own."""
        if not attention.images:
            raise InputError(f'"{attention.module}" was given a batch of 0 images; give at least one')
        extras = Extras.of(attention, self._positional) if self._extras else None
        output, sums = self._method.attend(attention, None if extras is None else extras.observe)
        layer = self._layers.setdefault(attention.layer, _Layer(attention.module, attention.layout))
        if layer.layout != attention.layout:
            raise InputError(
                f'"{layer.module}" has {attention.layout} now and had {layer.layout} before; '
                "images of one size can be captured together"
            )
        self._check_rows(attention, sums)
        layout, heads = attention.layout, attention.heads
        values = finish(sums, layout)
        if extras is not None:
            values.update(extras.finish())
            if (offsets := values.pop("offsets", None)) is not None:
                by_image = offsets.unflatten(0, (-1, layout.windows)).mean(1)
                layer.offsets.append(self._chosen(by_image, attention))
        if self._published:
            values.update(published(attention, self._published))
        for name in self.statistics:
            of_layer = _per(name) == "layer"
            of_images = values[name].reshape(-1, layout.windows, 1 if of_layer else heads).mean(1)
            chosen = of_images if of_layer else self._chosen(of_images, attention)
            layer.values.setdefault(name, []).append(chosen)
        return output

    def close(self) -> None:
        """Bring everything to the CPU; nothing more is captured."""
        for layer in self._layers.values():
            layer.values = {name: [torch.cat(parts).cpu()] for name, parts in layer.values.items()}

    def _check_rows(self, attention: Attention, sums: Sums) -> None:
        """The weights of every row must sum to 1 (those measured: what the model makes of them later is not seen).

        Rows that are not a number pass, and show in every statistic.
        """
        off = (sums.row.sum(-1) / attention.layout.patches - 1).abs()
        fault = (
            f"do not sum to 1: they are off by {float(off.nan_to_num().max()):.2g}"
            if (off > 1e-3).any()
            else ""
        )
        given = attention.given
        if given is not None and bool(off.isnan().any()) and bool((given.amax(-1) == -torch.inf).any()):
            fault = "have every key masked: such a query attends to nothing and has no statistics"
        if fault:
            raise InputError(
                f'rows of attention in "{attention.module}" {fault}; leave the layer out with layers='
            )

    def _chosen(self, values: Tensor, attention: Attention) -> Tensor:
        """The heads that were asked for, along axis 1."""
        if self._heads is None:
            return values
        if not all(0 <= head < attention.heads for head in self._heads):
            raise InputError(
                f'heads = {self._heads}, but "{attention.module}" has heads 0 to {attention.heads - 1}'
            )
        return values[:, self._heads]

    def _values(self, layer: _Layer, statistic: str) -> NDArray[np.float64]:
        parts = layer.values.get(statistic, [])
        values: NDArray[np.float64] = torch.cat(parts).cpu().numpy()
        return values

    def _in_order(self) -> list[_Layer]:
        return [layer for _, layer in sorted(self._layers.items())]
