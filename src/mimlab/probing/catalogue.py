"""The statistics of the probe: of each its formula, unit, range, direction, and its value for three attentions.

This is the one place where they are stated; figures, pages and the documentation read them here. A map holds
the weights a_ij of query i over the N patches of the layout (softmax over the patch columns; the weights w_ij
are those over all tokens, prefix included), ā = mean_i a_i, H is the Shannon entropy in nats, 0 log 0 = 0
(theory, section 7).

The three attentions: *uniform*, equal weights on all tokens; *identity*, each query attends to itself alone;
*random*, the softmax of independent standard normal logits. The values of the first two are exact; those of the
third are limits for large N, and of many images for the positional statistics. Random attention is not a model
with random weights, whose logits are neither independent nor of that size: such a model has to be measured.

What would mislead: values of another layout. log N, distances and spread change with the grid, and with windowed
attention `grid` is one window's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mimlab.probing.layout import Layout

OfLayout = Callable[[Layout], float]
RADII = (1, 2, 4)
"""Radii of locality, in sides of a patch."""
RANDOM_WEIGHTS = " (random weights)"
"""What follows a model's name where the same architecture was measured with weights drawn anew."""


@dataclass(frozen=True)
class Statistic:
    """One statistic: how it is called, computed and read.

    name, title: in tables, and in words. formula: in the theory's symbols, as plain text. unit: "" where there is
    none. range: the values that it can take. higher: what a higher value says. uniform, identity, random: its
    value for these attentions, from the layout; nan where a layout has too few patches for it to mean anything.
    per: what has a value of its own, "head" (of one image), "layer" (of one image) or "batch" (a head, over the
    images of one forward call). caution: what not to conclude, if anything.
    """

    name: str
    title: str
    formula: str
    unit: str
    range: str
    higher: str
    uniform: OfLayout
    identity: OfLayout
    random: OfLayout
    per: str = "head"
    caution: str = ""


def baselines(layout: Layout, statistics: Sequence[str] | None = None) -> list[dict[str, str | float]]:
    """Records with the keys `statistic, uniform, identity, random`, for all or the named statistics.

    Published conventions are told where their formulas take the layout, else nan; other names are left out.

    >>> baselines(Layout(grid=(14, 14), patch_size=(16, 16)), ["diversity"])
    [{'statistic': 'diversity', 'uniform': 0.0, 'identity': 1.0, 'random': 0.6321205588285577}]
    """
    known: dict[str, Statistic | Baselines] = {**CATALOGUE, **PUBLISHED}
    chosen = ALL if statistics is None else [name for name in statistics if name in known]
    return [
        {
            "statistic": name,
            "uniform": known[name].uniform(layout),
            "identity": known[name].identity(layout),
            "random": known[name].random(layout),
        }
        for name in chosen
    ]


@dataclass(frozen=True)
class Baselines:
    """Of a statistic that others published: its value for uniform, identity and random attention, from the layout."""

    uniform: OfLayout
    identity: OfLayout
    random: OfLayout


def _constant(value: float) -> OfLayout:
    return lambda layout: value


def _paired(of_two: OfLayout) -> OfLayout:
    """As `of_two`, but nan where there is one patch: there are no two queries to compare."""
    return lambda layout: of_two(layout) if layout.patches > 1 else math.nan


def _log_patches(layout: Layout) -> float:
    return math.log(layout.patches)


def _prefix_share(layout: Layout) -> float:
    return layout.prefix / layout.tokens


def _share_within(radius: float) -> OfLayout:
    """Share of all pairs of patches, a patch and itself included, that are at most `radius` sides apart."""

    def share(layout: Layout) -> float:
        counts = [n - np.abs(np.arange(1 - n, n)) for n in layout.grid]  # pairs at each offset
        offsets = np.hypot(*np.meshgrid(*(np.arange(1 - n, n) for n in layout.grid), indexing="ij"))
        return float(counts[0] @ (offsets <= radius) @ counts[1] / layout.patches**2)

    return share


_RANDOM_DIVERSITY = 1 - math.exp(-1)  # cos = E[w]² / E[w²] for independent lognormal weights w

