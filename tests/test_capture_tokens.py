"""Tokens whose places in the image are not known: shuffled, pooled, of words, or after the patches.

`mimlab.capture` refuses them, and takes those that were picked and stayed in their places.
"""

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import mimlab
from mimlab.probing.layout import Layout

from .handwritten_models import DIM, HEADS, XCA, Attention, Block, Vit, build, images, spread
from .test_capture_errors import refused
from .vision_models import MODELS, swin

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.mark.parametrize("ratio", [0.0, 0.75])
def test_an_original_mae_that_shuffles(ratio):
    """At ratio 0 nothing is masked, and the order is lost all the same."""
    model = build("MAE")
    kept = 15 if ratio == 0 else 3
    refused(
        model,
        "masked or shuffled the patches",
        f"{kept} of 15",
        "unmasked and in order",
        call=lambda: (model.patch_embed.register_forward_hook(_shuffle(model, ratio)), model(images())),
    )


def _shuffle(model: Vit, ratio: float):
    return lambda module, inputs, output: model.random_masking(output, ratio)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 15), (0.75, 3)])
def test_a_vitmae_that_masks_or_shuffles(ratio, kept, kind):
    tiny = MODELS["ViTMAE"]
    model = tiny.build(kind)
    model.config.mask_ratio = ratio
    call = {k: v for k, v in tiny.arguments().items() if k != "noise"}
    refused(
        model,
        'module "embeddings"',
        f"{kept} of 15",
        "ordered noise=",
        call=lambda: (torch.manual_seed(0), model(**call)),
    )


PICKS = {
    "index": lambda x, places: x[torch.arange(len(x))[:, None], places],
    "index_select": lambda x, places: x.index_select(1, places[0]),
    "boolean mask": lambda x, places: x[places < 4].reshape(len(x), -1, DIM),
    "take_along_dim": lambda x, places: torch.take_along_dim(x, places[..., None], 1),
    "list": lambda x, places: x[:, places[0].tolist()],
    "array": lambda x, places: x[:, places[0].numpy()],
    "flip": lambda x, _: x.flip(1),
    "torch.flip": lambda x, _: torch.flip(x, dims=[-2]),
    "roll": lambda x, _: x.roll(1, dims=1),
    "torch.roll": lambda x, _: torch.roll(x, shifts=4, dims=1),
}


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
def test_other_ways_to_pick_tokens(pick):
    model = build("MAE")
    places = torch.stack([torch.randperm(15, generator=torch.Generator().manual_seed(s)) for s in (1, 2)])
    model.patch_embed.register_forward_hook(lambda _, __, tokens: pick(tokens, places))
    refused(model, "masked or shuffled the patches", "unmasked and in order")


IN_ORDER = {
    "gather": lambda x: x.gather(1, torch.arange(15)[None, :, None].expand_as(x)),
    "index": lambda x: x[:, torch.arange(15)],
    "all kept": lambda x: x[torch.ones(2, 15, dtype=torch.bool)].reshape(2, 15, DIM),
    "another axis": lambda x: x[..., torch.arange(DIM)],
    "some images": lambda x: x[torch.tensor([1, 0])],
    "list": lambda x: x[:, list(range(15))],
    "array": lambda x: x[torch.arange(2).numpy()],
    "channels flipped": lambda x: x.flip(-1),
    "images rolled": lambda x: torch.roll(x, 1, dims=0),
}


@pytest.mark.parametrize("pick", IN_ORDER.values(), ids=IN_ORDER)
def test_tokens_that_stay_in_their_places_are_no_error(pick):
    model = build("MAE")
    model.patch_embed.register_forward_hook(lambda _, __, tokens: pick(tokens))
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images())
    assert capture["entropy"].shape == (2, 2, HEADS)


@pytest.mark.parametrize("pixels", [(12, 20), (8, 12), (8, 8)], ids=["more patches", "fewer", "half as many"])
def test_attention_over_channels_is_no_attention_between_patches(pixels):
    """A head has 8 channels: with 6 or 4 patches, 2 or 4 of them could pass for prefix tokens."""
    model = Vit([XCA(), XCA()]).eval()
    refused(
        model, '"blocks.0.attn"', "8 x 8", "channels", "layers=", call=lambda: model(images(pixels=pixels))
    )


