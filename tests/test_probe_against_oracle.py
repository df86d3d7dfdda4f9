"""`mimlab.capture` against plain loops in float64, for every way that attention is written and every regime.

The layers are handed q, k and v whose logits are known, or they are networks of which a float64 copy tells the
logits. How near is near enough stands in one table, TOLERANCE.
"""

import math
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor, nn

import mimlab
from mimlab.probing.layout import Layout
from mimlab.runs import InputError

from . import probe_oracle as oracle
from .probe_networks import (
    Calls,
    Multihead,
    Way,
    expected_of,
    heads_of,
    listen,
    logits_of,
    network,
    normal,
    qkv_of,
    regime,
)

TOLERANCE = {
    "distance": 5e-5,  # pixels, of at most 30
    **dict.fromkeys(("entropy", "mean_row_entropy", "information"), 5e-6),  # nats
    **dict.fromkeys(("distance_ratio", "nmi", "diversity", "spread", "head_diversity"), 5e-6),
    **dict.fromkeys(("prefix_mass", "locality_1", "locality_2", "locality_4", "offsets"), 2e-6),
}
"""Absolute, for float32 inputs and logits of at most about 10; `positional_x` as x."""
SHARP = 20  # logits of size 100 are known to 1e-5 in float32, and weights are as uncertain
COLLAPSED = {"information": 3e-6, "nmi": 3e-6, "diversity": 4e-6, "spread": 4e-6}
"""Absolute, where the truth is 0: rows are float32, and sums over rows are better than that."""

LAYOUT = Layout(grid=(3, 5), prefix=1, patch_size=(4.0, 6.0))
WITHOUT_COMPILER = not any(map(shutil.which, ("c++", "g++", "clang++")))
METHODS = [
    "tiles",
    pytest.param("compiled", marks=pytest.mark.skipif(WITHOUT_COMPILER, reason="needs a C++ compiler")),
]
every_method = pytest.mark.parametrize("method", METHODS)
Softmax = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tokens(images: int, seed: int = 5) -> Tensor:
    return normal(seed, images, LAYOUT.tokens, 16).float()


def by_hand(softmax: Softmax) -> Way:
    return lambda q, k, v: softmax(q @ k.mT * q.shape[-1] ** -0.5) @ v


def assert_as_expected(capture: Any, expected: dict[str, np.ndarray], factor: float = 1) -> None:
    for name, values in expected.items():
        actual = capture.offsets if name == "offsets" else capture[name]
        near = factor * TOLERANCE[name.removeprefix("positional_")]
        assert actual.dtype == np.float64
        assert actual.shape == values.shape, name
        assert_allclose(actual, values, rtol=0, atol=near, err_msg=name)


def captured(model: nn.Module, *inputs: Tensor, layout: Layout = LAYOUT, **options: Any) -> Any:
    """One call, watched; its output is what it was."""
    plain = model(*inputs)
    with mimlab.capture(model, **{"statistics": "all", **options}, layout=layout) as capture:
        watched = model(*inputs)
    assert watched.dtype == plain.dtype
    near = 2**-5 if torch.is_autocast_enabled("cpu") else 1e-5  # layers of bfloat16, known to 2^-8 each
    assert_allclose(watched.detach().float(), plain.detach().float(), rtol=near, atol=near)
    assert set(capture.layouts) == {layout}
    return capture


REGIMES = ("random", "sharp", "collapsed", "nearly collapsed", "sink", "uniform", "identity", "one key")


@every_method
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("name", REGIMES)
def test_regimes(name, prefix, method):
    layout = Layout(grid=(3, 5), prefix=prefix, patch_size=(4.0, 6.0))
    q, k, v = qkv_of(regime(name, layout))
    capture = captured(Calls(F.scaled_dot_product_attention), q, k, v, layout=layout, method=method)
    factor = SHARP if name in ("sharp", "identity", "one key") else 1
    assert_as_expected(capture, expected_of([[logits_of(q, k)]], layout), factor)
    if name == "sink" and prefix:
        assert capture["prefix_mass"].min() > 1 - 1e-6
    if name == "one key":
        assert not capture["nmi"].any() and not capture["mean_row_entropy"].any()


