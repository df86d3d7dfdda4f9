"""Shares of networks: block by block the same numbers, and from pixels to shares on the simulator's own layer."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")

from mimlab.probing import permuted  # noqa: E402
from mimlab.probing.attention import Attention  # noqa: E402
from mimlab.probing.layout import Layout  # noqa: E402
from mimlab.probing.permuted import attention_shares, logit_shares  # noqa: E402
from mimlab.probing.shares import COMPONENTS, shares_of  # noqa: E402
from mimlab.runs.errors import InputError  # noqa: E402

from .test_shares import AREA, agrees, draw_orders, interval_of, simulated, simulated_truth  # noqa: E402


def attention_of(rng, samples, layout, heads=2, given=False):
    """A call with a position bias, prefix tokens and logits far from zero, as float32 queries and keys or a table."""
    n = layout.tokens
    q, k = (torch.tensor(rng.normal(size=(samples, heads, n, 5)), dtype=torch.float32) for _ in range(2))
    bias = torch.tensor(rng.normal(size=(samples, heads, n, n)) + 3, dtype=torch.float32)
    if given:
        return Attention("attention", 0, layout, given=q @ k.mT * 0.4 + bias)
    return Attention("attention", 0, layout, scale=0.4, q=q, k=k, v=k, bias=bias)


@pytest.mark.parametrize("drop_self", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("block", [1, 2000, 2**20])
def test_blocks_of_rows_give_the_shares_of_the_whole_table(monkeypatch, block, given, drop_self):
    monkeypatch.setattr(permuted, "BLOCK", block)
    rng, layout = np.random.default_rng(8), Layout(grid=(5, 7), prefix=3)
    attention, orders = attention_of(rng, 4, layout, given=given), draw_orders(rng, 4, 35)
    found = attention_shares(attention, orders, drop_self)
    logits = attention.logits()[:, :, 3:, 3:].numpy()
    for head in range(2):
        expected = shares_of(logits[:, head], orders, drop_self)
        assert {name: found[name][head] for name in COMPONENTS} == pytest.approx(expected, abs=1e-6)


def test_no_table_of_all_logits_is_made(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            made = [x for x in (result if isinstance(result, tuple) else (result,)) if torch.is_tensor(x)]
            sizes.extend(x.untyped_storage().nbytes() // 4 for x in made)
            return result

    monkeypatch.setattr(permuted, "BLOCK", 2**11)
    layout = Layout(grid=(10, 20))
    q, orders = torch.randn(2, 1, 200, 8), draw_orders(np.random.default_rng(9), 2, 200)
    sizes = []
    with Largest():
        attention_shares(Attention("attention", 0, layout, q=q, k=q, v=q), orders)
    assert 0 < max(sizes) <= 2 * 2 * 200 * 8


class OneLayer(torch.nn.Module):
    """The theory's layer on images of 8 x 8 pixels, 4 x 4 patches: the query is the position, e_pᵀQ."""

    def __init__(self, phi, upsilon, features):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 12, 2, stride=2, bias=False)
        self.patches.weight = torch.nn.Parameter(torch.eye(12).reshape(12, 3, 2, 2))
        self.Q = torch.tensor(np.hstack([phi @ features, upsilon]), dtype=torch.float32)

    def forward(self, pixels):
        content = self.patches(pixels).flatten(2).mT
        k = torch.cat([content, torch.eye(16).expand(len(pixels), -1, -1)], dim=2)[:, None]
        q = self.Q.expand_as(k)
        return torch.nn.functional.scaled_dot_product_attention(q, k, k, scale=1.0)


def one_layer(images, seed=10):
    """The simulator's layer in torch, images of its world, and their latents."""
    rng = np.random.default_rng(seed)
    features = np.linalg.qr(rng.normal(size=(12, 12)))[0][:4]
    z = rng.uniform(0.5, 1.5, size=(images, 4))
    patches = (z[:, AREA, None] * features[AREA]).reshape(images, 4, 4, 3, 2, 2)
    pixels = patches.transpose(0, 3, 1, 4, 2, 5).reshape(images, 3, 8, 8)
    return OneLayer(*simulated(), features).eval(), torch.tensor(pixels, dtype=torch.float32), z


