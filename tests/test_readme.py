"""The README is executed: its Python prints what it says, its commands run as typed."""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.probing import callbacks

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"^\$ mimlab (.+?)(?:\s+#.*)?$", README, re.MULTILINE)


def test_python_prints_what_the_readme_says():
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == README.count("```python") == 2  # the simulator, the probe
    for code, printed in blocks:
        said = StringIO()
        with redirect_stdout(said):
            exec(code, {})
        assert said.getvalue() == printed


def test_there_is_a_command_of_each_kind():
    kinds = {"simulate", "gap", "scale", "sweep", "reproduce", "probe", "pretrain", "compare"}
    assert {command.split()[0] for command in COMMANDS} == kinds


TINY = "--steps 2 --width 24 --heads 2 --depth 1 --batch-size 8 --crops 8 --checkpoints 2"


def test_runs_are_trained_and_compared_as_typed(tmp_path, monkeypatch):
    """But for their sizes: as typed they take minutes."""
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        if command.startswith("pretrain"):
            assert run(application(), shlex.split(f"{command} {TINY}")) == 0
    (comparison,) = [command for command in COMMANDS if command.startswith("compare")]
    assert run(application(), shlex.split(comparison)) == 0
    assert Path("runs/both/report.html").is_file()


ALONE = [command for command in COMMANDS if command.split()[0] not in ("reproduce", "pretrain", "compare")]


@pytest.mark.parametrize("command", ALONE)
def test_commands_run_as_typed(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    halves = np.zeros((427, 640, 3), dtype=np.uint8)
    halves[:, 240:360] = 200
    Image.fromarray(halves).save("photo.jpg")
    Path("photos").mkdir()
    Image.fromarray(halves).save("photos/one.png")
    if command.startswith("probe"):
        sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=64)).save_pretrained("my-vit")
    assert run(application(), shlex.split(command)) == 0
    (out,) = Path("runs").iterdir()
    assert {"config.toml", "summary.json", "report.html"} <= {file.name for file in out.iterdir()}


def test_what_a_sentence_names_is_there(capsys):
    assert "`mimlab compare`" in README
    assert run(application("compare"), ["compare", "--help"]) == 0
    assert "probe" in capsys.readouterr().out
    named = re.findall(r"`(\w+Probe)`", README)
    assert named == ["LightningProbe", "TrainerProbe"]
    assert all(hasattr(callbacks, name) for name in named)


def test_every_link_to_a_file_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (Path(__file__).parents[1] / link).exists()]
