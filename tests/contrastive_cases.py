"""Problems for the oracle of the contrastive objective: layouts, ties, masked areas, large logits, random ones."""

import numpy as np
import pytest
from hypothesis import strategies as st

from .contrastive_oracle import Setup


def contiguous(labels: np.ndarray) -> np.ndarray:
    """Labels renamed to 0, 1, ... without gaps."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def numbered(area: np.ndarray, areas: int, tie=None) -> np.ndarray:
    """Unknown numbers phi[k, j] of the areas that exist, -1 elsewhere; all distinct unless tied."""
    phi = np.full((len(area), areas), -1)
    exists = np.array([[j in row for j in range(areas)] for row in area])
    count = int(exists.sum())
    phi[exists] = np.arange(count) if tie is None else contiguous(np.asarray(tie(count)))
    return phi


def draw_images(rng, size, clusters, areas, images, n, cluster=None) -> dict[str, np.ndarray]:
    """Images with random latents, masks and negatives (never the image itself)."""
    others = [[s for s in range(images) if s != d] for d in range(images)]
    return {
        "cluster": rng.integers(0, clusters, images) if cluster is None else np.array(cluster),
        "latent": rng.uniform(0.3, 2.0, (images, areas)) * (rng.random((images, areas)) < 0.9),
        "visible": rng.integers(0, size + 1, (2, images, len(size))),
        "negatives": np.array([rng.choice(other, n, replace=n > len(other)) for other in others]),
    }


def build(seed, size, area, counts, n, cluster, tie=None, upsilon=None, spread=1.0, **fields) -> Setup:
    """A setup with a given layout; `counts` says how many rows each class has, up to scale."""
    rng = np.random.default_rng(seed)
    size, area = np.array(size), np.array(area)
    areas = int(area.max()) + 1
    phi = numbered(area, areas, tie)
    upsilon = np.arange(len(size)) if upsilon is None else np.array(upsilon)
    width = int(phi.max()) + 1 + int(upsilon.max()) + 1
    share = np.array(counts, dtype=float) / sum(counts)
    drawn = draw_images(rng, size, len(area), areas, len(cluster), n, cluster)
    state = spread * rng.normal(size=(len(share), width))
    setup = Setup(size=size, upsilon=upsilon, area=area, phi=phi, share=share, state=state, **drawn)
    return setup.change(**fields)


HALVES = [[0, 0, 1, 1], [0, 1, 0, 1]]
REFINED = [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 2, 2]]
GAPS = [[0, 0, 2, 2], [1, 1, 1, 1], [0, 1, 2, 1]]


def masked_area() -> Setup:
    """Area 1 of cluster 0 is masked in view 0 of image 0; image 1 is masked whole in view 1."""
    setup = build(5, [2, 1, 2, 3], HALVES, [3, 5], 3, [0, 1, 0, 1], regulariser=0.01)
    visible = setup.visible.copy()
    visible[0, 0] = [2, 1, 0, 0]
    visible[1, 1] = 0
    visible[0, 2] = [1, 1, 0, 1]
    return setup.change(visible=visible)


def blank_plus() -> Setup:
    """Two images whose view 0 shows nothing: their F(X+) is 0, their loss tau * log(1 + n)."""
    setup = build(6, [2, 1, 2], [[0, 1, 1], [0, 0, 1]], [2, 3], 2, [0, 1, 0], temperature=0.4)
    visible = setup.visible.copy()
    visible[0, :2] = 0
    return setup.change(visible=visible)


def large(sign: str, latent: float) -> Setup:
    """Phi about 30 in size, so that logits reach 30 * latent."""
    setup = build(7, [1, 2, 2, 1], HALVES, [2, 1, 3], 2, [0, 1, 0, 1], temperature=0.5)
    rng = np.random.default_rng(70)
    state = setup.state.copy()
    signs = {"plus": 1.0, "minus": -1.0, "mixed": rng.choice([-1.0, 1.0], (3, 4))}[sign]
    state[:, :4] = signs * (30.0 + rng.uniform(-1, 1, (3, 4)))
    latents = latent * (1 + rng.uniform(-0.02, 0.02, setup.latent.shape))
    visible = np.maximum(setup.visible, [[[1, 1, 1, 0]], [[0, 1, 1, 1]]])
    if sign == "minus":  # a masked patch would take all the attention
        visible[0, :] = setup.size
        visible[1, :2] = setup.size
    return setup.change(state=state, latent=latents, visible=visible)


def tie_modulo(n):
    """Areas tied across and inside clusters: numbers 0, 1, ..., n - 1, 0, 1, ..."""
    return lambda count: np.arange(count) % n


CASES = {
    "plain": lambda: build(1, [2, 2, 2, 2], HALVES, [8], 3, [0, 1, 0, 1, 1]),
    "classes": lambda: build(
        2, [1, 2, 1, 3], HALVES, [1, 2, 4], 2, [0, 1, 0, 1], temperature=0.3, regulariser=0.02
    ),
    "refined": lambda: build(
        3, [1, 2, 3, 1, 2], REFINED, [2, 7], 4, [0, 1, 2, 2, 1, 0], temperature=0.7, regulariser=0.01
    ),
    "refined, tied": lambda: build(
        4,
        [1, 2, 3, 1, 2],
        REFINED,
        [1, 3, 5],
        3,
        [2, 1, 2, 0, 1],
        tie=tie_modulo(4),
        upsilon=[0, 1, 0, 1, 2],
        temperature=0.5,
        regulariser=0.01,
    ),
    "one number for all": lambda: build(
        8, [2, 1, 3], [[0, 1, 1], [0, 1, 2]], [2, 4], 1, [0, 1, 1], tie=tie_modulo(1), upsilon=[0, 0, 0]
    ),
    "gaps, an unused cluster": lambda: build(
        9, [1, 2, 2, 1], GAPS, [1, 5], 2, [0, 2, 0, 2], tie=tie_modulo(5), regulariser=0.05
    ),
    "more negatives than images": lambda: build(10, [2, 3], [[0, 1], [0, 0]], [2, 3], 5, [0, 1, 0]),
    "masked area": masked_area,
    "blank plus": blank_plus,
    "large plus": lambda: large("plus", 1.0),
    "large minus": lambda: large("minus", 1.0),
    "large mixed": lambda: large("mixed", 1.0),
}
cases = pytest.mark.parametrize("setup", [pytest.param(make(), id=name) for name, make in CASES.items()])


@st.composite
def setups(draw, regulariser=(0.0, 0.03)) -> Setup:
    """Small random problems, ties and missing areas included; shares need not make whole rows."""
    seed = draw(st.integers(0, 2**32 - 1))
    n_cells, clusters, areas = (draw(st.integers(1, top)) for top in (4, 3, 3))
    classes, images, n = draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 4, n_cells)
    area = rng.integers(0, areas, (clusters, n_cells))
    tie = (lambda count: rng.integers(0, count, count)) if draw(st.booleans()) else None
    phi = numbered(area, areas, tie)
    upsilon = contiguous(rng.integers(0, n_cells, n_cells)) if draw(st.booleans()) else np.arange(n_cells)
    width = int(phi.max()) + 1 + int(upsilon.max()) + 1
    return Setup(
        size=size,
        upsilon=upsilon,
        area=area,
        phi=phi,
        share=rng.dirichlet(np.full(classes, 5.0)),
        state=1.5 * rng.normal(size=(classes, width)),
        temperature=draw(st.sampled_from([0.2, 1.0, 3.0])),
        regulariser=draw(st.sampled_from(regulariser)),
        **draw_images(rng, size, clusters, areas, images, n),
    )


def close(found, expected) -> None:
    """Equal to rounding."""
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def close_slopes(found, expected) -> None:
    """Equal to the error of a difference quotient."""
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-11)
