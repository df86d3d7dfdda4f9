"""Problems for the oracle of rows tied by type: layouts, ends of the counts, random ones."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from .weighted_oracle import Problem


def build(
    seed: int, labels: Sequence[int], clusters: int, images: int, n: int, spread=1.0, **fields
) -> Problem:
    """Random latents, counts, negatives (never the image itself) and states."""
    rng = np.random.default_rng(seed)
    sizes = np.bincount(labels)
    empty = Problem(tuple(labels), clusters, *[np.zeros(0)] * 4, states=())
    widths = [2 * max(empty.slots(empty.kinds.index(kind))) + 3 for kind in empty.types]
    others = [[s for s in range(images) if s != d] for d in range(images)]
    problem = empty.change(
        cluster=rng.permutation(np.arange(images) % clusters),
        latent=rng.uniform(0.3, 2.0, (images, len(sizes))) * (rng.random((images, len(sizes))) < 0.9),
        visible=rng.integers(0, sizes + 1, (2, images, len(sizes))),
        negatives=np.array([rng.choice(other, n) for other in others]),
        states=tuple(spread * rng.normal(size=width) for width in widths),
    )
    return problem.change(**fields)


def areas(*sizes: int) -> list[int]:
    """Labels of areas that follow each other."""
    return [j for j, size in enumerate(sizes) for _ in range(size)]


def fixed_number(problem: Problem, visible: int, seed: int) -> Problem:
    """The same with so many visible patches in every view, at random places."""
    rng = np.random.default_rng(seed)
    shape = (2, len(problem.cluster))
    counts = rng.multivariate_hypergeometric(problem.sizes, visible, size=shape)
    return problem.change(visible=counts)


@st.composite
def problems(draw, regulariser=(0.0, 0.03)) -> Problem:
    """Small random problems: 4 to 7 patches, areas that follow each other or are scattered."""
    seed = draw(st.integers(0, 2**32 - 1))
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4).filter(lambda s: 4 <= sum(s) <= 7))
    rng = np.random.default_rng(seed)
    labels = areas(*sizes)
    if draw(st.booleans()):
        labels = rng.permutation(labels).tolist()
    clusters, images, n = (draw(st.integers(low, 3)) for low in (1, 2, 1))
    return build(
        seed,
        labels,
        clusters,
        images,
        n,
        spread=draw(st.sampled_from([0.3, 1.5])),
        temperature=draw(st.sampled_from([0.2, 1.0, 3.0])),
        regulariser=draw(st.sampled_from(regulariser)),
    )


def ends() -> Problem:
    """Areas of which all is visible, or nothing, in all combinations; one view shows nothing at all."""
    problem = build(6, areas(3, 2, 2), 2, 6, 2, temperature=0.5, regulariser=0.01)
    visible = np.array(
        [
            [[3, 0, 2], [0, 2, 1], [3, 2, 2], [0, 0, 0], [1, 2, 0], [2, 0, 0]],
            [[0, 1, 2], [3, 0, 0], [0, 0, 0], [3, 2, 2], [2, 1, 1], [3, 2, 0]],
        ]
    )
    return problem.change(visible=visible)


CASES = {
    "one local area": lambda: build(1, areas(3, 2), 2, 5, 2),
    "local areas of the global one's size": lambda: build(2, areas(2, 2, 2), 2, 5, 3, temperature=0.3),
    "one cluster": lambda: build(3, areas(3, 2, 2), 1, 4, 2, regulariser=0.02),
    "local areas alike": lambda: build(4, areas(3, 2, 2), 2, 5, 2, temperature=0.5, regulariser=0.01),
    "types out of order, patches alone": lambda: build(5, areas(2, 1, 2, 1), 2, 5, 2, regulariser=0.05),
    "a local area larger than the global one": lambda: build(7, areas(1, 3, 1, 1), 2, 4, 1),
    "scattered": lambda: build(8, [1, 0, 2, 0, 1, 2, 0], 2, 4, 2, regulariser=0.01),
    "ends of the counts": ends,
    "large": lambda: build(9, areas(3, 2, 2), 2, 4, 2, spread=6.0),
}
