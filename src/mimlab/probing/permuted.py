"""Shares of logit variance in a network: its images with their patches permuted (theory, section 8).

All B permuted copies of an image go through the model in one forward pass. A layer is then measured in two
walks over blocks of rows, by query position and by query item, with all samples of a block at hand, so memory
is linear in tokens: no table of N² logits, and the T of `mimlab.probing.shares` to float32's last digits.
The pass itself cannot be cut, because T pairs every two samples of a row; where B images are too many for
the memory at hand, ask for fewer `permutations`. The estimate stays unbiased, with more scatter.

Prefix tokens take part in the model as ever; rows and columns are the patches alone. Position biases and
masks count as part of the logits.

Misuse: permuted images lie off the distribution that a trained model knows. What is measured is how its
logits depend on position and content where the two are independent, not on photographs as they are
(docs/shares.md). Dropout and other randomness would break the estimator: evaluation mode is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimlab.probing.attention import Attention
from mimlab.probing.layout import Layout
from mimlab.probing.shares import COMPONENTS, checked_permutations, shares_from
from mimlab.probing.watch import watch
from mimlab.runs.checks import items_of, whole_number
from mimlab.runs.errors import InputError

BLOCK = 2**20  # logits at hand at once, over samples and heads: 16 MB in float64, twice

SHARES_SCHEMA = pa.schema(
    [
        ("image", pa.int64()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("component", pa.string()),
        ("share", pa.float64()),
    ]
)


def logit_shares(
    model: nn.Module,
    images: Iterable[Tensor],
    layout: Layout | None = None,
    permutations: int = 16,
    seed: int = 0,
    layers: Sequence[int | str] | None = None,
    heads: Sequence[int] | None = None,
    drop_self: bool = True,
    forward: Callable[[Tensor], object] | None = None,
    first: int = 0,
) -> pa.Table:
    """Shares of logit variance per image, layer, head and component, as a table: SHARES_SCHEMA.

    Parameters
    ----------
    model, forward
        A module in evaluation mode, and how to call it on pixels (B, 3, h, w) where that is not `model(pixels)`.
    images
        Preprocessed images (3, h, w), on the model's device; one is taken at a time.
    layout
        Which tokens are patches; None: found from the model, in one more pass over the first image.
    permutations
        B >= 2, the images in one forward pass. The scatter of an estimate falls like 1/B, and less once the
        images' own differences show.
    seed, first
        Image number n draws its permutations from (seed, n); the first is number `first`. So a table made in
        several calls is the same as one made in a single call.
    layers, heads
        Layers by place or module name, heads by number; None: all. Every chosen layer must attend globally.
    drop_self
        As in `mimlab.probing.shares.shares_of`; the layer's q = p entries are left out unless False.

    No unit; see `mimlab.probing.shares.shares_of` for the shares' names and range. Raises InputError for a
    model in training mode, images that the patches do not tile, windowed attention, no image.
    """
    whole_number("permutations", permutations, least=2)
    if model.training:
        raise InputError("the model is in training mode, where passes may differ; call model.eval() first")
    call = model if forward is None else forward
    remaining = iter(images)
    opening = next(remaining, None)
    if opening is None:
        raise InputError("there is no image; give at least one, preprocessed, of shape (3, h, w)")
    chosen = None if layers is None else items_of("layers", layers, "layers")
    of_them = None if heads is None else items_of("heads", heads, "heads")
    if layout is None:
        layout = _layout_of(model, call, opening, chosen)

    tables = []
    for number, image in enumerate(chain([opening], remaining), start=first):
        generator = np.random.default_rng((seed, number))
        order = np.array([generator.permutation(layout.patches) for _ in range(permutations)])
        tables += _tables_of(model, call, image, number, layout, order, chosen, of_them, drop_self)
    return pa.concat_tables(tables)


def _tables_of(
    model: nn.Module,
    call: Callable[[Tensor], object],
    image: Tensor,
    number: int,
    layout: Layout,
    order: NDArray[np.int64],
    layers: Sequence[int | str] | None,
    heads: Sequence[int] | None,
    drop_self: bool,
) -> list[pa.Table]:
    """A table for each layer, from one forward pass."""
    tables = []

    def measure(attention: Attention) -> None:
        shares = attention_shares(attention, order, drop_self)
        kept = range(attention.heads) if heads is None else heads
        tables.append(_table(number, attention, kept, shares))

    with torch.inference_mode(), watch(model, measure, layout=layout, layers=layers):
        call(permuted(image, layout, order))
    return tables


def _table(
    number: int, attention: Attention, heads: Sequence[int], shares: dict[str, NDArray[np.float64]]
) -> pa.Table:
    """A row per head and component."""
    if not set(heads) <= set(range(attention.heads)):
        raise InputError(
            f"heads = {list(heads)}; layer {attention.layer} ({attention.module}) has heads 0 to "
            f"{attention.heads - 1}: choose of these, or other layers"
        )
    rows = len(heads) * len(COMPONENTS)
    columns = {
        "image": np.full(rows, number),
        "layer": np.full(rows, attention.layer),
        "module": [attention.module] * rows,
        "head": np.repeat(np.asarray(heads, dtype=np.int64), len(COMPONENTS)),
        "component": list(COMPONENTS) * len(heads),
        "share": [shares[name][head] for head in heads for name in COMPONENTS],
    }
    return pa.table(columns, schema=SHARES_SCHEMA)


def attention_shares(
    attention: Attention, permutations: Any, drop_self: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Shares by name of a layer's heads, each (H,), where image b of the call carries permutation b.

    The same numbers as `mimlab.probing.shares.shares_of` on each head's logits of patch rows and patch
    columns. Raises InputError for windowed attention, or where samples or patches are not as many as the
    permutations say.
    """
    order = torch.from_numpy(checked_permutations(permutations, drop_self)).to(attention.device)
    B, N = order.shape
    prefix, H, layout = attention.layout.prefix, attention.heads, attention.layout
    if layout.windows > 1 or (attention.images, layout.patches) != (B, N):
        raise InputError(
            f"layer {attention.layer} ({attention.module}) attends over {layout.windows} windows of "
            f"{layout.patches} patches in {attention.images} maps, and {B} images of {N} patches were permuted; "
            "shares need global attention over the patches that move: choose such layers"
        )
    every = N / (N - 1) if drop_self else 1.0  # from a mean with the zeros left out to one without them
    total = {name: order.new_zeros(H, dtype=torch.float64) for name in ("pq", "pc", "hq", "hc")}
    column = order.new_zeros((B, H, N), dtype=torch.float64)
    square = order.new_zeros(H, dtype=torch.float64)

    step = max(1, BLOCK // (B * H * attention.layout.tokens))
    for start in range(0, N, step):
        for walk, index in (("p", torch.arange(N, device=order.device).expand(B, N)), ("h", order)):
            rows = index[:, start : start + step]
            s = attention.rows_of(slice(None), rows + prefix)[..., prefix:].double()
            s = _centred(s, rows if drop_self else None)
            moved = s.gather(3, order[:, None, None, :].expand_as(s))
            total[walk + "q"] += s.sum(0).square_().sum((1, 2))
            total[walk + "c"] += moved.sum(0).square_().sum((1, 2))
            if walk == "p":
                square += s.square().sum((0, 2, 3))
                column += s.sum(2)

    entries, pairs = N * N, B * (B - 1)
    T = {
        name: (every ** (1 if name in ("pq", "hc") else 2) * (sums - square) / (entries * pairs))
        .cpu()
        .numpy()
        for name, sums in total.items()
    }
    column *= every / N
    for name, means in (("q", column), ("c", column.gather(2, order[:, None, :].expand_as(column)))):
        products = means.sum(0).square() - means.square().sum(0)
        T[name] = (products.sum(1) / (N * pairs)).cpu().numpy()
    return shares_from(T, (every * square / (entries * B)).cpu().numpy())


def _centred(s: Tensor, own: Tensor | None) -> Tensor:
    """Logits (B, H, r, N) minus the mean of their row; in place. `own` (B, r): the column to leave out, then 0."""
    if own is None:
        return s.sub_(s.mean(3, keepdim=True))
    where = own[:, None, :, None].expand(*s.shape[:3], 1)
    s.scatter_(3, where, 0.0)
    s.sub_(s.sum(3, keepdim=True) / (s.shape[3] - 1))
    return s.scatter_(3, where, 0.0)


def permuted(image: Tensor, layout: Layout, permutations: Any) -> Tensor:
    """B copies of an image (3, h, w) with its patches moved, item i to position permutations[b, i]: (B, 3, h, w).

    Raises InputError where the layout's patches do not tile the image.

    >>> image = torch.tensor([[[0.0, 1.0, 2.0]]])
    >>> permuted(image, Layout(grid=(1, 3)), [[2, 0, 1], [0, 1, 2]])[0].tolist()
    [[[1.0, 2.0, 0.0]]]
    """
    (rows, columns), (height, width) = layout.grid, layout.patch_size
    if image.ndim != 3 or tuple(image.shape[1:]) != (rows * height, columns * width):
        raise InputError(
            f"an image has shape {tuple(image.shape)}; a grid of {rows} x {columns} patches of {height:g} x "
            f"{width:g} pixels needs (3, {rows * height:g}, {columns * width:g}): give the preprocessed image "
            "and its layout"
        )
    item_at = torch.as_tensor(
        np.argsort(checked_permutations(permutations, False), axis=1), device=image.device
    )
    sides = (int(height), int(width))
    patches = image.unflatten(1, (rows, sides[0])).unflatten(3, (columns, sides[1])).permute(1, 3, 0, 2, 4)
    moved = patches.flatten(0, 1)[item_at].unflatten(1, (rows, columns))  # (B, rows, columns, 3, h, w)
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(len(item_at), *image.shape)


def _layout_of(
    model: nn.Module, call: Callable[[Tensor], object], image: Tensor, layers: Sequence[int | str] | None
) -> Layout:
    """The layout that all chosen layers share, from one pass over an image as it is."""
    layouts: set[Layout] = set()
    with torch.inference_mode(), watch(model, lambda attention: layouts.add(attention.layout), layers=layers):
        call(image[None])
    if len(layouts) != 1 or max(layout.windows for layout in layouts) > 1:
        raise InputError(
            "the chosen layers attend within windows, or to grids that differ: "
            + ", ".join(f"{layout.windows} x {layout.grid}" for layout in layouts)
            + "; shares need global attention on one grid of patches: choose such layers"
        )
    return layouts.pop()
