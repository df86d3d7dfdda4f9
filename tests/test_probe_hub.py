"""Models whose names lead elsewhere: to timm and to the Hugging Face hub, neither of which the tests need."""

import sys
from types import ModuleType, SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from torch import nn

from mimlab.probing import hugging
from mimlab.probing.layout import Layout
from mimlab.probing.models import load_model
from mimlab.probing.preprocessing import HALF, Preprocessing
from mimlab.runs.errors import InputError

# timm


@pytest.fixture
def timm(monkeypatch, tmp_path):
    """A stand-in with the functions of timm 1.0 that are called, and its models in the hub's local cache."""

    class Model(nn.Module):
        num_prefix_tokens = 1

        def __init__(self, pretrained):
            super().__init__()
            self.patch_embed = nn.Conv2d(3, 4, 8, 8)
            self.patch_embed.grid_size, self.patch_embed.patch_size = (4, 4), (8, 8)
            if pretrained:
                nn.init.ones_(self.patch_embed.weight)

        def forward(self, pixels):
            return self.patch_embed(pixels)

    def create_model(name, pretrained):
        asked.append(name)
        if name == "vit_gone":
            raise RuntimeError("no such weights\nat all")
        return Model(pretrained)

    def published(name):
        return SimpleNamespace(
            hf_hub_id="" if name == "vit_gone" else "timm/vit_tiny.a", hf_hub_filename=None
        )

    def cached(name, local_files_only):
        asked.append(name)
        return str(tmp_path)

    asked = []
    package, data = ModuleType("timm"), ModuleType("timm.data")
    package.create_model, package.data, package.get_pretrained_cfg = create_model, data, published
    package.is_model = lambda name: name in ("vit_tiny", "vit_gone")
    package.list_models = lambda pattern: ["vit_tiny"] if "vit" in pattern else []
    data.resolve_model_data_config = lambda model: {"size": 32}
    data.create_transform = lambda size, is_training: Preprocessing((size, size), *HALF)
    monkeypatch.setitem(sys.modules, "timm", package)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny"}')
    (tmp_path / "model.safetensors").touch()
    return asked


@pytest.mark.parametrize(
    "name", ["vit_tiny", "vit_tiny.a", "hf-hub:timm/vit_tiny.a", "timm/vit_tiny.a", None]
)
def test_timm(timm, tmp_path, name):
    model = load_model(name or str(tmp_path))
    assert timm == ["timm/vit_tiny.a"] * (name is not None) + [f"local-dir:{tmp_path}"]
    assert model.layout == Layout(grid=(4, 4), prefix=1, patch_size=(8, 8))
    assert model.preprocess == Preprocessing((32, 32), *HALF)
    assert (model.module.patch_embed.weight == 1).all()
    before = torch.get_rng_state()
    weights = [model.random(seed).module.patch_embed.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("timm")
def test_timm_refuses():
    with pytest.raises(InputError, match="timm has none; it has vit_tiny"):
        load_model("vit")
    with pytest.raises(InputError, match=r"timm cannot load vit_gone with its weights: no such weights$"):
        load_model("vit_gone")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("vit_base_patch16_224", "hf-hub:timm/vit_base_patch16_224.mae"):
        with pytest.raises(InputError, match="needs timm, which cannot be imported"):
            load_model(name)
    with pytest.raises(InputError, match=r"'my-vti' is no file or directory here, and .* needs timm"):
        load_model("my-vti")


# The hub


def test_a_name_without_network(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(InputError, match=r"Name or service not known\).*\n?.*hf download nobody/nothing"):
        load_model("nobody/nothing")


def test_a_name_that_the_hub_does_not_have(monkeypatch):
    def absent(*_, **__):
        response = SimpleNamespace(headers={}, request=None, status_code=404)
        raise huggingface_hub.errors.RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", absent)
    with pytest.raises(InputError, match="hub has no model of that name"):
        load_model("nobody/nothing")


def test_a_name_in_the_local_cache_needs_no_network(monkeypatch, tmp_path):
    with hugging.quiet():
        config = transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            image_size=32,
            patch_size=8,
        )
        transformers.ViTModel(config).save_pretrained(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, local_files_only: str(tmp_path))
    assert load_model("some/vit").layout.grid == (4, 4)
