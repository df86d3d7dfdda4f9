"""However attention is cut into tiles, its output and its statistics are the same."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mimlab
from mimlab.probing import compiled, tiles
from mimlab.probing.watch import watch

GRID = (6, 5)
LAYOUT = mimlab.Layout(grid=GRID, prefix=2, patch_size=(4, 6))


class Attends(torch.nn.Module):
    def forward(self, q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, mask)


def measured(method, statistics):
    q, k, v = torch.randn(3, 3, 4, 32, 8, generator=torch.Generator().manual_seed(0)).unbind()
    mask = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    model = Attends()
    with mimlab.capture(model, statistics, layout=LAYOUT, method=method) as capture:
        output = model(2 * q, k, v, mask)
    assert torch.allclose(output, model(2 * q, k, v, mask), atol=1e-5)
    return {name: capture[name] for name in capture.statistics}, capture


@pytest.mark.parametrize("method", ["tiles", "compiled"])
@pytest.mark.parametrize("statistics", ["core", "all"])
@pytest.mark.parametrize("size", [1, 70, 900, 1900, 3700, 6000, 10900])
def test_the_size_of_a_tile_changes_nothing(monkeypatch, method, statistics, size):
    if method == "compiled" and not shutil.which("c++"):
        pytest.skip("needs a C++ compiler")
    whole, _ = measured(method, statistics)
    monkeypatch.setattr(tiles, "TILE", size)
    cut, capture = measured(method, statistics)
    for name, values in whole.items():
        np.testing.assert_allclose(cut[name], values, rtol=1e-5, atol=2e-6, err_msg=name)
    if statistics == "all":
        np.testing.assert_allclose(capture.offsets.sum((-2, -1)), 1, atol=1e-6)


@pytest.mark.parametrize("size", [1, 70, 900, 3700, 10900])
@pytest.mark.parametrize("whole", [False, True])
def test_tiles_cover_every_weight_once(monkeypatch, size, whole):
    monkeypatch.setattr(tiles, "TILE", size)
    seen = np.zeros((3, 4, LAYOUT.patches), dtype=int)
    q = torch.zeros(3, 4, 32, 8)
    attention = tiles.Attention("a", 0, LAYOUT, q=q, k=q, v=q)
    for images, heads, rows in tiles.Tiler()._tiles(attention, whole=whole):
        seen[images, heads, rows] += 1
        if whole:
            assert rows.start % GRID[1] == 0 and rows.stop % GRID[1] == 0
    assert (seen == 1).all()


def test_without_a_compiler_tiles_are_pure(monkeypatch):
    """`auto` falls back, `compiled` says what it needs."""
    auto, _ = measured("auto", "core")
    monkeypatch.setattr(compiled, "_library", lambda: None)
    pure, _ = measured("auto", "core")
    for name, values in auto.items():
        np.testing.assert_allclose(pure[name], values, rtol=1e-5, atol=2e-6, err_msg=name)
    with pytest.raises(mimlab.InputError, match=r"compiler.*use \"tiles\""):
        measured("compiled", "core")


def test_what_a_method_is_called():
    with pytest.raises(
        mimlab.InputError, match=r'method = "fast" must be one of auto, tiles, compiled, triton'
    ):
        measured("fast", "core")
    if not torch.cuda.is_available():
        with pytest.raises(mimlab.InputError, match="needs a CUDA GPU"):
            measured("triton", "core")


@pytest.mark.parametrize("method", ["tiles", "compiled"])
@pytest.mark.parametrize("low", [-1e4, -1e9, torch.finfo(torch.float32).min])
def test_a_row_masked_by_finite_numbers_keeps_its_output(method, low):
    """A mask that is the same for all keys of a query takes nothing away from any of them."""
    if method == "compiled" and not shutil.which("c++"):
        pytest.skip("needs a C++ compiler")
    q = torch.randn(1, 2, 32, 8, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(32, 32)
    mask[5] = low
    model = Attends()
    with mimlab.capture(model, layout=LAYOUT, method=method) as capture:
        output = model(q, q, q, mask)
    # Logits near `low` are known to its rounding only: the row is compared with what they then are.
    weights = (q.double() @ q.double().mT / 8**0.5).float().add(mask).double().softmax(-1)
    assert torch.allclose(output.double(), weights @ q.double(), atol=2e-3 if low == -1e4 else 1e-5)
    mass = weights[:, :, 2:, :2].sum(-1).mean(-1)
    np.testing.assert_allclose(capture["prefix_mass"][:, 0], mass, atol=1e-4)


def test_a_bias_in_half_precision_is_not_expanded():
    """(1, 1, n, n) for 8 images of 4 heads stays one table."""
    q = torch.randn(8, 4, 32, 8, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(3))
    seen = []
    with watch(Attends(), lambda attention: seen.append(attention.bias), LAYOUT) as watched:
        watched._model(q, q, q, torch.zeros(1, 1, 32, 32, dtype=torch.bfloat16))
    assert seen[0].shape == (8, 4, 32, 32)
    assert seen[0].untyped_storage().nbytes() == 4 * 32 * 32
