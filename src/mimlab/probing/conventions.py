"""Attention statistics as three published codebases define them, beside the project's own.

They differ in what becomes of the weight on CLS, in the constant that keeps a division or a logarithm finite,
and in the unit of length; docs/conventions.md gives the formulas side by side, with sources and numbers. a_ij
is the weight of patch query i on patch key j *out of the softmax over all tokens*, so a row's patch mass
m_i = Σ_j a_ij is below 1 by what the prefix takes; d_ij = ‖pos_i - pos_j‖; N patches in a square of g x g.

Every image is measured by itself, and averages over images are the reader's. Sums are float64 and so is all
arithmetic on the float32 weights: the results are the formulas, without the noise of running them in float32.
Memory is linear in tokens: row blocks come in, N values per image and head stay at most.

Extended: the published codes drop one CLS token (probing-vits also two); here all prefix tokens are dropped,
which is the same where they can run. Not extended: grids or patches that are not square, which the distances
refuse as the published codes do.

What would give wrong numbers: comparing these to `distance` or `nmi` of theory, section 7, under a sink. Where
CLS takes all of a row that float32 can hold, the map among patches is lost and each code shows its constant.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mimlab.probing.attention import Attention
from mimlab.probing.layout import Layout
from mimlab.runs.errors import InputError

BLOCK = 2**20
"""Weights of a block of rows."""


class Convention(ABC):
    """One published statistic of one layer, summed over blocks of the attention map's rows.

    `images` and `heads` are those of the layer's call. Call `update` with every row of every image once, in
    blocks of any size and order, then `finish`. Raises InputError for a layout that the formula cannot take.

    >>> layout = Layout(grid=(14, 14), prefix=1, patch_size=(16, 16))
    >>> uniform = torch.full((2, 1, 197, 197), 1 / 197)
    >>> distance = CONVENTIONS["distance:probing-vits"](layout, images=2, heads=1)
    >>> distance.update(uniform[:1], images=slice(0, 1), rows=slice(0, 197))
    >>> distance.update(uniform[1:, :, :100], images=slice(1, 2), rows=slice(0, 100))
    >>> distance.update(uniform[1:, :, 100:], images=slice(1, 2), rows=slice(100, 197))
    >>> [f"{value:.2f}" for value in distance.finish().flatten().tolist()]
    ['115.90', '115.90']
    """

    def __init__(
        self, layout: Layout, images: int, heads: int, device: torch.device | str | None = None
    ) -> None:
        if layout.patches < 2:
            raise InputError(
                f"a grid of {layout.patches} patch has no published statistic: they compare patches; give at "
                "least 2 x 2 patches, or leave these statistics out"
            )
        self.layout = layout
        self.shape = (images, heads)
        self.device = device
        self._rows_due = images * layout.tokens
        self._start()

    def update(self, weights: Tensor, images: slice, rows: slice) -> None:
        """Take in rows `rows` of the maps of `images`.

        weights: (images, heads, rows, tokens), each row of the softmax over all tokens, summing to 1; rows and
        columns count all tokens, the prefix first. Rows of the prefix are skipped.
        """
        span = range(self.layout.tokens)[rows]
        first = max(span.start, self.layout.prefix)
        self._rows_due -= weights.shape[0] * len(span)
        if first < span.stop:
            queries = slice(first - self.layout.prefix, span.stop - self.layout.prefix)
            among_patches = weights.detach()[:, :, first - span.start :, self.layout.prefix :]
            self._add(among_patches.to(torch.float64, copy=True), images, queries)

    def finish(self) -> Tensor:
        """The statistic, (images, heads) float64. Raises InputError where rows are missing or came twice."""
        if self._rows_due:
            fault = "never came" if self._rows_due > 0 else "came twice"
            raise InputError(
                f"{abs(self._rows_due)} rows of the attention map {fault}; update takes each row of each image once"
            )
        return self._value()

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(*self.shape, *size, dtype=torch.float64, device=self.device)

    @abstractmethod
    def _start(self) -> None:
        """Set the sums to zero."""

    @abstractmethod
    def _add(self, a: Tensor, images: slice, queries: slice) -> None:
        """Rows `queries` of a_ij, (images, heads, queries, N) float64; the tensor is the callee's to overwrite."""

    @abstractmethod
    def _value(self) -> Tensor: ...


