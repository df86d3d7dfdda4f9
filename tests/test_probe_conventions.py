"""Published attention statistics: each against its formula restated as plain loops, and where they disagree.

The loops are written from the formulas of docs/conventions.md, one number at a time in float64, on the very
float32 weights that the streamed statistics get.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mimlab import statistics
from mimlab.probing.conventions import CONVENTIONS, of_codebase
from mimlab.probing.layout import Layout
from mimlab.runs import InputError

LAYOUT = Layout(grid=(5, 5), prefix=1, patch_size=(16, 16))
IMAGES, HEADS = 2, 2
EVERY_ROW = slice(0, LAYOUT.tokens)

Row = list[float]


def softmax(layout: Layout, sharpness: float, seed: int, images: int = IMAGES, **columns: float) -> Tensor:
    """The softmax of normal logits times `sharpness`; `cls` is added to the first column's."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, HEADS, layout.tokens, layout.tokens, generator=generator) * sharpness
    logits[..., 0] += columns.get("cls", 0.0)
    return logits.softmax(-1)


def collapsed(layout: Layout) -> Tensor:
    """Every query has the first query's row."""
    return softmax(layout, 2, seed=3)[:, :, :1].repeat(1, 1, layout.tokens, 1)


def one_key(layout: Layout) -> Tensor:
    """Every query looks at the second patch alone."""
    weights = torch.zeros(IMAGES, HEADS, layout.tokens, layout.tokens)
    weights[..., layout.prefix + 1] = 1
    return weights


def sink(layout: Layout, share: float) -> Tensor:
    """CLS takes `share` of each row; the patches have the rest, as normal logits share it out."""
    weights = softmax(layout, 1, seed=4)
    weights[..., 0] = 0
    weights *= (1 - share) / weights.sum(-1, keepdim=True)
    weights[..., 0] = share
    return weights


MAPS = {
    "random": softmax(LAYOUT, 1, seed=1),
    "sharp": softmax(LAYOUT, 30, seed=2),
    "uniform": torch.full((IMAGES, HEADS, LAYOUT.tokens, LAYOUT.tokens), 1 / LAYOUT.tokens),
    "identity": torch.eye(LAYOUT.tokens).expand(IMAGES, HEADS, -1, -1),
    "collapsed": collapsed(LAYOUT),
    "one key": one_key(LAYOUT),
    "sink": sink(LAYOUT, 0.999),
    "deep sink": softmax(LAYOUT, 1, seed=5, cls=25.0),
    "total sink": softmax(LAYOUT, 1, seed=6, cls=300.0),
}


def patch_rows(weights: Tensor, prefix: int) -> list[Row]:
    return [[float(a) for a in row[prefix:]] for row in weights[prefix:]]


