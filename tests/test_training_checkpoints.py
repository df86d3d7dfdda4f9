"""Checkpoints, states and journals: what comes back, what is refused, and a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import ViTMAEConfig, ViTMAEModel

from mimlab.runs import InputError
from mimlab.training import checkpoints
from mimlab.training.checkpoints import (
    STATE,
    Journal,
    checkpoint_folder,
    checkpoint_steps,
    latest_checkpoint,
    load_encoder,
    load_state,
    refuse_differences,
    save_state,
    write_checkpoint,
)

from .training_standins import tiny_encoder


def drawn(encoder: nn.Module, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in encoder.parameters():
            value.normal_()
    return encoder


def weights(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in encoder.state_dict().items()}


def test_an_encoder_comes_back_whole(tmp_path):
    encoder = drawn(tiny_encoder())
    folder = write_checkpoint(tmp_path, 123, encoder)
    assert folder == tmp_path / "checkpoints/step-000123" == checkpoint_folder(tmp_path, 123)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    other = tiny_encoder()
    state = torch.get_rng_state()
    load_encoder(other, folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in other.state_dict().items())


def test_a_run_is_started_from_by_its_last_checkpoint(tmp_path):
    for step in (0, 90, 1000000):
        write_checkpoint(tmp_path, step, drawn(tiny_encoder(), step))
    (tmp_path / "checkpoints/step-2000000.new").mkdir()  # of a killed process
    assert checkpoint_steps(tmp_path) == [0, 90, 1000000]
    assert latest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 1000000)


def test_a_checkpoint_that_is_there_stays(tmp_path):
    first = write_checkpoint(tmp_path, 1, drawn(tiny_encoder(), 1))
    held = (first / "model.safetensors").read_bytes()
    write_checkpoint(tmp_path, 1, drawn(tiny_encoder(), 2))
    assert (first / "model.safetensors").read_bytes() == held


def test_what_one_objective_has_and_another_has_not_starts_anew(tmp_path):
    from transformers import ViTModel

    folder = write_checkpoint(tmp_path, 1, drawn(tiny_encoder()))
    without = ViTModel(tiny_encoder().config, add_pooling_layer=False)
    load_encoder(without, folder)
    folder = write_checkpoint(tmp_path, 2, drawn(without, 3))
    encoder = drawn(tiny_encoder(), 4)
    own = weights(encoder)
    load_encoder(encoder, folder)
    now = encoder.state_dict()
    assert torch.equal(now["embeddings.mask_token"], own["embeddings.mask_token"])
    assert all(torch.equal(now[key], value) for key, value in without.state_dict().items())


def test_an_encoder_of_mae_starts_another(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    mae = drawn(ViTMAEModel(ViTMAEConfig(**sizes, image_size=8, patch_size=4)))
    write_checkpoint(tmp_path, 5, mae)
    encoder = tiny_encoder()
    load_encoder(encoder, tmp_path)
    assert torch.equal(encoder.embeddings.cls_token, mae.embeddings.cls_token)
    known = {tuple(value.shape): value for value in mae.state_dict().values()}
    patch = encoder.embeddings.patch_embeddings.projection.weight
    assert torch.equal(patch, known[tuple(patch.shape)])


def test_another_configuration_is_refused_key_by_key(tmp_path):
    write_checkpoint(tmp_path, 1, tiny_encoder())
    other = tiny_encoder(hidden_size=32, num_hidden_layers=2)
    before = weights(other)
    with pytest.raises(InputError) as refused:
        load_encoder(other, tmp_path)
    text = str(refused.value)
    assert "hidden_size = 16 there, 32 here; num_hidden_layers = 1 there, 2 here" in text
    assert text.count("there") == 2
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_a_checkpoint_without_some_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path, 1, tiny_encoder())
    held = load_file(folder / "model.safetensors")
    lost = next(key for key in held if "query.weight" in key)
    save_file({key: value for key, value in held.items() if key != lost}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"holds other weights than this encoder: .*q_proj\.weight"):
        load_encoder(tiny_encoder(), tmp_path)


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors"])
def test_damaged_checkpoints_are_refused_in_one_line(tmp_path, damage):
    folder = write_checkpoint(tmp_path, 1, tiny_encoder())
    (folder / damage).write_bytes(b"\x08nonsense")
    with pytest.raises(InputError, match="cannot be read: ") as refused:
        load_encoder(tiny_encoder(), folder)
    assert "\n" not in str(refused.value)


def test_where_there_is_no_checkpoint_it_is_said(tmp_path):
    with pytest.raises(InputError, match=r"holds no checkpoint; give a pretraining run"):
        load_encoder(tiny_encoder(), tmp_path)


def test_a_state_comes_back(tmp_path):
    assert load_state(tmp_path) is None
    state = {"step": 3, "recent": [{"loss": 0.1}], "objective": {"weight": torch.arange(3.0)}}
    save_state(tmp_path, state)
    save_state(tmp_path, state | {"step": 4})
    found = load_state(tmp_path)
    assert found["step"] == 4 and found["recent"] == state["recent"]
    assert torch.equal(found["objective"]["weight"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / STATE).write_bytes(b"half a state")
    with pytest.raises(InputError, match=r"state\.pt cannot be read"):
        load_state(tmp_path)


def test_a_state_runs_no_code(tmp_path):
    torch.save({"step": Path("x")}, tmp_path / STATE)
    with pytest.raises(InputError, match=r"state\.pt cannot be read"):
        load_state(tmp_path)


def test_differences_are_told_with_both_values():
    one = {"seed": 0, "training": {"blr": 0.1, "epochs": 2.0}}
    refuse_differences(one, {"training": {"epochs": 2.0, "blr": 0.1}, "seed": 0}, "other")
    with pytest.raises(InputError) as refused:
        refuse_differences(one, {"seed": 1, "training": {"blr": 0.1, "steps": 5}}, "other")
    assert str(refused.value) == (
        "other: seed = 0 there, 1 here; training.epochs = 2.0 there, none here; "
        "training.steps = none there, 5 here"
    )


def test_a_journal_is_cut_to_whole_lines_of_known_steps(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    assert journal.records() == []
    journal.cut(3)
    journal.add({"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")})
    journal.add({"step": 4, "loss": float("inf")})
    with open(journal.path, "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in journal.records()] == [1, 2, 4]
    journal.cut(2)
    assert journal.path.read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n'
    journal.add({"step": 3})
    assert [record["step"] for record in journal.records()] == [1, 2, 3]


FULL = """
import sys
import torch
from pathlib import Path
from mimlab.training.checkpoints import Journal, save_state, write_checkpoint
from transformers import ViTConfig, ViTModel

config = ViTConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
folder = Path(sys.argv[1])
for write in (
    lambda: write_checkpoint(folder, 1, ViTModel(config)),
    lambda: save_state(folder, {"weights": torch.rand(2**20)}),
    lambda: Journal(folder / "log.jsonl").add({"step": 1, "text": "x" * 2**20}),
):
    try:
        write()
    except OSError as error:
        print(error)
"""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB, where the system lets one be made."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_in_one_line(small_disk):
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(small_disk)], capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 3, result.stdout
    for line, name in zip(lines, ("step-000001.new", STATE, "log.jsonl"), strict=True):
        assert "the disk is full; make room, and go on with --resume" in line and name in line
    assert load_state(small_disk) is None and checkpoint_steps(small_disk) == []


@pytest.mark.parametrize(
    "met",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("... (os error 28)"),
    ],
    ids=["no space", "quota", "from another library"],
)
def test_a_full_disk_is_known_from_any_library(tmp_path, monkeypatch, met):
    def full(*_, **__):
        raise met

    encoder = tiny_encoder()
    monkeypatch.setattr(encoder, "save_pretrained", full)
    with pytest.raises(OSError, match="the disk is full; make room, and go on with --resume"):
        write_checkpoint(tmp_path, 1, encoder)
    assert checkpoint_steps(tmp_path) == []
    monkeypatch.undo()
    write_checkpoint(tmp_path, 1, encoder)
    assert checkpoint_steps(tmp_path) == [1]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr(checkpoints.torch, "save", broken)
    with pytest.raises(RuntimeError, match="something else"):
        save_state(tmp_path, {})


def test_preprocessing_is_that_of_the_training(tmp_path):
    """A plain picture comes out as its colour standardised as `views.standardise` does."""
    from PIL import Image

    from mimlab.probing.models import load_model
    from mimlab.training.views import standardise

    folder = write_checkpoint(tmp_path, 1, tiny_encoder())
    assert json.loads((folder / "preprocessor_config.json").read_text())["size"] == {"height": 8, "width": 8}
    pixels = load_model(str(folder)).preprocess(Image.new("RGB", (20, 30), (255, 0, 51)))
    expected = standardise(torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 8, 8))
    assert torch.allclose(pixels, expected, atol=1e-5)
