"""Models by name: directories of transformers, checkpoint files, one's own functions, and what is refused."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from mimlab.probing import hugging
from mimlab.probing.layout import Layout
from mimlab.probing.models import NamedModel, load_model
from mimlab.probing.preprocessing import CLIP, HALF, IMAGENET, Preprocessing, published
from mimlab.runs.errors import InputError

from .test_probe_checkpoints import HEADS, Code, Original

SIZES = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"image_size": 32, "patch_size": 8},
}
DINOV2 = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
TEXT = {"text_config": {**SIZES, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}}
DECODER = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
FAMILIES = {
    "ViT": (SIZES, 1, HALF),
    "DeiT": (SIZES, 2, IMAGENET),
    "ViTMAE": (SIZES | DECODER | {"decoder_intermediate_size": 16}, 1, IMAGENET),
    "Dinov2": (DINOV2, 1, IMAGENET),
    "Dinov2WithRegisters": (DINOV2 | {"num_register_tokens": 4}, 5, IMAGENET),
    "Beit": (SIZES, 1, HALF),
    "IJepa": (SIZES, 0, IMAGENET),
    "CLIP": ({"vision_config": SIZES} | TEXT, 1, CLIP),
    "Siglip": ({"vision_config": SIZES} | TEXT, 0, HALF),
}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def saved(folder, family, kind="Model"):
    """A model with random weights in a directory, as transformers saves it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family][0])
    model = getattr(transformers, f"{family}{kind}")(config).eval()
    with hugging.quiet():
        model.save_pretrained(folder)
    return model


def tokens(model, pixels):
    with torch.no_grad():
        return model.forward(pixels).last_hidden_state


# Directories


@pytest.mark.parametrize("family", FAMILIES)
def test_a_directory_gives_the_models_own_tokens(tmp_path, family):
    original = saved(tmp_path, family)
    _, prefix, (mean, std) = FAMILIES[family]
    model = load_model(str(tmp_path))
    assert model.layout == Layout(grid=(4, 4), prefix=prefix, patch_size=(8, 8))
    assert model.preprocess == Preprocessing((32, 32), mean, std)
    pixels = torch.stack([model.preprocess(PICTURE)] * 2)
    found = tokens(model, pixels)
    assert found.shape == (2, 16 + prefix, 32)
    if family in ("CLIP", "Siglip"):
        original = original.vision_model
    options = {"noise": torch.arange(16.0).expand(2, -1)} if family == "ViTMAE" else {}
    if family == "ViTMAE":
        original.config.mask_ratio = 0.0
    with torch.no_grad():
        expected = original(pixel_values=pixels, **options).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_mae_sees_every_patch_in_order(tmp_path):
    """Its encoder equals a ViT with its weights, which knows neither masks nor shuffles."""
    original = saved(tmp_path, "ViTMAE", "ForPreTraining")
    model = load_model(str(tmp_path))
    vit = transformers.ViTModel(
        transformers.ViTConfig(**SIZES, layer_norm_eps=1e-12), add_pooling_layer=False
    )
    vit.load_state_dict(original.vit.state_dict())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vit.eval()(pixels).last_hidden_state
    torch.testing.assert_close(tokens(model, pixels), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "processor", "settings", "size"),
    [
        ("ViT", "ViTImageProcessor", {"size": {"height": 32, "width": 32}}, (32, 32)),
        (
            "Dinov2",
            "BitImageProcessor",
            {"size": {"shortest_edge": 60}, "crop_size": {"height": 48, "width": 48}},
            (48, 48),
        ),
    ],
)
def test_the_directory_s_own_preprocessing(tmp_path, family, processor, settings, size):
    saved(tmp_path, family)
    own = getattr(transformers, processor)(**settings, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    own.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    torch.testing.assert_close(
        model.preprocess(PICTURE), own(PICTURE, return_tensors="pt")["pixel_values"][0]
    )
    assert model.layout.grid == (size[0] // 8, size[1] // 8)
    white = model.preprocess(Image.new("RGB", (1, 1), "white"))
    torch.testing.assert_close(white[:, 0, 0], torch.tensor([0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6]))
    assert white.shape == (3, *size)


def test_a_processor_that_needs_torchvision_is_followed_by_its_numbers(tmp_path, monkeypatch):
    saved(tmp_path, "ViT")
    written = {
        "size": {"height": 32, "width": 32},
        "image_mean": IMAGENET[0],
        "image_std": IMAGENET[1],
        "resample": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))

    def needs_torchvision(*_, **__):
        raise ImportError("torchvision")

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", needs_torchvision)
    model = load_model(str(tmp_path))
    assert model.preprocess == Preprocessing((32, 32), *IMAGENET, resample=Image.Resampling.BILINEAR)


def test_windows_have_no_layout(tmp_path):
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=2
    )
    with hugging.quiet():
        transformers.SwinModel(config).save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).layout is None