@every_method
@pytest.mark.parametrize("attend", [F.scaled_dot_product_attention, by_hand(nn.Softmax(-1))])
@pytest.mark.parametrize(
    "layout", [LAYOUT, Layout(grid=(20, 30), prefix=5)], ids=["15 patches", "600 patches"]
)
def test_a_collapse_reads_zero_and_never_less(layout, attend, method):
    for seed, strength in enumerate((0.1, 1, 3, 10)):
        k = strength * normal(seed, 4, 2, layout.tokens, 1).float()
        qkv = torch.ones_like(k), k, normal(7, 4, 2, layout.tokens, 1).float()
        capture = captured(Calls(attend), *qkv, layout=layout, method=method, statistics=list(COLLAPSED))
        for name, tolerance in COLLAPSED.items():
            assert capture[name].min() >= 0
            assert capture[name].max() <= tolerance, name


B, H, T = 3, 2, LAYOUT.tokens
KEPT = normal(8, B, H, T, T) > -0.5  # 7 of 10 pairs; a row without a patch has no map
BIAS = 2 * normal(9, B, H, T, T).float()
MASKS = {
    "none": None,
    "float (N, N)": BIAS[0, 0],
    "float (1, H, N, N)": BIAS[:1],
    "float (B, H, N, N)": BIAS,
    "float (B, 1, N, N)": BIAS[:, :1],
    "float with -inf": BIAS.masked_fill(~KEPT, -math.inf),
    "bool (N, N)": KEPT[0, 0],
    "bool (B, H, N, N)": KEPT,
    "bool (B, 1, 1, N)": KEPT[:, :1, :1],
}


@every_method
@pytest.mark.parametrize("scale", [None, 0.9])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks_and_scales(mask, scale, method):
    q, k, v = (normal(seed, B, H, T, 4).float() for seed in (11, 12, 13))
    model = Calls(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale))
    capture = captured(model, q, k, v, method=method)
    assert_as_expected(capture, expected_of([[logits_of(q, k, scale, mask)]], LAYOUT))


@pytest.mark.parametrize("option", ["is_causal", "enable_gqa"])
def test_rarer_options_are_right_or_refused(option):
    q, k, v = (normal(seed, B, H, T, 4).float() for seed in (11, 12, 13))
    causal = torch.ones(T, T, dtype=torch.bool).tril() if option == "is_causal" else None
    k, v = (k, v) if option == "is_causal" else (k[:, :1], v[:, :1])
    model = Calls(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **{option: True}))
    try:
        capture = captured(model, q, k, v)
    except InputError as error:
        assert option in str(error)
        return
    assert_as_expected(capture, expected_of([[logits_of(q, k.expand_as(q), mask=causal)]], LAYOUT))


SPELLINGS: dict[str, Softmax] = {
    "F.softmax": lambda s: F.softmax(s, dim=-1),
    "F.softmax float32": lambda s: F.softmax(s, dim=-1, dtype=torch.float32),
    "F.softmax, last axis by its number": lambda s: F.softmax(s, 3),
    "torch.softmax": lambda s: torch.softmax(s, dim=-1),
    "torch.softmax float32": lambda s: torch.softmax(s, -1, dtype=torch.float32),
    "torch.special.softmax": lambda s: torch.special.softmax(s, dim=-1),
    "tensor.softmax": lambda s: s.softmax(-1),
    "tensor.softmax float32": lambda s: s.softmax(dim=-1, dtype=torch.float32),
    "nn.Softmax": nn.Softmax(dim=-1),
}