_CORE = (
    Statistic(
        name="distance",
        title="Attention distance",
        formula="mean_i Σ_j a_ij ‖pos_i - pos_j‖",
        unit="px",
        range="0 to the largest distance of two patches",
        higher="attention reaches farther; lower is more local",
        uniform=Layout.uniform_distance,
        identity=_constant(0.0),
        random=Layout.uniform_distance,
        caution="in pixels of the image that the model is given: compare models by the ratio",
    ),
    Statistic(
        name="distance_ratio",
        title="Distance over uniform's",
        formula="mean_i Σ_j a_ij ‖pos_i - pos_j‖ / mean_i,j ‖pos_i - pos_j‖",
        unit="",
        range="0 to the largest distance over the mean one, below 3",
        higher="attention reaches farther; below 1 is more local than uniform",
        uniform=_paired(_constant(1.0)),
        identity=_paired(_constant(0.0)),
        random=_paired(_constant(1.0)),
        caution="1 is also the value of uniform attention, which looks nowhere in particular",
    ),
    Statistic(
        name="entropy",
        title="Entropy",
        formula="mean_i H(a_i), H(a_i) = -Σ_j a_ij log a_ij",
        unit="nats",
        range="0 to log N",
        higher="each query spreads its attention wider; lower is more focused",
        uniform=_log_patches,
        identity=_constant(0.0),
        random=_paired(lambda layout: _log_patches(layout) - 0.5),
        caution="depends on N",
    ),
    Statistic(
        name="information",
        title="Information",
        formula="I = H(ā) - mean_i H(a_i)",
        unit="nats",
        range="0 to log N",
        higher="where a query looks depends more on which query it is",
        uniform=_constant(0.0),
        identity=_log_patches,
        random=_paired(_constant(0.5)),
        caution="0 for uniform attention and for a collapse (all queries alike): see the mean row's entropy",
    ),
    Statistic(
        name="mean_row_entropy",
        title="Entropy of the mean row",
        formula="H(ā), ā = mean_i a_i",
        unit="nats",
        range="0 to log N",
        higher="all patches are looked at alike; lower: queries share a few targets",
        uniform=_log_patches,
        identity=_log_patches,
        random=_log_patches,
        caution="depends on N",
    ),
    Statistic(
        name="nmi",
        title="NMI",
        formula="I / sqrt(log N · H(ā)), 0 where H(ā) = 0",
        unit="",
        range="0 to 1",
        higher="where a query looks depends more on which query it is",
        uniform=_constant(0.0),
        identity=_paired(_constant(1.0)),
        random=_paired(lambda layout: 0.5 / _log_patches(layout)),
        caution="depends on N: not comparable across resolutions; 0 is ambiguous, as for the information",
    ),
    Statistic(
        name="diversity",
        title="Diversity",
        formula="1 - mean_i≠j cos(a_i, a_j)",
        unit="",
        range="0 to 1",
        higher="queries look at more different places",
        uniform=_paired(_constant(0.0)),
        identity=_paired(_constant(1.0)),
        random=_paired(_constant(_RANDOM_DIVERSITY)),
        caution="noise is diverse too: random logits alone give 0.63",
    ),
    Statistic(
        name="spread",
        title="Spread",
        formula="mean_i≠j ‖a_i - a_j‖²",
        unit="",
        range="0 to 2",
        higher="queries look at more different places, and with more focus",
        uniform=_paired(_constant(0.0)),
        identity=_paired(_constant(2.0)),
        random=_paired(lambda layout: 2 * (math.e - 1) / layout.patches),
        caution="depends on N",
    ),
    Statistic(
        name="prefix_mass",
        title="Mass on prefix tokens",
        formula="mean_i Σ_j w_ij over the prefix tokens j (CLS, registers)",
        unit="",
        range="0 to 1",
        higher="more attention goes to CLS and registers, and less to what the other statistics describe",
        uniform=_prefix_share,
        identity=_constant(0.0),
        random=_prefix_share,
    ),
)

_LOCALITY = tuple(
    Statistic(
        name=f"locality_{radius}",
        title=f"Mass within {radius} {'patch' if radius == 1 else 'patches'}",
        formula=f"mean_i Σ_j a_ij over the patches j within {radius} of i, in patch sides of the grid",
        unit="",
        range="0 to 1",
        higher="attention is more local",
        uniform=_share_within(radius),
        identity=_constant(1.0),
        random=_share_within(radius),
    )
    for radius in RADII
)

_HEADS = Statistic(
    name="head_diversity",
    title="Diversity between heads",
    formula="1 - mean_i mean_h≠k cos(a_i of head h, a_i of head k)",
    unit="",
    range="0 to 1",
    higher="the heads of a layer look at more different places",
    uniform=_constant(0.0),
    identity=_constant(0.0),
    random=_paired(_constant(_RANDOM_DIVERSITY)),
    per="layer",
    caution="noise is diverse too: random logits alone give 0.63; nan where a layer has one head",
)

_POSITIONAL = tuple(
    Statistic(
        name=f"positional_{one.name}",
        title=f"Positional {one.title if one.title.isupper() else one.title[0].lower() + one.title[1:]}",
        formula=f"{one.formula}, of the map averaged over the images of one forward call",
        unit=one.unit,
        range=one.range,
        higher=f"{one.higher}; here only what does not change with the image",
        uniform=one.uniform,
        identity=one.identity,
        random=one.uniform,  # independent of the image, it averages out
        per="batch",
        caution="depends on how many images are averaged: few leave part of what belongs to each image",
    )
    for one in _CORE
    if one.name != "prefix_mass"
)

CATALOGUE: dict[str, Statistic] = {one.name: one for one in (*_CORE, *_LOCALITY, _HEADS, *_POSITIONAL)}
CORE: tuple[str, ...] = tuple(one.name for one in _CORE)
ALL: tuple[str, ...] = tuple(CATALOGUE)


def _squared(of_square: OfLayout) -> OfLayout:
    """As `of_square`, but nan where the published distances refuse the layout."""

    def value(layout: Layout) -> float:
        square = layout.grid[0] == layout.grid[1] > 1 and layout.patch_size[0] == layout.patch_size[1]
        return of_square(layout) if square else math.nan

    return value


def _published_distance(of_square: OfLayout) -> Baselines:
    return Baselines(_squared(of_square), _squared(_constant(0.0)), _squared(of_square))


PUBLISHED: dict[str, Baselines] = {
    "distance:cl-vs-mim": _published_distance(Layout.uniform_distance),
    "nmi:cl-vs-mim": Baselines(CATALOGUE["nmi"].uniform, CATALOGUE["nmi"].identity, CATALOGUE["nmi"].random),
    "distance:probing-vits": _published_distance(
        lambda layout: layout.uniform_distance() * layout.patches / layout.tokens
    ),
    "distance:vit_analysis": _published_distance(
        lambda layout: layout.uniform_distance() / ((layout.grid[0] - 1) * layout.patch_size[0])
    ),
    "deviation:vit_analysis": Baselines(
        _paired(_constant(0.0)),
        _paired(lambda layout: 1 / math.sqrt(layout.patches)),
        _paired(lambda layout: math.sqrt(math.e - 1) / layout.tokens),
    ),
}
"""Baselines of the statistics in `mimlab.probing.conventions`, each from its docstring there."""