def steps(i: int, j: int, side: int) -> float:
    """Distance of patches i and j of a square grid, in patches."""
    return math.sqrt((i // side - j // side) ** 2 + (i % side - j % side) ** 2)


def with_epsilon(row: Row, epsilon: float) -> Row:
    total = sum(a + epsilon for a in row)
    return [(a + epsilon) / total for a in row]


def cl_vs_mim_distance(rows: list[Row], side: int, patch: float) -> float:
    distances = []
    for i, row in enumerate(rows):
        weights = with_epsilon(row, 1e-32)
        distances.append(math.fsum(weights[j] * patch * steps(i, j, side) for j in range(len(row))))
    return math.fsum(distances) / len(rows)


def cl_vs_mim_nmi(rows: list[Row], side: int, patch: float) -> float:
    N = len(rows)
    weights = [with_epsilon(row, 1e-8) for row in rows]
    key = [math.fsum(weights[i][j] / N for i in range(N)) for j in range(N)]
    information = math.fsum(
        weights[i][j] / N * math.log(weights[i][j] / key[j]) for i in range(N) for j in range(N)
    )
    query_entropy = -math.fsum(1 / N * math.log(1 / N) for _ in range(N))
    key_entropy = -math.fsum(p * math.log(p) for p in key)
    return information / math.sqrt(query_entropy * key_entropy)


def probing_vits_distance(rows: list[Row], side: int, patch: float) -> float:
    distances = []
    for i, row in enumerate(rows):
        distances.append(math.fsum(row[j] * patch * steps(i, j, side) for j in range(len(row))))
    return math.fsum(distances) / len(rows)


def vit_analysis_distance(rows: list[Row], side: int, patch: float) -> float:
    distances = []
    for i, row in enumerate(rows):
        mass = math.fsum(row)
        mass = 1.0 if mass == 0 else mass
        distances.append(math.fsum(row[j] / mass * steps(i, j, side) / (side - 1) for j in range(len(row))))
    return math.fsum(distances) / len(rows)


def vit_analysis_deviation(rows: list[Row], side: int, patch: float) -> float:
    N = len(rows)
    deviations = []
    for j in range(N):
        mean = math.fsum(rows[i][j] for i in range(N)) / N
        deviations.append(math.sqrt(math.fsum((rows[i][j] - mean) ** 2 for i in range(N)) / (N - 1)))
    return math.fsum(deviations) / N


LOOPS = {
    "distance:cl-vs-mim": cl_vs_mim_distance,
    "nmi:cl-vs-mim": cl_vs_mim_nmi,
    "distance:probing-vits": probing_vits_distance,
    "distance:vit_analysis": vit_analysis_distance,
    "deviation:vit_analysis": vit_analysis_deviation,
}


def streamed(name: str, weights: Tensor, layout: Layout = LAYOUT, rows: int = 7, images: int = 1) -> Tensor:
    """The statistic from blocks of `images` x `rows`, the last rows first."""
    running = CONVENTIONS[name](layout, images=weights.shape[0], heads=weights.shape[1])
    for image in range(0, weights.shape[0], images):
        for row in reversed(range(0, layout.tokens, rows)):
            block = slice(image, image + images), slice(row, min(row + rows, layout.tokens))
            running.update(weights[block[0], :, block[1]], images=block[0], rows=block[1])
    return running.finish()


def looped(name: str, weights: Tensor, layout: Layout = LAYOUT) -> NDArray[np.float64]:
    side, patch = layout.grid[0], layout.patch_size[0]
    return np.array(
        [
            [LOOPS[name](patch_rows(head, layout.prefix), side, patch) for head in image]
            for image in weights.double()
        ]
    )


def test_every_convention_has_its_loops():
    assert CONVENTIONS.keys() == LOOPS.keys()
    names = [
        name for codebase in ("cl-vs-mim", "probing-vits", "vit_analysis") for name in of_codebase(codebase)
    ]
    assert sorted(names) == sorted(CONVENTIONS)
    assert of_codebase("mim") == []


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("kind", MAPS)
def test_equals_its_formula_in_plain_loops(name, kind):
    values = streamed(name, MAPS[kind])
    assert values.shape == (IMAGES, HEADS)
    assert values.dtype == torch.float64
    # What cancels: information and variance, down to the rounding of what is subtracted.
    floor = {"nmi:cl-vs-mim": 1e-12, "deviation:vit_analysis": 1e-8}.get(name, 0.0)
    np.testing.assert_allclose(values, looped(name, MAPS[kind]), rtol=1e-12, atol=floor)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_all_prefix_tokens_are_dropped(name):
    for prefix in (0, 2, 5):
        layout = Layout(grid=(3, 3), prefix=prefix, patch_size=(14, 14))
        weights = softmax(layout, 2, seed=prefix)
        np.testing.assert_allclose(streamed(name, weights, layout), looped(name, weights, layout), rtol=1e-12)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_blocks_do_not_matter(name):
    whole = streamed(name, MAPS["random"], rows=LAYOUT.tokens, images=IMAGES)
    for rows in (1, 2, 25):
        torch.testing.assert_close(streamed(name, MAPS["random"], rows=rows), whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_weights_are_left_as_they_were(name):
    for dtype in (torch.float32, torch.float64):
        weights = MAPS["random"].to(dtype, copy=True).requires_grad_()
        before = weights.detach().clone()
        assert not streamed(name, weights, rows=LAYOUT.tokens, images=IMAGES).requires_grad
        assert torch.equal(weights, before)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_row_that_never_came_or_came_twice_is_an_error(name):
    running = CONVENTIONS[name](LAYOUT, images=IMAGES, heads=HEADS)
    running.update(MAPS["random"][:, :, :-3], images=slice(0, IMAGES), rows=slice(0, LAYOUT.tokens - 3))
    with pytest.raises(InputError, match="6 rows of the attention map never came"):
        running.finish()
    running.update(MAPS["random"], images=slice(0, IMAGES), rows=EVERY_ROW)
    with pytest.raises(InputError, match="46 rows of the attention map came twice"):
        running.finish()


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("name", CONVENTIONS)
def test_memory_is_a_block_of_rows_and_never_the_map(name):
    layout = Layout(grid=(24, 24), prefix=1, patch_size=(16, 16))
    running = CONVENTIONS[name](layout, images=1, heads=1)
    with Largest() as largest:
        for row in range(0, layout.tokens, 4):
            rows = slice(row, min(row + 4, layout.tokens))
            block = torch.full((1, 1, rows.stop - rows.start, layout.tokens), 1 / layout.tokens)
            running.update(block, images=slice(0, 1), rows=rows)
        running.finish()
    assert 0 < largest.elements <= 4 * layout.tokens


# Numbers that lie.

VIT = Layout(grid=(14, 14), prefix=1, patch_size=(16, 16))


def test_uniform_attention_on_a_vit_reads_its_known_distance():
    uniform = torch.full((1, 1, VIT.tokens, VIT.tokens), 1 / VIT.tokens)
    assert float(streamed("distance:cl-vs-mim", uniform, VIT)) == pytest.approx(116.49, abs=0.005)
    assert float(streamed("distance:probing-vits", uniform, VIT)) == pytest.approx(
        116.49 * 196 / 197, abs=0.005
    )
    assert float(streamed("distance:vit_analysis", uniform, VIT)) == pytest.approx(116.49 / 208, abs=5e-5)


def test_under_a_sink_the_published_distances_disagree_by_a_thousand():
    weights = sink(VIT, 0.999)
    renormalised = streamed("distance:cl-vs-mim", weights, VIT)
    as_they_are = streamed("distance:probing-vits", weights, VIT)
    torch.testing.assert_close(
        renormalised / as_they_are, torch.full_like(renormalised, 1000.0), rtol=1e-4, atol=0
    )
    assert (renormalised - 115).abs().max() < 3
    assert (as_they_are - 0.115).abs().max() < 0.003


def test_under_a_sink_that_leaves_nothing_each_code_shows_its_constant():
    nothing_left = torch.zeros(1, 1, VIT.tokens, VIT.tokens)
    nothing_left[..., 0] = 1
    assert float(streamed("distance:cl-vs-mim", nothing_left, VIT)) == pytest.approx(VIT.uniform_distance())
    assert float(streamed("nmi:cl-vs-mim", nothing_left, VIT)) == pytest.approx(0, abs=1e-12)
    for name in ("distance:probing-vits", "distance:vit_analysis", "deviation:vit_analysis"):
        assert float(streamed(name, nothing_left, VIT)) == 0


@pytest.mark.parametrize("kind", ["random", "collapsed", "sink"])
def test_renormalising_conventions_agree_with_ours_where_there_is_mass(kind):
    among_patches = MAPS[kind].double().numpy()[:, :, 1:, 1:]
    among_patches /= among_patches.sum(-1, keepdims=True)
    distance = statistics.attention.distance(among_patches, LAYOUT.positions())
    np.testing.assert_allclose(streamed("distance:cl-vs-mim", MAPS[kind]), distance, rtol=1e-12)
    np.testing.assert_allclose(streamed("distance:vit_analysis", MAPS[kind]) * 4 * 16, distance, rtol=1e-12)
    nmi = statistics.attention.nmi(among_patches)
    np.testing.assert_allclose(streamed("nmi:cl-vs-mim", MAPS[kind]), nmi, rtol=3e-3, atol=1e-12)


def test_the_epsilon_of_nmi_hides_diversity_under_a_deep_sink():
    identity = torch.eye(LAYOUT.tokens)[None, None] * 1e-9
    identity[..., 0] = 1 - 1e-9
    among_patches = np.eye(LAYOUT.patches)
    assert statistics.attention.nmi(among_patches) == pytest.approx(1)
    assert float(streamed("nmi:cl-vs-mim", identity)) < 0.01


@pytest.mark.parametrize("name", [name for name in CONVENTIONS if name.startswith("distance")])
@pytest.mark.parametrize(
    "layout", [Layout(grid=(4, 6)), Layout(grid=(4, 4), patch_size=(16, 8))], ids=["grid", "patch"]
)
def test_distances_refuse_what_is_not_square(name, layout):
    with pytest.raises(InputError, match="square grid of square patches"):
        CONVENTIONS[name](layout, images=1, heads=1)


def test_what_needs_no_grid_takes_any():
    layout = Layout(grid=(3, 5), prefix=1)
    weights = softmax(layout, 1, seed=7)
    for name in ("nmi:cl-vs-mim", "deviation:vit_analysis"):
        np.testing.assert_allclose(streamed(name, weights, layout), looped(name, weights, layout), rtol=1e-12)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_one_patch_is_refused(name):
    with pytest.raises(InputError, match="1 patch"):
        CONVENTIONS[name](Layout(grid=(1, 1), prefix=1), images=1, heads=1)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_works_where_models_run(name):
    expected = streamed(name, MAPS["random"])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(streamed(name, MAPS["random"]), expected)