def test_a_text_tower_is_not_measured_as_prefix_tokens():
    """27 tokens of text beside 16 patches: no 11 prefix tokens."""
    config = transformers.CLIPConfig(
        vision_config={**SIZES, "image_size": 16, "patch_size": 4},
        text_config={**SIZES, "vocab_size": 50, "eos_token_id": 49, "max_position_embeddings": 27},
        projection_dim=8,
    )
    model = spread(transformers.CLIPModel(config))
    call = {"input_ids": torch.arange(27).expand(2, 27), "pixel_values": images(pixels=(16, 16))}
    refused(model, '"text_model.encoder.layers.0.self_attn"', "27 x 27", "text", call=lambda: model(**call))
    vision = [f"vision_model.encoder.layers.{layer}.self_attn" for layer in (0, 1)]
    with torch.no_grad(), mimlab.capture(model, layers=vision) as capture:
        model(**call)
    assert capture.layers == vision and {layout.prefix for layout in capture.layouts} == {1}
    with torch.no_grad(), mimlab.capture(model) as capture:
        model.get_image_features(call["pixel_values"])
    assert capture.layers == vision
    refused(
        model,
        "text_model",
        call=lambda: (
            model.get_image_features(call["pixel_values"]),
            model.get_text_features(call["input_ids"]),
        ),
    )


def siglip() -> nn.Module:
    """16 patches and 16 tokens of text."""
    config = transformers.SiglipConfig(
        vision_config={**SIZES, "image_size": 16, "patch_size": 4},
        text_config={**SIZES, "vocab_size": 50, "max_position_embeddings": 16},
    )
    return spread(transformers.SiglipModel(config))


def clip() -> nn.Module:
    """16 patches and CLS, 17 tokens of text."""
    config = transformers.CLIPConfig(
        vision_config={**SIZES, "image_size": 16, "patch_size": 4},
        text_config={**SIZES, "vocab_size": 50, "eos_token_id": 49, "max_position_embeddings": 17},
        projection_dim=8,
    )
    return spread(transformers.CLIPModel(config))


class Flat(Vit):
    """As open_clip's: the image has a tower of its own, the text's is spread out beside it."""

    def __init__(self, text_first: bool) -> None:
        super().__init__([Attention()])
        self.visual, self.text_first = Vit([Attention()]), text_first
        self.token_embedding, self.position = nn.Embedding(50, DIM), nn.Embedding(16, DIM)

    def encode_text(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).expand_as(ids)
        return self.forward_blocks(self.token_embedding(ids) + self.position(places))[:, -1]

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        text = self.token_embedding(ids) if self.text_first else None
        image = self.visual(x)
        return image, self.encode_text(ids) if text is None else text


WORDS = {
    "drawn": lambda n: torch.randint(50, (2, n), generator=torch.Generator().manual_seed(1)),
    "in a row": lambda n: torch.arange(n).expand(2, n),  # as positions would be
    "as many as tokens": lambda n: torch.ones(n, n, dtype=torch.int32),  # as relative positions would be
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize(("tower", "tokens"), [(siglip, 16), (clip, 17)], ids=["SigLIP", "CLIP"])
def test_a_text_tower_of_as_many_tokens_is_not_measured_as_patches(tower, tokens, words):
    model = tower()
    call = {"input_ids": words(tokens), "pixel_values": images(pixels=(16, 16))}
    refused(
        model,
        '"text_model.encoder.layers.0.self_attn"',
        f"{tokens} x {tokens}",
        "text",
        "layers=",
        call=lambda: model(**call),
    )
    refused(
        model,
        '"text_model.encoder.layers.0.self_attn"',
        call=lambda: (
            model.get_image_features(call["pixel_values"]),
            model.get_text_features(call["input_ids"]),
        ),
    )
    vision = [f"vision_model.encoder.layers.{layer}.self_attn" for layer in (0, 1)]
    for layers in (vision, [0, 1]):
        with torch.no_grad(), mimlab.capture(model, layers=layers) as capture:
            model(**call)
        assert capture.layers == vision
        assert {layout.prefix for layout in capture.layouts} == {tokens - 16}


def test_a_text_tower_spread_out_beside_the_image_s():
    model, words = Flat(False).eval(), WORDS["drawn"](16)
    refused(model, '"blocks.0.attn"', "16 x 16", "text", call=lambda: model(images(), words))
    refused(model, "text", call=lambda: (model.visual(images()), model.encode_text(words)))


def test_words_that_were_looked_up_before_the_image_came_say_nothing_of_its_tower():
    model = Flat(True).eval()
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images(), WORDS["drawn"](16))
    assert capture.layers == ["visual.blocks.0.attn"]