@every_method
@pytest.mark.parametrize("softmax", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_softmax(softmax, method):
    q, k, v = (normal(seed, B, H, T, 4).float() for seed in (11, 12, 13))
    capture = captured(Calls(by_hand(softmax)), q, k, v, method=method)
    assert_as_expected(capture, expected_of([[logits_of(q, k)]], LAYOUT))


@every_method
@pytest.mark.parametrize("mask", [None, BIAS[0, 0]], ids=["no mask", "mask"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights, batch_first, mask, method):
    torch.manual_seed(2)
    model = Multihead(batch_first, need_weights=need_weights, attn_mask=mask).eval()
    model.attention.in_proj_weight.data *= 3
    x, free = tokens(2), Multihead(batch_first)
    free.load_state_dict(model.state_dict())  # the float64 copy's own masks would be float32
    expected = expected_of([listen(free, x, mask)], LAYOUT)
    with torch.inference_mode():  # where nn.MultiheadAttention would take its native path
        capture = captured(model, x, method=method)
    assert capture.layers == ["attention"]
    assert_as_expected(capture, expected)


@every_method
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder(norm_first, method):
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for own in model.layers:
        own.self_attn.in_proj_weight.data *= 3
    expected = expected_of([listen(model, tokens(2))], LAYOUT)
    with torch.inference_mode():
        capture = captured(model, tokens(2), method=method)
    assert capture.layers == ["layers.0.self_attn", "layers.1.self_attn"]
    assert_as_expected(capture, expected)


@every_method
@pytest.mark.parametrize("fused", [False, True])
def test_networks_over_several_calls(fused, method):
    model, inputs = network(fused), (tokens(3), tokens(2, seed=6))
    expected = expected_of([listen(model, x) for x in inputs], LAYOUT)
    with mimlab.capture(model, statistics="all", layout=LAYOUT, method=method) as capture:
        for x in inputs:
            model(x)
    assert capture.layers == ["0.attn", "1.attn", "2.attn"]
    assert_as_expected(capture, expected)


CHOICES = [
    ({"layers": [1]}, [1], [0, 1, 2, 3]),
    ({"layers": ["0.attn", "2.attn"]}, [0, 2], [0, 1, 2, 3]),
    ({"heads": [1, 3]}, [0, 1, 2], [1, 3]),
    ({"layers": [2], "heads": [2]}, [2], [2]),
]


@every_method
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("choice", "layers", "heads"), CHOICES)
def test_chosen_layers_and_heads_keep_their_numbers(choice, layers, heads, fused, method):
    model, x = network(fused), tokens(2)
    expected = expected_of([listen(model, x)], LAYOUT)
    del expected["head_diversity"]
    capture = captured(model, x, method=method, **choice)
    assert capture.layers == [f"{layer}.attn" for layer in layers]
    chosen = {
        name: v[layers][:, heads] if name == "offsets" else v[:, layers][:, :, heads]
        for name, v in expected.items()
    }
    assert_as_expected(capture, chosen)
    rows = [row for row in capture.table.to_pylist() if row["head"] is not None]
    assert len(rows) == sum(v.size for name, v in chosen.items() if name != "offsets")
    for row in rows:
        name, image = row["statistic"], row["image"]
        assert (image is None) == name.startswith("positional_")
        assert row["module"] == f"{row['layer']}.attn"
        value = expected[name][image or 0, row["layer"], row["head"]]
        assert row["value"] == pytest.approx(value, abs=TOLERANCE[name.removeprefix("positional_")])


@every_method
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_what_they_were(fused, method):
    def gradients(watch: bool) -> list[Tensor]:
        model, x = network(fused), tokens(2).requires_grad_()
        if watch:
            with mimlab.capture(model, statistics="all", layout=LAYOUT, method=method) as capture:
                model(x).square().sum().backward()
            assert_as_expected(capture, expected_of([listen(model, x.detach())], LAYOUT))
        else:
            model(x).square().sum().backward()
        return [x.grad, *(parameter.grad for parameter in model.parameters())]

    for watched, plain in zip(gradients(True), gradients(False), strict=True):
        assert_allclose(watched, plain, rtol=1e-4, atol=1e-4)


@every_method
@pytest.mark.parametrize("fused", [False, True])
def test_autocast_measures_what_the_layer_was_given(fused, method):
    model, x, packed = network(fused), tokens(2), []
    hooks = [block.attn.qkv.register_forward_hook(lambda *call: packed.append(call[-1])) for block in model]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        capture = captured(model, x, method=method)
    for hook in hooks:
        hook.remove()
    given = [heads_of(p, 4) for p in packed[-3:]]
    assert {q.dtype for q, _ in given} == {torch.bfloat16}
    # Unfused, the logits themselves were rounded before the softmax.
    logits = [logits_of(q, k) if fused else (q @ k.mT * 4**-0.5).double() for q, k in given]
    assert_as_expected(capture, expected_of([logits], LAYOUT))


@every_method
def test_maps_larger_than_a_tile(method):
    """Attention on a ring: every row is the first, turned. Its statistics are sums over one row."""
    N, strengths = 1600, (1.0, 10.0, 100.0)
    layout = Layout(grid=(1, N), prefix=1, patch_size=(1.0, 1.0))
    turn = 2 * math.pi * torch.arange(N, dtype=torch.float64) / N
    ring = F.pad(torch.stack([turn.cos(), turn.sin()], dim=-1), (0, 0, 1, 0))  # CLS has the logit 0
    q = torch.stack([strength * ring for strength in strengths])[None].float()
    k = ring.expand_as(q).float()
    model = Calls(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0))
    capture = captured(model, q, k, k, layout=layout, method=method)
    for head, strength in enumerate(strengths):
        row = oracle.softmax([strength * math.cos(angle) for angle in turn.tolist()])
        square, H = oracle.dot(row, row), oracle.entropy_of(row)
        apart = [
            2 * m * (N - m) / N for m in range(N)
        ]  # of N pairs m steps round, N - m are m apart, m are N - m
        inside = {r: sum(row[m] * (N - m) / N for m in range(r + 1)) for r in (1, 2, 4)}
        expected = {
            "distance": oracle.dot(row, apart),
            "entropy": H,
            "information": math.log(N) - H,
            "mean_row_entropy": math.log(N),
            "nmi": (math.log(N) - H) / math.log(N),
            "diversity": 1 - (1 / square - 1) / (N - 1),
            "spread": 2 * (N * square - 1) / (N - 1),
            **{f"locality_{r}": 2 * inside[r] - row[0] for r in inside},
        }
        for name, value in expected.items():
            assert capture[name][0, 0, head] == pytest.approx(value, rel=1e-6 * (10 + strength), abs=5e-6), (
                name
            )
        steps = np.array([(N - abs(d)) / N * row[d] for d in range(1 - N, N)])
        assert_allclose(capture.offsets[0, head, 0], steps, rtol=0, atol=TOLERANCE["offsets"])