class _Distance(Convention):
    """mean_i of some quotient of Σ_j a_ij d_ij and m_i, in some unit."""

    def _start(self) -> None:
        grid, patch_size = self.layout.grid, self.layout.patch_size
        if grid[0] != grid[1] or patch_size[0] != patch_size[1]:
            raise InputError(
                f"published attention distances need a square grid of square patches, and this one has {grid} "
                f"patches of {patch_size} pixels; ask for 'distance', which takes any"
            )
        self._positions = torch.as_tensor(self.layout.positions(), dtype=torch.float64, device=self.device)
        self._sum = self._zeros()

    def _add(self, a: Tensor, images: slice, queries: slice) -> None:
        # The mode that squares differences: products would lose digits between neighbours.
        d = torch.cdist(
            self._positions[queries], self._positions, compute_mode="donot_use_mm_for_euclid_dist"
        )
        rows = self._row(torch.einsum("bhij,ij->bhi", a, d), a.sum(-1), d.sum(-1))
        self._sum[images] += rows.sum(-1)

    def _value(self) -> Tensor:
        return self._sum / self.layout.patches

    @abstractmethod
    def _row(self, reach: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        """A row's distance from Σ_j a_ij d_ij, m_i and Σ_j d_ij."""


class ClVsMimDistance(_Distance):
    """cl-vs-mim: mean_i Σ_j a'_ij d_ij with a'_ij = (a_ij + ε) / (m_i + N ε), ε = 1e-32. Shape (images, heads).

    Unit pixels, range from 0 to the grid's diagonal; lower is more local. Uniform and random: the mean
    distance of two patches, a patch and itself included; identity 0. As `distance` of theory, section 7,
    unless a row's patch mass is near ε: with none at all the row reads as uniform attention.
    Source: docs/conventions.md, "cl-vs-mim".
    """

    epsilon = 1e-32

    def _row(self, reach: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        return (reach + self.epsilon * total) / (mass + self.layout.patches * self.epsilon)


class ProbingVitsDistance(_Distance):
    """probing-vits: mean_i Σ_j a_ij d_ij, not renormalised after CLS is dropped. Shape (images, heads).

    Unit pixels, range from 0 to the grid's diagonal; lower is more local *or* more weight on the prefix: each
    row's distance is multiplied by its patch mass. Uniform and random: the mean distance of two patches,
    times N/tokens; identity 0. Source: docs/conventions.md, "probing-vits".
    """

    def _row(self, reach: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        return reach


class VitAnalysisDistance(_Distance):
    """vit_analysis: mean_i Σ_j (a_ij / m_i) d_ij / L, where m_i = 0 counts as 0. Shape (images, heads).

    L is the distance between the first and last patch of a side, (g - 1) patches: positions span a unit
    square. No unit, range [0, √2]; lower is more local. Uniform and random: the mean distance of two patches,
    0.560 at g = 14 and 0.521 for large g; identity 0. Source: docs/conventions.md, "vit_analysis".
    """

    def _row(self, reach: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        side = (self.layout.grid[0] - 1) * self.layout.patch_size[0]
        return reach / torch.where(mass == 0, 1.0, mass) / side


class ClVsMimNmi(Convention):
    """cl-vs-mim: I / sqrt(log N · H(ā')), I = H(ā') - mean_i H(a'_i), a' as in its distance, ε = 1e-8.

    Shape (images, heads). Queries are equally likely, hence log N. No unit, range [0, 1]; higher: attention
    depends more on the query. Uniform 0, identity 1, random 1/(2 log N). As `nmi` of theory, section 7, unless
    a row's patch mass is near N ε: ε then blends the row with uniform attention, and the value falls to 0.
    Any grid. Source: docs/conventions.md, "cl-vs-mim".
    """

    epsilon = 1e-8

    def _start(self) -> None:
        self._columns = self._zeros(self.layout.patches)
        self._logarithms = self._zeros()

    def _add(self, a: Tensor, images: slice, queries: slice) -> None:
        a += self.epsilon
        a /= a.sum(-1, keepdim=True)
        self._columns[images] += a.sum(-2)
        self._logarithms[images] += a.log().mul_(a).sum((-2, -1))

    def _value(self) -> Tensor:
        N = self.layout.patches
        mean = self._columns / N
        H_mean = -(mean * mean.log()).sum(-1)
        # Below 0 only by rounding: the information is a mean of divergences.
        information = (H_mean + self._logarithms / N).clamp(min=0)
        return information / (math.log(N) * H_mean).sqrt()


class VitAnalysisDeviation(Convention):
    """vit_analysis: mean over keys of the standard deviation of a_ij over queries i (N - 1 below the line).

    Shape (images, heads). The weights are not renormalised: what the prefix takes shrinks it. No unit, range
    [0, 1/√N]; higher: queries look at more different places. Uniform 0, identity 1/√N, random √(e - 1)/tokens.
    Below about 1e-8 of the largest weight it is rounding. Any grid. Source: docs/conventions.md,
    "vit_analysis".
    """

    def _start(self) -> None:
        self._columns, self._squares = self._zeros(self.layout.patches), self._zeros(self.layout.patches)

    def _add(self, a: Tensor, images: slice, queries: slice) -> None:
        self._columns[images] += a.sum(-2)
        self._squares[images] += a.square_().sum(-2)

    def _value(self) -> Tensor:
        N = self.layout.patches
        squares = (self._squares - self._columns.square() / N).clamp(min=0)
        return (squares / (N - 1)).sqrt().mean(-1)


CONVENTIONS: dict[str, type[Convention]] = {
    "distance:cl-vs-mim": ClVsMimDistance,
    "nmi:cl-vs-mim": ClVsMimNmi,
    "distance:probing-vits": ProbingVitsDistance,
    "distance:vit_analysis": VitAnalysisDistance,
    "deviation:vit_analysis": VitAnalysisDeviation,
}
"""Published statistics by name, `statistic:codebase`."""


def of_codebase(name: str) -> list[str]:
    """Names of all statistics of one codebase; empty for a name that is none.

    >>> of_codebase("cl-vs-mim")
    ['distance:cl-vs-mim', 'nmi:cl-vs-mim']
    """
    return [statistic for statistic in CONVENTIONS if statistic.endswith(f":{name}")]


def published(attention: Attention, statistics: Sequence[str]) -> dict[str, Tensor]:
    """Published statistics of one call, each (images, heads) float64; InputError where one refuses the layout."""
    layout, B, H = attention.layout, attention.images, attention.heads
    running = {name: CONVENTIONS[name](layout, B, H, attention.device) for name in statistics}
    size = max(1, BLOCK // (H * layout.tokens))
    for image in range(B):
        images = slice(image, image + 1)
        for start in range(0, layout.tokens, size):
            rows = slice(start, min(start + size, layout.tokens))
            weights = attention.logits(images, rows).softmax(-1)
            for one in running.values():
                one.update(weights, images, rows)
    return {name: one.finish() for name, one in running.items()}