class Positioned(Vit):
    """Positions, absolute and relative, from tables that are modules; `by_hand` calls them before any other."""

    def __init__(self) -> None:
        super().__init__([Attention()])
        self.position, self.relative = nn.Embedding(16, DIM), nn.Embedding(40, DIM)

    def forward_blocks(self, x: Tensor) -> Tensor:
        places = torch.arange(16)
        relative = self.relative(places[:, None] - places + 16).mean(1)
        return super().forward_blocks(x + self.position(places.expand(len(x), 16)) + relative)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("by_hand", [False, True])
def test_positions_that_are_looked_up_are_no_words(by_hand, count):
    model = spread(Positioned())
    with torch.no_grad(), mimlab.capture(model) as capture:
        (model.forward_features if by_hand else model)(images(count))
    assert capture.layouts == [Layout((3, 5), 1, (4.0, 4.0))]


def test_no_convolution_and_no_layout():
    model = Block(Attention()).eval()
    refused(
        model,
        '16 tokens of "attn"',
        "no convolution",
        "layout=Layout(",
        call=lambda: model(torch.zeros(1, 16, DIM)),
    )


class Detecting(Vit):
    """As YOLOS: detection tokens after the patches; or the tokens of two images in one row."""

    way = "cat"

    def tokens(self, x: Tensor) -> Tensor:
        x = super().tokens(x)
        return JOINS[self.way](x)


JOINS = {
    "cat": lambda x: torch.cat((x, x[:, :3]), dim=1),
    "two images": lambda x: torch.cat((x, x[:, 1:]), axis=1),
    "hstack": lambda x: torch.hstack((x, x[:, :3])),
    "column_stack": lambda x: torch.column_stack((x, x[:, :3])),
    "pad": lambda x: F.pad(x, (0, 0, 0, 3)),
}


@pytest.mark.parametrize("way", JOINS)
def test_tokens_after_the_patches(way):
    model = Detecting([Attention()]).eval()
    model.way = way
    refused(
        model,
        "16 + 15 tokens" if way == "two images" else "16 + 3 tokens",
        "3 x 5 patches",
        "layout=Layout(",
    )


FIRST = {
    "hstack": lambda x: torch.hstack((x[:, :3], x)),
    "pad": lambda x: F.pad(x, (0, 0, 3, 0)),
    "no tokens": lambda x: x + F.pad(x[0, 0], (0, 0)),
}


@pytest.mark.parametrize(("way", "prefix"), list(zip(FIRST, (4, 4, 1), strict=True)))
def test_tokens_before_the_patches_are_prefix_tokens(way, prefix, monkeypatch):
    monkeypatch.setitem(JOINS, "cat", FIRST[way])
    model = Detecting([Attention()]).eval()
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images())
    assert capture.layouts == [Layout((3, 5), prefix, (4.0, 4.0))]


def test_detection_tokens_of_yolos():
    config = transformers.YolosConfig(**SIZES, image_size=[16, 16], patch_size=4, num_detection_tokens=5)
    model = transformers.YolosModel(config).eval()
    refused(model, "1 + 16 + 5 tokens together", "4 x 4 patches", call=lambda: model(images(pixels=(16, 16))))


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_windows_that_were_padded(kind):
    """7 patches in windows of 3: the padding takes part in attention, and a patch's size is not what it seems."""
    model = swin(kind)
    refused(
        model,
        '"encoder.layers.0.blocks.0.attention"',
        "9 windows of 9 tokens",
        "7 x 7 patches",
        "give images that they divide",
        call=lambda: model(images(pixels=(14, 14)), interpolate_pos_encoding=True),
    )


@pytest.mark.parametrize(
    "layout", [Layout((3, 5)), Layout((4, 4), 1), Layout((5, 3), 2)], ids=["no prefix", "grid", "prefix"]
)
def test_a_layout_that_the_tokens_do_not_have(layout):
    refused(
        build("MAE"),
        '"blocks.0.attn"',
        "16 tokens",
        f"has {layout.tokens}",
        "that the model has",
        layout=layout,
    )
