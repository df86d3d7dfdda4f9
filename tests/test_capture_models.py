"""`mimlab.capture` on the models of transformers, each under both of its implementations of attention.

The truth is the oracle's, from maps that a float64 copy of the model returned itself (tests/vision_models.py).
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose
from torch import nn

import mimlab
from mimlab.probing.layout import Layout

from . import probe_oracle as oracle
from .handwritten_models import spread
from .vision_models import KINDS, MODELS, SWIN, expected, maps_of, swin, swin_maps

TOLERANCE = {"distance": 1e-5, **dict.fromkeys(("entropy", "mean_row_entropy", "information"), 4e-6)}
"""Absolute: pixels of at most 20, nats. Everything else is a number of at most 2, known to 2e-6."""

every_kind = pytest.mark.parametrize("kind", KINDS)
LAYERS = {
    "DINOv2": "encoder.layer.{}.attention",
    "DINOv2 with registers": "encoder.layer.{}.attention",
    "DINOv3": "model.layer.{}.attention",
    "CLIP": "encoder.layers.{}.self_attn",
    "SigLIP": "encoder.layers.{}.self_attn",
    "data2vec": "encoder.layer.{}.attention.attention",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(model: nn.Module, arguments: dict[str, Any]) -> Any:
    """One call, captured; its outputs are what they were."""
    with torch.no_grad():
        plain = model(**arguments)[0]
        with mimlab.capture(model, statistics="all") as capture:
            watched = model(**arguments)[0]
    assert_allclose(watched, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())
    return capture


def assert_equal(capture: Any, wanted: dict[str, np.ndarray]) -> None:
    for name, values in wanted.items():
        actual = capture.offsets if name == "offsets" else capture[name]
        assert actual.shape == values.shape, name
        near = TOLERANCE.get(name.removeprefix("positional_"), 2e-6)
        assert_allclose(actual, values, rtol=0, atol=near, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_attention_in_these_tests_is_far_from_uniform(name):
    truth, layout = expected(name), MODELS[name].layout
    for layer in maps_of(name):
        assert layer.shape == (2, 2, layout.tokens, layout.tokens)
        assert_allclose(layer.sum(-1), 1, atol=1e-6)
    assert truth["entropy"].max() < 0.9 * np.log(layout.patches)
    assert truth["diversity"].min() > 0.2
    assert np.ptp(truth["distance"]) > 0.3


@every_kind
@pytest.mark.parametrize("name", MODELS)
def test_every_statistic_is_the_oracle_s(name, kind):
    tiny = MODELS[name]
    capture = run(tiny.build(kind), tiny.arguments())
    pattern = LAYERS.get(name, "layers.{}.attention")
    assert capture.layers == [pattern.format(0), pattern.format(1)]
    assert capture.layouts == [tiny.layout] * 2
    assert_equal(capture, expected(name))


def test_position_biases_are_not_zero():
    """Else BEiT, data2vec and Swin would say nothing about them."""
    for model in (MODELS["BEiT"].build("sdpa"), MODELS["data2vec"].build("sdpa"), swin("sdpa")):
        tables = [p for name, p in model.named_parameters() if "relative_position_bias_table" in name]
        assert len(tables) >= 2 and all(table.std() > 0.5 for table in tables)


def of_windows(maps: torch.Tensor, layout: Layout) -> dict[str, np.ndarray]:
    """The oracle on each window, averaged over an image's; maps (images * windows, heads, tokens, tokens)."""
    tables = maps.log().unflatten(0, (-1, layout.windows))
    images, windows, heads = tables.shape[:3]
    found: dict[str, np.ndarray] = {}
    for image, window, head in itertools.product(range(images), range(windows), range(heads)):
        for name, value in oracle.of_table(tables[image, window, head].tolist(), layout).items():
            found.setdefault(name, np.zeros((images, heads)))[image, head] += value / windows
    for window, head in itertools.product(range(windows), range(heads)):
        for name, value in oracle.positional(tables[:, window, head].tolist(), layout).items():
            found.setdefault(name, np.zeros((1, heads)))[0, head] += value / windows
    return found


@every_kind
@pytest.mark.parametrize("pixels", SWIN, ids=str)
def test_swin_is_measured_in_windows(pixels, kind):
    images = torch.randn(2, 3, *pixels, generator=torch.Generator().manual_seed(1))
    call = {"pixel_values": images, "interpolate_pos_encoding": True}
    capture = run(swin(kind), call)
    assert capture.layers == [f"encoder.layers.{s}.blocks.{b}.attention" for s in (0, 1) for b in (0, 1)]
    windows = pixels[0] * pixels[1] // (4 * 9)  # patches of 2 pixels, 3 x 3 of them in a window
    first = Layout((3, 3), 0, (2.0, 2.0), windows)
    second = Layout((3, 3), 0, (4.0, 4.0), windows // 4)
    assert capture.layouts == [first, first, second, second]
    wanted = [of_windows(m, own) for m, own in zip(swin_maps(call), capture.layouts, strict=True)]
    assert_equal(capture, {name: np.stack([own[name] for own in wanted], axis=1) for name in wanted[0]})


@every_kind
def test_sam_s_windows_and_whole_images(kind):
    """One axis for windows and heads under "eager"; the second layer sees the whole image."""
    sizes = {"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    image = {"image_size": 32, "patch_size": 4, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 24}
    captures = []
    for own in ("eager", kind):
        config = transformers.SamVisionConfig(**sizes, **image)
        model = spread(transformers.SamVisionModel._from_config(config, attn_implementation=own))
        images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        captures.append(run(model, {"pixel_values": images}))
    assert captures[1].layouts == [Layout((4, 4), 0, (4.0, 4.0), 4), Layout((8, 8), 0, (4.0, 4.0))]
    assert captures[1]["distance"].shape == (3, 2, 2)
    for name in captures[0].statistics:
        assert_allclose(captures[1][name], captures[0][name], rtol=0, atol=2e-5, err_msg=name)


def test_swin_s_shifted_windows_are_masked():
    """In the second block of a stage, some windows hold pieces of the image that do not attend to each other."""
    maps = swin_maps(
        {"pixel_values": torch.randn(1, 3, *SWIN[1], generator=torch.Generator().manual_seed(1))}
    )
    assert [bool((m < 1e-20).any()) for m in maps] == [False, True, False, True]


@every_kind
def test_vitmae_pretraining_measures_its_decoder_too(kind):
    tiny = MODELS["ViTMAE"]
    config = transformers.ViTMAEConfig
    model = spread(
        transformers.ViTMAEForPreTraining._from_config(
            config(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=24,
                image_size=16,
                patch_size=4,
                **tiny.options,
            ),
            attn_implementation=kind,
        )
    )
    noise = torch.arange(16.0).expand(2, 16)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images, noise=noise)
    assert len(capture.layers) == 3 and "decoder" in capture.layers[2]
    assert set(capture.layouts) == {Layout((4, 4), 1, (4.0, 4.0))}


@every_kind
def test_classifiers_and_backbones_name_their_layers_in_full(kind):
    """The names are those of the model that was handed over, whatever stands above the encoder."""
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    model = spread(transformers.ViTForImageClassification._from_config(config, attn_implementation=kind))
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(5)))
    assert capture.layers == ["vit.layers.0.attention", "vit.layers.1.attention"]
    assert all(name in dict(model.named_modules()) for name in capture.layers)
