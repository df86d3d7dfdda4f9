"""`mimlab.capture` on the published ways of writing a vision transformer, and on the ways of calling one."""

import pytest
import torch
from numpy.testing import assert_allclose

import mimlab
from mimlab.probing.layout import Layout

from .handwritten_models import CODES, HEADS, build, images, listen
from .probe_networks import expected_of

LAYOUT = Layout((3, 5), 1, (4.0, 4.0))
NEAR = {"distance": 1e-5, "positional_distance": 1e-5}


def layout_of(name: str) -> Layout:
    return Layout((3, 5), 4, (4.0, 4.0)) if name == "DINOv2" else LAYOUT


def assert_equal(capture, wanted):
    for name, values in wanted.items():
        actual = capture.offsets if name == "offsets" else capture[name]
        assert actual.shape == values.shape, name
        assert_allclose(actual, values, rtol=0, atol=NEAR.get(name, 4e-6), err_msg=name)


@pytest.mark.parametrize("name", CODES)
def test_every_code_is_measured_as_the_oracle_says(name):
    model, layout = build(name), layout_of(name)
    wanted = expected_of([listen(model, images())], layout)
    with torch.inference_mode():
        plain = model(images())
        with mimlab.capture(model, statistics="all") as capture:
            watched = model(images())
    assert_allclose(watched, plain, rtol=1e-5, atol=1e-5)
    assert capture.layers == [CODES[name].format(0), CODES[name].format(1)]
    assert capture.layouts == [layout] * 2
    assert wanted["entropy"].max() < 0.9 * 2.7 and wanted["diversity"].min() > 0.1
    assert_equal(capture, wanted)


METHODS_OF_MODELS = {
    "forward_features": lambda model, x: model.forward_features(x),
    "get_last_selfattention": lambda model, x: model.get_last_selfattention(x),
    "several parts by hand": lambda model, x: model.forward_blocks(model.tokens(x)),
    "forward without its hooks": lambda model, x: model.forward(x),
}


@pytest.mark.parametrize("call", METHODS_OF_MODELS.values(), ids=METHODS_OF_MODELS)
def test_a_method_that_calls_the_parts_one_by_one_is_one_pass(call):
    """timm's, MAE's and DINO's users call such methods, and the model itself is then never called."""
    model = build("DINO")
    first, second = images(), images(3, seed=8)
    wanted = expected_of([listen(model, first), listen(model, second)], LAYOUT)
    with torch.no_grad(), mimlab.capture(model, statistics="all") as capture:
        call(model, first)
        call(model, second)
    assert capture.layers == ["blocks.0.attn", "blocks.1.attn"]
    assert_equal(capture, wanted)


def test_calls_of_the_model_and_of_its_methods_can_alternate():
    model = build("MAE")
    with torch.no_grad(), mimlab.capture(model) as capture:
        model(images())
        model.forward_features(images())
        model(images())
    assert capture.layers == ["blocks.0.attn", "blocks.1.attn"]
    assert capture["entropy"].shape == (6, 2, HEADS)
    assert_allclose(capture["entropy"][2:4], capture["entropy"][:2], rtol=1e-6)


def test_images_of_one_table_for_all_heads_are_told_apart_without_a_convolution():
    """A table (images · heads, tokens, tokens) says nothing of heads; what the module was given does."""
    model = build("heads in the batch")
    tokens = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), mimlab.capture(model.blocks, layout=LAYOUT) as capture:
        for block in model.blocks:
            tokens = block(tokens)
    assert capture["entropy"].shape == (3, 2, HEADS)
