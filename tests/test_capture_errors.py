"""What `mimlab.capture` refuses, and in which words: the module by name, what is allowed, and what to do.

And what it does not: healthy models that hold attention of other kinds.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mimlab
from mimlab.probing.layout import Layout
from mimlab.runs import InputError

from .handwritten_models import DIM, HEADS, Attention, Block, PatchEmbed, Vit, build, images, spread
from .vision_models import MODELS

LAYOUT = Layout((3, 5), 1, (4.0, 4.0))
PATCHES = "blocks.0.attn", "blocks.1.attn"


def refused(model: nn.Module, *parts: str, call=None, **options: object) -> str:
    """The message of the error, which must hold all of the parts."""
    with pytest.raises(InputError) as caught, torch.no_grad(), mimlab.capture(model, **options):
        (call or (lambda: model(images())))()
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


# No attention, or none that could be seen


def test_a_network_without_attention():
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    refused(convolutions, "Sequential has no self-attention between tokens", "nothing to measure")


def test_a_model_that_was_not_called():
    refused(build("MAE"), "the model was not called", "inside the capture", call=lambda: None)


class Custom(torch.autograd.Function):
    """A kernel of someone's own, as flash-attn and xformers have."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).exp()
        return weights / weights.sum(-1, keepdim=True) @ v


class KernelAttention(Attention):
    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(Custom.apply(q, k, v).transpose(1, 2).flatten(2))


def test_a_kernel_of_ones_own_in_every_layer():
    model = Vit([KernelAttention(), KernelAttention()]).eval()
    refused(model, "no self-attention was seen in Vit", *PATCHES, "switch that off")


def test_a_kernel_of_ones_own_in_one_layer():
    model = spread(Vit([Attention(), KernelAttention()]))
    message = refused(model, "attention was not seen in: blocks.1.attn", "custom kernel", "layers=")
    assert "blocks.0" not in message


def test_one_layer_of_twelve_with_a_softmax_by_hand():
    """exp and sum are no softmax that could be recognised; its siblings give it away."""
    model = spread(Vit([Attention("exp" if layer == 7 else "softmax") for layer in range(12)]))
    refused(model, "attention was not seen in: blocks.7.attn.")


class Inner(nn.Module):
    """A part whose name says nothing."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.mix, self.by_hand = nn.Linear(DIM, 3 * DIM), by_hand

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).chunk(3, dim=-1)
        weights = q @ k.mT
        return (
            weights.exp() / weights.exp().sum(-1, keepdim=True) if self.by_hand else weights.softmax(-1)
        ) @ v


def test_siblings_give_away_what_no_name_does():
    """`Inner` is called neither attention nor has it a query projection."""
    model = Vit([Inner(False), Inner(True), Inner(False)]).eval()
    refused(model, "attention was not seen in: blocks.1.attn.")
    parts = nn.Sequential(PatchEmbed(), Block(Inner(False)), Block(Inner(True))).eval()
    refused(parts, "attention was not seen in: 2.attn.")


class Sigmoid(nn.Module):
    """Attention without a softmax, by a name that says nothing; the projection says it."""

    def __init__(self, name: str = "to_qkv") -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(DIM, 3 * DIM))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = getattr(self, self.name)(x).chunk(3, dim=-1)
        return (q @ k.mT).sigmoid() @ v


class Outer(nn.Module):
    """Its attention is in a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Inner(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)


@pytest.mark.parametrize("seen", [Attention, Outer])
def test_a_projection_to_queries_in_a_sibling_s_place_is_attention(seen):
    model = Vit([seen(), Sigmoid(), seen(), Sigmoid("query")]).eval()
    message = refused(model, "attention was not seen in: blocks.1.attn, blocks.3.attn.")
    assert "blocks.0" not in message


@pytest.mark.filterwarnings("ignore")  # of tracing and scripting themselves, which are deprecated
@pytest.mark.parametrize("way", ["traced block", "traced model", "scripted block", "scripted model"])
def test_what_was_traced_or_scripted(way):
    model, tokens = build("MAE, fused"), torch.zeros(2, 16, DIM)
    if way == "traced model":
        traced = torch.jit.trace(model, images(), check_trace=False)
        refused(traced, "no self-attention", call=lambda: traced(images()))
        return
    if way == "scripted model":
        layer = torch.jit.script(
            nn.TransformerEncoderLayer(DIM, HEADS, 24, batch_first=True, dropout=0.0).eval()
        )
        refused(layer, "no self-attention was seen", "self_attn", call=lambda: layer(tokens))
        return
    if way == "traced block":
        model.blocks[1] = torch.jit.trace(model.blocks[1], tokens)
    else:
        scripted = nn.TransformerEncoderLayer(DIM, HEADS, 24, batch_first=True, dropout=0.0).eval()
        model.blocks[1] = torch.jit.script(scripted)
    refused(model, "attention was not seen in: blocks.1", "traced or scripted")