def shares_by_image(table):
    found = {}
    for row in table.to_pylist():
        found.setdefault(row["image"], {})[row["component"]] = row["share"]
    return [found[number] for number in sorted(found)]


def test_a_network_of_that_layer_gives_back_upsilon_and_phi_from_pixels():
    model, pixels, z = one_layer(24)
    table = logit_shares(model, pixels, drop_self=False)
    assert table.select(["layer", "module", "head"]).group_by("layer").aggregate([]).num_rows == 1
    shares = shares_by_image(table)
    truth = [simulated_truth(latents, np.ones(16)) for latents in z]
    differences = [
        {name: s[name] - t[name] for name in COMPONENTS} for s, t in zip(shares, truth, strict=True)
    ]
    for name, interval in interval_of(differences).items():
        assert agrees(interval, 0) and interval[2] - interval[0] < 0.03, name


def test_images_draw_their_permutations_by_number():
    model, pixels, _ = one_layer(3)
    whole = logit_shares(model, pixels, permutations=4)
    pieces = [
        logit_shares(model, pixels[:1], permutations=4),
        logit_shares(model, iter(pixels[1:]), permutations=4, first=1),
    ]
    assert pa.concat_tables(pieces).equals(whole)
    same = shares_by_image(logit_shares(model, pixels[:1].expand(2, -1, -1, -1), permutations=4))
    assert abs(same[0]["FP"] - same[1]["FP"]) > 1e-4
    assert not logit_shares(model, pixels, permutations=4, seed=1).equals(whole)
    assert logit_shares(model, pixels, Layout(grid=(4, 4), patch_size=(2, 2)), permutations=4).equals(whole)


def two_blocks():
    layer = torch.nn.TransformerEncoderLayer(12, 3, 8, batch_first=True)
    blocks = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.blocks = torch.nn.Conv2d(3, 12, 2, stride=2), blocks

        def forward(self, pixels):
            return self.blocks(self.patches(pixels).flatten(2).mT)

    return Network().eval()


def test_layers_and_heads_are_chosen():
    torch.manual_seed(0)
    model, image = two_blocks(), torch.randn(1, 3, 8, 6)
    whole = logit_shares(model, image, permutations=3).to_pylist()
    assert {(row["layer"], row["head"]) for row in whole} == set(product(range(2), range(3)))
    assert len(whole) == 2 * 3 * len(COMPONENTS)
    part = logit_shares(model, image, permutations=3, layers=[1], heads=[2]).to_pylist()
    assert part == [row for row in whole if (row["layer"], row["head"]) == (1, 2)]
    assert {row["module"] for row in part} == {"blocks.layers.1.self_attn"}


def test_an_item_goes_to_its_place():
    image = torch.arange(2 * 6 * 4.0).reshape(2, 6, 4)
    order = [[1, 2, 0, 5, 3, 4], [5, 4, 3, 2, 1, 0]]
    moved = permuted.permuted(image, Layout(grid=(3, 2), patch_size=(2, 2)), order)
    for b, i in product(range(2), range(6)):
        (y, x), (v, u) = divmod(i, 2), divmod(order[b][i], 2)
        block = image[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert torch.equal(moved[b, :, 2 * v : 2 * v + 2, 2 * u : 2 * u + 2], block)


def test_what_cannot_be_permuted_is_refused():
    model, pixels, _ = one_layer(1)
    for change, words in (
        ({"permutations": 1}, "permutations = 1"),
        ({"images": []}, "no image"),
        ({"images": pixels[:, :, :7], "layout": Layout((4, 4), patch_size=(2, 2))}, "needs \\(3, 8, 8\\)"),
        ({"layers": [3]}, "layer 3"),
        ({"heads": [1]}, "heads = \\[1\\]"),
    ):
        with pytest.raises(InputError, match=words):
            logit_shares(**({"model": model, "images": pixels} | change))
    with pytest.raises(InputError, match="training mode"):
        logit_shares(model.train(), pixels)
    attention = attention_of(np.random.default_rng(0), 4, Layout(grid=(2, 2), windows=2))
    with pytest.raises(InputError, match="2 windows"):
        attention_shares(attention, draw_orders(np.random.default_rng(0), 4, 4))