drawn = given(
    seed=st.integers(0, 2**31),
    strength=st.floats(0, 20),
    layout=st.builds(Layout, grid=st.tuples(st.integers(2, 5), st.integers(1, 5)), prefix=st.integers(0, 2)),
)


@drawn
@settings(max_examples=40)
def test_statistics_stay_in_their_ranges(seed, strength, layout):
    qkv = qkv_of(strength * regime("random", layout, seed=seed))
    got = captured(Calls(F.scaled_dot_product_attention), *qkv, layout=layout)
    log_N, near = math.log(layout.patches), 1e-6 * SHARP
    for name, top in (("nmi", 1), ("diversity", 1), ("spread", 2), ("prefix_mass", 1), ("head_diversity", 1)):
        assert got[name].min() >= 0, name
        assert got[name].max() <= top + near, name
    assert got["entropy"].min() >= 0
    assert (got["entropy"] <= got["mean_row_entropy"] + near).all()
    assert (got["information"] <= got["mean_row_entropy"] + near).all()
    assert got["mean_row_entropy"].max() <= log_N + near
    assert (got["locality_1"] <= got["locality_2"] + near).all()
    assert (got["locality_2"] <= got["locality_4"] + near).all()
    assert_allclose(got.offsets.sum(axis=(-1, -2)), 1, rtol=0, atol=near)


@drawn
@settings(max_examples=20)
def test_mirrors_and_constants_change_nothing(seed, strength, layout):
    """The grid upside down or left to right, and a constant added to a row's logits."""
    logits = strength * regime("random", layout, seed=seed)
    cells, prefix = torch.arange(layout.patches).view(layout.grid), torch.arange(layout.prefix)
    order = torch.cat([prefix, layout.prefix + cells.flip(seed % 2).flatten()])
    attend = Calls(F.scaled_dot_product_attention)
    first = captured(attend, *qkv_of(logits), layout=layout)
    mirrored = captured(attend, *qkv_of(logits[..., order, :][..., order]), layout=layout)
    moved = captured(attend, *qkv_of(logits + 20 * normal(seed, *logits.shape[:-1], 1)), layout=layout)
    for name in set(TOLERANCE) - {"offsets"}:
        for other in (mirrored, moved):
            assert_allclose(other[name], first[name], rtol=0, atol=SHARP * TOLERANCE[name], err_msg=name)
    assert_allclose(
        np.flip(mirrored.offsets, 2 + seed % 2), first.offsets, rtol=0, atol=SHARP * TOLERANCE["offsets"]
    )
