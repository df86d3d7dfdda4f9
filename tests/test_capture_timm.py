"""`mimlab.capture` on timm's models, fused and not, where timm can be imported.

timm needs torchvision, and torchvision often does not load beside a CPU build of PyTorch. So these tests also run in
an environment of their own: set MIMLAB_TIMM_PYTHON to an interpreter that has torch, timm, torchvision, what mimlab
needs, pytest and hypothesis, for example

    python -m venv timm-env
    timm-env/bin/pip install -c constraints.txt torch timm torchvision pytest hypothesis -e .
    MIMLAB_TIMM_PYTHON=timm-env/bin/python pytest tests/test_capture_timm.py

and one test here runs them all with it. torchvision for CUDA will do: the operators that it misses are declared.

The truth is the oracle's, from the weights that reach the dropout after the softmax in an unfused float64 copy.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

import mimlab
from mimlab.probing.layout import Layout
from mimlab.runs import InputError

from . import probe_oracle as oracle
from .handwritten_models import spread
from .probe_networks import expected_of

ROOT = Path(__file__).resolve().parents[1]
PYTHON = os.environ.get("MIMLAB_TIMM_PYTHON")
_declared: list[torch.library.Library] = []  # alive as long as its operators


def _import() -> str:
    """Import timm; returns why it cannot be, or nothing."""
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torchvision") is None:
        return "needs timm and torchvision; see the docstring for an environment of their own"
    if not hasattr(torch.ops.torchvision, "nms"):
        own = importlib.util.find_spec("torchvision").submodule_search_locations[0]
        if not _loads(own):
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return f"timm does not load here: {error}"
    return ""


def _loads(package: str) -> bool:
    """Whether torchvision's own operators load beside this torch."""
    for file in Path(package).glob("_C*.so"):
        try:
            torch.ops.load_library(file)
            return True
        except OSError:
            continue
    return False


WHY_NOT = _import()
needs_timm = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
ways = pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])

SMALL: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SWIN: dict[str, Any] = {"img_size": 12, "patch_size": 2, "embed_dim": 8, "depths": (2,), "num_heads": (2,)}
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "ViT": ("vision_transformer.VisionTransformer", {}, 1),
    "ViT with registers": ("vision_transformer.VisionTransformer", {"reg_tokens": 4}, 5),
    "ViT of another size": ("vision_transformer.VisionTransformer", {"dynamic_img_size": True}, 1),
    "SigLIP": ("vision_transformer.VisionTransformer", {"class_token": False, "global_pool": "map"}, 0),
    "EVA": ("eva.Eva", {"use_rot_pos_emb": True}, 1),
    "BEiT": ("beit.Beit", {"use_rel_pos_bias": True, "use_abs_pos_emb": False}, 1),
    "relative positions": ("vision_transformer_relpos.VisionTransformerRelPos", {}, 0),
}
"""Where timm has it, options beside SMALL, and the tokens before the patches."""


def build(path: str, options: dict[str, Any], fused: bool) -> nn.Module:
    import timm.layers

    module, name = path.split(".")
    timm.layers.set_fused_attn(fused)
    try:
        of = getattr(importlib.import_module(f"timm.models.{module}"), name)
        torch.manual_seed(0)
        return spread(of(**options))
    finally:
        timm.layers.set_fused_attn(True)


def images(pixels: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *pixels, generator=torch.Generator().manual_seed(7))


def weights(path: str, options: dict[str, Any], x: Tensor) -> list[Tensor]:
    model, found = build(path, options, fused=False).double(), []
    for name, module in model.named_modules():
        if name.endswith("attn.attn_drop"):
            module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    model(x.double())
    return found


def captured(model: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        plain = model(x)
        with mimlab.capture(model, "all") as capture:
            watched = model(x)
    assert_allclose(watched, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
    return capture


def assert_equal(capture: Any, wanted: dict[str, np.ndarray]) -> None:
    for name, values in wanted.items():
        actual = capture.offsets if name == "offsets" else capture[name]
        assert_allclose(actual, values, rtol=0, atol=1e-5, err_msg=name)


@needs_timm
@ways
@pytest.mark.parametrize("name", MODELS)
def test_timm_is_measured_as_the_oracle_says(name, fused):
    path, own, prefix = MODELS[name]
    pixels, options = (12, 20) if name == "ViT of another size" else (16, 16), SMALL | own
    truth = weights(path, options, images(pixels))
    assert len(truth) == 2
    layout = Layout((pixels[0] // 4, pixels[1] // 4), prefix, (4.0, 4.0))
    capture = captured(build(path, options, fused), images(pixels))
    assert capture.layers == ["blocks.0.attn", "blocks.1.attn"]
    assert capture.layouts == [layout] * 2
    wanted = expected_of([[layer.log() for layer in truth]], layout)
    assert wanted["diversity"].min() > 0.1
    assert_equal(capture, wanted)


@needs_timm
@ways
def test_forward_features_is_one_pass(fused):
    model = build("vision_transformer.VisionTransformer", SMALL, fused)
    with torch.no_grad(), mimlab.capture(model) as capture:
        model.forward_features(images((16, 16)))
        model.forward_features(images((16, 16)))
    assert capture["entropy"].shape == (4, 2, 2)
    assert_allclose(capture["entropy"][2:], capture["entropy"][:2], atol=1e-6)


@needs_timm
@ways
@pytest.mark.parametrize(
    "version", ["swin_transformer.SwinTransformer", "swin_transformer_v2.SwinTransformerV2"]
)
def test_swin_is_measured_in_windows(version, fused):
    options = SWIN | {"window_size": 3}
    capture = captured(build(version, options, fused), images((12, 12)))
    layout = Layout((3, 3), 0, (2.0, 2.0), 4)
    assert capture.layers == ["layers.0.blocks.0.attn", "layers.0.blocks.1.attn"]
    assert capture.layouts == [layout] * 2
    for layer, maps in enumerate(weights(version, options, images((12, 12)))):
        tables = maps.log().unflatten(0, (-1, 4)).tolist()
        for image, windows in enumerate(tables):
            for head in range(2):
                found = [oracle.of_table(window[head], layout) for window in windows]
                for name in found[0]:
                    wanted = np.mean([one[name] for one in found])
                    assert capture[name][image, layer, head] == pytest.approx(wanted, abs=1e-5), name


@needs_timm
@pytest.mark.parametrize("pixels", [(32, 32), (16, 16)], ids=["more patches than channels", "fewer"])
def test_xcit_s_attention_over_channels_is_refused(pixels):
    options = {"img_size": pixels, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = build("xcit.Xcit", options, fused=True)
    with pytest.raises(InputError, match=r'"blocks\.0\.attn".*8 x 8.*channels'), mimlab.capture(model):
        model(images(pixels))


@pytest.mark.skipif(not PYTHON, reason="MIMLAB_TIMM_PYTHON names no interpreter; see the docstring")
def test_all_of_them_in_an_environment_of_their_own():
    assert PYTHON
    own = {name: value for name, value in os.environ.items() if name != "MIMLAB_TIMM_PYTHON"}
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", str(Path(__file__))]
    environment = own | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert " passed, 1 skipped" in summary, done.stdout[-4000:] + sys.version
