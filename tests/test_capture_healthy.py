"""Healthy models that `mimlab.capture` must not complain about: what looks like missed attention, and is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mimlab
from mimlab.probing.layout import Layout
from mimlab.runs import InputError

from .handwritten_models import DIM, HEADS, Attention, Block, PatchEmbed, Vit, build, images, spread

BLOCKS = ["blocks.0.attn", "blocks.1.attn"]


def names(model: nn.Module, **options: object) -> list[str]:
    with torch.no_grad(), mimlab.capture(model.eval(), **options) as capture:
        model(images())
    assert capture["entropy"].shape[0] == 2
    return capture.layers


class AttentionPoolLatent(nn.Module):
    """timm's: a learned query asks the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.ones(1, 1, DIM))
        self.q, self.kv, self.proj = nn.Linear(DIM, DIM), nn.Linear(DIM, 2 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(self.latent).unflatten(-1, (HEADS, -1)).transpose(1, 2).expand(len(x), -1, -1, -1)
        k, v = self.kv(x).unflatten(-1, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).flatten(1))


class MultiheadPool(nn.Module):
    """SigLIP's, in nn.MultiheadAttention."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.probe, self.weights = nn.Parameter(torch.ones(1, 1, DIM)), weights
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=self.weights)[0][:, 0]


class CrossAttention(nn.Module):
    """A decoder's, softmax by hand: 7 queries, all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(DIM, DIM) for _ in range(3))
        self.queries = nn.Parameter(torch.ones(1, 7, DIM))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(self.queries) @ self.k(x).mT).softmax(-1)
        return (weights @ self.v(x)).mean(1)


class SqueezeExciteAttention(nn.Module):
    """Attention in name."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(DIM, 4), nn.Linear(4, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.fc2(self.fc1(x.mean(1, keepdim=True)).relu()).sigmoid()).mean(1)


class Router(nn.Module):
    """A softmax over experts, token by token."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(DIM, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x).softmax(-1).mean(1)


class Headed(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = build("MAE"), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk.forward_features(x))


HEADS_OF_MODELS = {
    "AttentionPoolLatent": AttentionPoolLatent,
    "MultiheadAttention pool": lambda: MultiheadPool(False),
    "MultiheadAttention pool with weights": lambda: MultiheadPool(True),
    "cross-attention": CrossAttention,
    "squeeze and excite": SqueezeExciteAttention,
    "router": Router,
}


@pytest.mark.parametrize("head", HEADS_OF_MODELS.values(), ids=HEADS_OF_MODELS)
def test_attention_of_other_kinds_in_the_head(head):
    assert names(Headed(head())) == [f"trunk.{name}" for name in BLOCKS]


class Decoder(nn.Module):
    """Of a detector: 7 queries attend to each other, which is no attention between patches."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 20, DIM, generator=torch.Generator().manual_seed(1)))
        self.layer = nn.TransformerDecoderLayer(DIM, HEADS, 24, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.queries.expand(len(x), -1, -1), x)


def test_a_detector_s_decoder_is_refused_and_can_be_left_out():
    """20 queries beside 15 patches and CLS are no grid with 5 prefix tokens."""
    with pytest.raises(InputError, match=r'"head\.layer\.self_attn" .* 20 x 20'):
        names(Headed(Decoder()))
    chosen = [f"trunk.{name}" for name in BLOCKS]
    assert names(Headed(Decoder()), layers=chosen) == chosen
    assert names(Headed(Decoder()), layers=[0, 1]) == chosen


class Dropped(Vit):
    """Leaves blocks out, as LayerDrop and early exits do."""

    def forward_blocks(self, x: Tensor) -> Tensor:
        return self.blocks[2](self.blocks[0](x))


def test_blocks_that_did_not_run_are_not_missed():
    assert names(spread(Dropped([Attention() for _ in range(4)]))) == [BLOCKS[0], "blocks.2.attn"]


class LayerDrop(Vit):
    dropped = 1

    def forward_blocks(self, x: Tensor) -> Tensor:
        for layer, block in enumerate(self.blocks):
            x = x if layer == self.dropped else block(x)
        return x


def test_passes_through_different_layers_are_told_apart():
    """Training with LayerDrop: a layer's place would mean another layer in the next pass."""
    model = LayerDrop([Attention() for _ in range(3)]).eval()
    with (
        torch.no_grad(),
        pytest.raises(InputError, match=r'"blocks\.1\.attn".*"blocks\.2\.attn".*one kind of pass'),
        mimlab.capture(model),
    ):
        model(images())
        model.dropped = None
        model(images())


class Mixer(nn.Module):
    """What stands in attention's place in the early blocks of a MetaFormer."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(3, 1, 1)
        self.fc = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x.mT).mT)


@pytest.mark.parametrize("other", [nn.Identity, Mixer, SqueezeExciteAttention])
def test_places_of_attention_may_hold_something_else(other):
    if other is SqueezeExciteAttention:
        other = type(
            "Excite", (SqueezeExciteAttention,), {"forward": lambda self, x: x * self.fc2(self.fc1(x))}
        )
    assert names(Vit([other(), Attention(), other(), Attention()])) == ["blocks.1.attn", "blocks.3.attn"]


class Recurrent(Mixer):
    """A state space model's: its `in_proj` is none to queries."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.in_proj(x).cumsum(1)


class Crossing(nn.Module):
    """Queries, keys and values of the tokens, for a few queries alone: the attention is in a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.inner = nn.Linear(DIM, DIM), CrossAttention()

    def forward(self, x: Tensor) -> Tensor:
        return self.to_q(x) + self.inner(x)[:, None]


@pytest.mark.parametrize("other", [Recurrent, Crossing])
def test_what_stands_between_blocks_of_attention_is_none_of_its_own(other):
    assert names(Vit([Attention(), other(), Attention()])) == ["blocks.0.attn", "blocks.2.attn"]


class Positional(nn.Module):
    """A convolution between the tokens of the grid, before the first attention and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(DIM, DIM, 3, padding=1, groups=DIM)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.mT.unflatten(-1, (3, 5))).flatten(2).mT


class Convolutional(nn.Module):
    """A stem of two convolutions, and convolutional positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, DIM, 3, 2, 1))
        self.blocks = nn.Sequential(Positional(), Block(Attention()), Positional(), Block(Attention()))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x).flatten(2).mT)


def test_convolutions_on_the_way_leave_the_grid_right():
    model = Convolutional().eval()
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images())
    assert capture.layouts == [Layout((3, 5), 0, (4.0, 4.0))] * 2


def test_prefix_tokens_are_as_many_as_there_are():
    """Prompts in numbers: still no other grid. As many as patches could be patches, and have to be told apart."""
    for registers in (0, 1, 9, 13, 40):
        model = Vit([Attention()], registers=registers).eval()
        layout = Layout((3, 5), 1 + registers, (4.0, 4.0))
        with torch.no_grad(), mimlab.capture(model, layout=layout if registers == 40 else None) as capture:
            model(images())
        assert capture.layouts == [layout]


def test_an_image_goes_through_a_convolution_of_another_kind_first():
    """A blur that keeps its size is not the grid, and the image is what it takes."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), PatchEmbed(), Block(Attention())).eval()
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images())
    assert capture.layers == ["2.attn"]
    assert capture.layouts == [Layout((3, 5), 0, (4.0, 4.0))]