def test_random_weights_are_new_seeded_and_leave_the_generator_alone(tmp_path):
    saved(tmp_path, "ViT")
    model = load_model(str(tmp_path))
    before = torch.get_rng_state()
    first, again, other = (model.random(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    own, one, same, two = (m.module.state_dict() for m in (model, first, again, other))
    name = next(name for name in own if name.endswith("q_proj.weight"))
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], two[name])
    assert not torch.equal(one[name], own[name])
    assert first.layout == model.layout
    assert tokens(first, torch.zeros(1, 3, 32, 32)).shape == (1, 17, 32)
    assert not first.module.training


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    saved(tmp_path, "ViT")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file({name: t for name, t in weights.items() if "layer.1." not in name}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lack .*\.1\..* more"):
        load_model(str(tmp_path))
    save_file({n: t for n, t in weights.items() if "pooler" not in n}, file, {"format": "pt"})
    load_model(str(tmp_path))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot be loaded: .*; download or save the whole directory again"):
        load_model(str(tmp_path))
    file.unlink()
    with pytest.raises(InputError, match=r"cannot be loaded: .*no file named"):
        load_model(str(tmp_path))


def test_code_in_a_directory_s_pickle_is_not_run(tmp_path):
    saved(tmp_path, "ViT")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"embeddings.cls_token": Code(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"nothing was loaded.*save it as safetensors") as caught:
        load_model(str(tmp_path))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing at all")
    with pytest.raises(
        InputError, match=r"no weights of torch\.save's: Unsupported operand 110; download"
    ) as caught:
        load_model(str(tmp_path))
    assert "weights_only" not in str(caught.value)


def test_directories_of_other_things(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(InputError, match="not a valid JSON file; download or save"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text(
        '{"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}'
    )
    (tmp_path / "code.py").write_text("raise SystemExit('was run')")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(tmp_path))


def test_a_model_of_text_is_refused(tmp_path):
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=5
    )
    with hugging.quiet():
        transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="BertModel, which takes no images"):
        load_model(str(tmp_path))


# Checkpoint files


def test_a_checkpoint_file(tmp_path):
    torch.save(Original(distilled=True).state_dict(), tmp_path / "deit.pth")
    model = load_model(str(tmp_path / "deit.pth"), heads=HEADS)
    assert model.layout == Layout(grid=(4, 4), prefix=2, patch_size=(8, 8))
    assert model.preprocess == published(32)
    pixels = torch.zeros(1, 3, 32, 32)
    assert not torch.equal(tokens(model, pixels), tokens(model.random(0), pixels))
    assert model.random(0).module.config.num_attention_heads == HEADS


# One's own function

OWN = """
from torch import nn
import sibling

def build():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5))

def pair():
    return nn.Identity(), lambda image: sibling.PIXELS

def fails():
    raise ValueError("no weights today")

def number():
    return 3

constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current directory with a module of a name that no other test has loaded."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN.replace("sibling", f"{name}_sibling"))
    (tmp_path / f"{name}_sibling.py").write_text("import torch\nPIXELS = torch.ones(3, 4, 4)")
    (tmp_path / f"{name}_broken.py").write_text("\n\nx = (1,")
    monkeypatch.chdir(tmp_path)
    return name


def test_one_s_own_function(own):
    path = list(sys.path)
    model = load_model(f"{own}:build")
    assert not model.module.training
    assert model.preprocess == published(224)
    assert model.forward(torch.ones(2, 3, 4, 4)).shape == (2, 48)
    assert model.random is None
    assert model.layout is None
    assert load_model(f"{own}:pair").preprocess(PICTURE).shape == (3, 4, 4)
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (":fails", r"ValueError: no weights today \(own_\w+\.py, line 12\)"),
        (":number", "must return a torch.nn.Module.* it returned int"),
        (":constant", "has no function constant"),
        (":nothing", "has no function nothing"),
        ("_broken:build", "SyntaxError"),
        ("_absent:build", "ModuleNotFoundError: No module named"),
    ],
)
def test_errors_in_one_s_own_function(own, name, said):
    with pytest.raises(InputError, match=said):
        load_model(own + name)


# Names


@pytest.mark.parametrize("name", ["./gone", "gone.pth", "/gone/model.safetensors", "~/gone"])
def test_paths_that_lead_nowhere(name):
    with pytest.raises(InputError, match="no such file or directory"):
        load_model(name)


def test_names_of_no_kind():
    with pytest.raises(InputError, match="is no name; give a directory of transformers, a pretraining run"):
        load_model("a/b/c")
    with pytest.raises(InputError, match="heads = 4 is for checkpoint files"):
        load_model("some/vit", heads=4)


def test_a_named_model_is_in_eval_mode():
    with pytest.raises(ValueError, match="must be in eval mode"):
        NamedModel("mine", nn.Identity(), published(224), lambda pixels: pixels)