def test_layers_named_go_round_those_that_cannot_be_seen():
    """As the message advises; by numbers it would not do, since what was missed has none."""
    model = spread(Vit([Attention(), KernelAttention(), Attention()]))
    with torch.no_grad(), mimlab.capture(model, layers=["blocks.0.attn", "blocks.2.attn"]) as capture:
        model(images())
    assert capture.layers == ["blocks.0.attn", "blocks.2.attn"]
    refused(model, "attention was not seen in: blocks.1.attn.", layers=[0, 1])
    refused(model, "attention was not seen in: blocks.1.attn.", layers=["blocks.0.attn", "blocks.1.attn"])


# Weights and masks that are no numbers


@pytest.mark.parametrize("name", ["MAE", "MAE, fused"])
def test_weights_that_are_not_numbers_show_where_they_are(name):
    model = build(name)
    with torch.no_grad():
        model.blocks[1].attn.qkv.weight[0, 0] = math.nan
    with torch.no_grad(), mimlab.capture(model, "all") as capture:
        model(images())
    for statistic in capture.statistics:
        values = capture[statistic]
        assert np.isfinite(values[:, 0]).all(), statistic
        assert np.isnan(values[:, 1]).any(), statistic


def test_a_position_bias_that_is_no_number_shows_too():
    """It closes no query: nan is not -inf."""
    model = MODELS["BEiT"].build("sdpa")
    tables = [p for name, p in model.named_parameters() if "relative_position_bias_table" in name]
    with torch.no_grad():
        tables[-1][:] = math.nan
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(**MODELS["BEiT"].arguments())
    assert np.isfinite(capture["entropy"][:, 0]).all() and np.isnan(capture["entropy"][:, 1]).all()


class Masked(nn.Module):
    """A query of which every key is masked."""

    def __init__(self, boolean: bool, fused: bool) -> None:
        super().__init__()
        self.qkv, self.fused = nn.Linear(DIM, 3 * DIM), fused
        keep = torch.ones(16, 16, dtype=torch.bool)
        keep[4] = False
        self.mask = keep if boolean else torch.zeros(16, 16).masked_fill(~keep, -math.inf)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        else:
            y = torch.softmax(q @ k.mT + self.mask, -1).nan_to_num() @ v
        return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("form", [(True, True), (False, True), (False, False)], ids=str)
def test_a_query_without_a_key_is_an_error(form):
    """Never a number: such a row has no statistic."""
    model = Vit([Masked(*form)]).eval()
    with (
        torch.no_grad(),
        pytest.raises(InputError, match=r"blocks\.0\.attn.*every key masked"),
        mimlab.capture(model),
    ):
        model.forward_features(images())


# What is not known


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"statistics": "entrop"}, ["entrop", "core, all", "entropy"]),
        ({"statistics": ["nmi", "rank"]}, ['"rank"', "diversity"]),
        ({"method": "cuda"}, ['"cuda"', "auto, tiles, compiled, triton"]),
        ({"layers": [2]}, ["layer 2 ", "0 to 1", *PATCHES]),
        ({"layers": [-1]}, ["layer -1 ", "0 to 1"]),
        ({"layers": ["blocks.0"]}, ["'blocks.0'", *PATCHES]),
        ({"heads": [2]}, ["[2]", "blocks.0.attn", "0 to 1"]),
        ({"heads": [-1]}, ["[-1]", "0 to 1"]),
    ],
    ids=str,
)
def test_names_that_are_not_known(options, parts):
    refused(build("MAE"), *parts, **options)


def test_a_statistic_that_was_not_captured():
    model = build("MAE")
    with torch.no_grad(), mimlab.capture(model, ["nmi"]) as capture:
        model(images())
    with pytest.raises(InputError, match=r"\"entropy\" was not captured; captured were nmi.*statistics="):
        capture["entropy"]
    with pytest.raises(InputError, match='statistics="all"'):
        _ = capture.offsets
