"""The statistics of theory section 7, carried out literally: one number at a time, in float64, from logits.

A table is one image's and head's logits: tokens x tokens, row = query, prefix tokens first, scale, bias and
mask included (a masked pair is -inf). A map is what theory calls a: rows are the patch queries, each a softmax
over the patch columns alone. Nothing here is shared with the package but `Layout`, of which only the numbers
that the user gives are read.

Misuse that would mislead: a row whose patch columns are all masked has no map.
"""

import math
from collections.abc import Sequence
from itertools import combinations, permutations, product

from mimlab.probing.layout import Layout

Row = Sequence[float]
Table = Sequence[Row]
RADII = (1, 2, 4)
POSITIONAL = (
    "distance",
    "distance_ratio",
    "entropy",
    "information",
    "mean_row_entropy",
    "nmi",
    "diversity",
    "spread",
)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def dot(x: Row, y: Row) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def softmax(row: Row) -> list[float]:
    top = max(row)
    weights = [math.exp(logit - top) for logit in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def logits(queries: Table, keys: Table, scale: float, bias: Table | None = None) -> list[list[float]]:
    """scale · q_i·k_j + bias_ij."""
    return [
        [scale * dot(q, k) + (0.0 if bias is None else bias[i][j]) for j, k in enumerate(keys)]
        for i, q in enumerate(queries)
    ]


def output(table: Table, values: Table) -> list[list[float]]:
    """What attention hands on: for every token, prefix included, Σ_j a_ij v_j over all tokens."""
    return [[dot(softmax(row), column) for column in zip(*values, strict=True)] for row in table]


def patch_map(table: Table, layout: Layout) -> list[list[float]]:
    return [softmax(row[layout.prefix :]) for row in table[layout.prefix :]]


def prefix_mass(table: Table, layout: Layout) -> float:
    """Attention that patches pay to the prefix, of the softmax over all tokens."""
    return mean([math.fsum(softmax(row)[: layout.prefix]) for row in table[layout.prefix :]])


def cells(layout: Layout) -> list[tuple[int, int]]:
    """Row and column of each patch of the grid."""
    return list(product(range(layout.grid[0]), range(layout.grid[1])))


def distance(a: Table, layout: Layout) -> float:
    """mean_i Σ_j a_ij ‖pos_i - pos_j‖ in pixels."""
    height, width = layout.patch_size
    at = [(row * height, column * width) for row, column in cells(layout)]
    return mean([math.fsum(a[i][j] * math.dist(at[i], at[j]) for j in range(len(a))) for i in range(len(a))])


def uniform(N: int) -> list[list[float]]:
    return [[1 / N] * N for _ in range(N)]


def entropy_of(row: Row) -> float:
    return -math.fsum(weight * math.log(weight) for weight in row if weight > 0)


def mean_row(a: Table) -> list[float]:
    return [mean(column) for column in zip(*a, strict=True)]


def nmi(a: Table) -> float:
    """I / sqrt(log N · H(ā)), and 0 where H(ā) = 0: all rows on one key."""
    scale = math.sqrt(math.log(len(a)) * entropy_of(mean_row(a)))
    return information(a) / scale if scale > 0 else 0.0


def entropy(a: Table) -> float:
    return mean([entropy_of(row) for row in a])


def information(a: Table) -> float:
    return entropy_of(mean_row(a)) - entropy(a)


def cosine(x: Row, y: Row) -> float:
    return dot(x, y) / math.sqrt(dot(x, x) * dot(y, y))


def diversity(a: Table) -> float:
    """1 - mean_{i≠j} cos(a_i, a_j)."""
    return 1 - mean([cosine(x, y) for x, y in combinations(a, 2)])


def spread(a: Table) -> float:
    """mean_{i≠j} ‖a_i - a_j‖²."""
    return mean([math.dist(x, y) ** 2 for x, y in combinations(a, 2)])


def locality(a: Table, layout: Layout, radius: float) -> float:
    """mean_i Σ_j a_ij over the j within `radius` cells of the grid, whatever the shape of a patch."""
    at = cells(layout)
    near = [[j for j in range(len(a)) if math.dist(at[i], at[j]) <= radius] for i in range(len(a))]
    return mean([math.fsum(a[i][j] for j in near[i]) for i in range(len(a))])


def of_map(a: Table, layout: Layout) -> dict[str, float]:
    """Every statistic of one map but those of the prefix."""
    return {
        "distance": distance(a, layout),
        "distance_ratio": distance(a, layout) / distance(uniform(len(a)), layout),
        "entropy": entropy(a),
        "information": information(a),
        "mean_row_entropy": entropy_of(mean_row(a)),
        "nmi": nmi(a),
        "diversity": diversity(a),
        "spread": spread(a),
        **{f"locality_{radius}": locality(a, layout, radius) for radius in RADII},
    }


def of_table(table: Table, layout: Layout) -> dict[str, float]:
    """Every statistic of one image and head."""
    return {**of_map(patch_map(table, layout), layout), "prefix_mass": prefix_mass(table, layout)}


def head_diversity(heads: Sequence[Table], layout: Layout) -> float:
    """One image's tables of all heads of a layer: 1 - the mean over queries and pairs of heads of the cosine."""
    maps = [patch_map(table, layout) for table in heads]
    return 1 - mean([cosine(f[i], g[i]) for f, g in permutations(maps, 2) for i in range(layout.patches)])


def mean_map(images: Sequence[Table], layout: Layout) -> list[list[float]]:
    """One head's map averaged over images, element by element, after the softmax."""
    maps = [patch_map(table, layout) for table in images]
    return [[mean([a[i][j] for a in maps]) for j in range(layout.patches)] for i in range(layout.patches)]


def positional(images: Sequence[Table], layout: Layout) -> dict[str, float]:
    """The positional part: the same statistics of the map averaged over the images of one forward call."""
    statistics = of_map(mean_map(images, layout), layout)
    return {f"positional_{name}": statistics[name] for name in POSITIONAL}


def offsets(images: Sequence[Table], layout: Layout) -> list[list[float]]:
    """Mean attention by offset (dy, dx) = pos_j - pos_i, at [dy + rows - 1][dx + columns - 1]; the sum is 1."""
    rows, columns = layout.grid
    found = [[0.0] * (2 * columns - 1) for _ in range(2 * rows - 1)]
    a, at = mean_map(images, layout), cells(layout)
    for i, j in product(range(layout.patches), repeat=2):
        dy, dx = at[j][0] - at[i][0], at[j][1] - at[i][1]
        found[dy + rows - 1][dx + columns - 1] += a[i][j] / layout.patches
    return found
