"""The probe's pages against the code: statistics, refusals, commands, the modules of the room and their imports.

The tables of section 4 are written from the catalogue; `python tests/test_docs_probe.py` prints them.
"""

import ast
import math
import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from mimlab.probing.catalogue import ALL, CATALOGUE, CORE, Statistic
from mimlab.probing.layout import Layout

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/probe.md").read_text()
VIT = Layout(grid=(14, 14), prefix=1, patch_size=(16, 16))
POSITIONAL = "positional_"
COMMANDS = {
    page: re.findall(r"^\$ mimlab (.+?)(?:\s+#.*)?$", (ROOT / "docs" / page).read_text(), re.M)
    for page in ("probe.md", "tutorial-probe.md")
}


def number(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:.3g}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def tables() -> str:
    """Section 4's tables: meanings, values for ViT-B/16, and cautions."""
    own = [one for one in CATALOGUE.values() if not one.name.startswith(POSITIONAL)]
    meanings = [row(f"`{one.name}`", one.formula, one.unit, one.range, one.higher) for one in own]
    values = [
        row(f"`{one.name}`", *(number(of(VIT)) for of in (one.uniform, one.identity, one.random)))
        for one in CATALOGUE.values()
        if one in own or one.random(VIT) != CATALOGUE[one.name.removeprefix(POSITIONAL)].random(VIT)
    ]
    return "\n".join(
        [
            row("statistic", "formula", "unit", "range", "a higher value says"),
            "|---" * 5 + "|",
            *meanings,
            "",
            row("for 14 x 14 patches of 16 px and CLS", "uniform", "identity", "random"),
            "|---" * 4 + "|",
            *values,
            "",
            *(f"- `{one.name}`: {one.caution}." for one in own if one.caution),
        ]
    )


def test_the_tables_are_those_of_the_catalogue():
    assert tables() in PAGE, "print them with: python tests/test_docs_probe.py"


def positional(name: str) -> Statistic:
    return CATALOGUE[POSITIONAL + name]


def test_what_the_page_says_of_all_positional_statistics_holds_for_each():
    """One paragraph stands for eight rows."""
    named = [name.removeprefix(POSITIONAL) for name in ALL if name.startswith(POSITIONAL)]
    assert named == [name for name in CORE if name != "prefix_mass"]
    for name in named:
        own, one = CATALOGUE[name], positional(name)
        assert one.formula == f"{own.formula}, of the map averaged over the images of one forward call"
        assert (one.unit, one.range, one.per) == (own.unit, own.range, "batch")
        assert (one.uniform(VIT), one.identity(VIT)) == (own.uniform(VIT), own.identity(VIT))
        assert one.random(VIT) == own.uniform(VIT)
        assert f"`{POSITIONAL}*`" in PAGE


def test_every_statistic_is_on_the_page():
    assert not [n for n in ALL if f"| `{n}` |" not in PAGE and not n.startswith(POSITIONAL)]


def quoted_refusals() -> list[str]:
    """The messages in the first column of the table of refusals."""
    (table,) = re.findall(r"\| it says \|.*?\n\n", PAGE, re.S)
    first_cells = [line.split("|")[1] for line in table.strip().splitlines()[2:]]
    return [message for cell in first_cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("message", quoted_refusals())
def test_refusals_are_worded_as_the_code_words_them(message):
    rooms = [*(ROOT / "src/mimlab/probing").glob("*.py"), *(ROOT / "src/mimlab/studies").glob("*.py")]
    joined = [re.sub(r'"\s*f?"', "", path.read_text()) for path in rooms]  # texts over several lines
    assert any(message in text for text in joined)


PROBING = ROOT / "src/mimlab/probing"


def imports_of(path: Path) -> set[str]:
    """Modules of the room that a file needs to run; not those for type checkers."""
    tree = ast.parse(path.read_text()) if path.suffix == ".py" else ast.Module([], [])
    for_types = {id(x) for top in tree.body if isinstance(top, ast.If) for x in ast.walk(top)}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            if node.module == "mimlab.probing":
                names |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("mimlab.probing."):
                names.add(node.module.split(".")[2])
    return names


def test_the_table_of_the_probing_room_is_the_room():
    section = (ROOT / "docs/architecture.md").read_text().split("## The probing room")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    listed = {tuple(re.findall(r"`([\w.]+)`", files)): imports for files, _, imports in rows}
    assert {name for files in listed for name in files} == {
        path.name for path in PROBING.iterdir() if path.is_file() and path.name != "__init__.py"
    }
    for files, said in listed.items():
        own = {name.split(".")[0] for name in files}
        needed = set().union(*(imports_of(PROBING / name) for name in files)) - own
        assert set(re.findall(r"\w+", said)) == needed, files


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small model directory, two photographs, and the runs that commands leave."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from skimage import data, io

    here = tmp_path_factory.mktemp("docs")
    sizes = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 48}
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=64), add_pooling_layer=False)
    model.save_pretrained(here / "my-vit")
    (here / "photos").mkdir()
    for name in ("coins", "coffee"):
        io.imsave(here / f"photos/{name}.png", getattr(data, name)())
    return here


@pytest.mark.parametrize("page", COMMANDS)
def test_commands_run_as_typed(page, folder, monkeypatch):
    """In the page's order: later commands read what earlier ones wrote."""
    from mimlab.cli import application
    from mimlab.cli.session import run
    from mimlab.world import photograph

    every = photograph.bundled_photographs()
    monkeypatch.setattr(photograph, "bundled_photographs", lambda: {"coins": every["coins"]})
    monkeypatch.setattr("mimlab.probing.images.bundled_photographs", lambda: {"coins": every["coins"]})
    monkeypatch.chdir(folder)
    assert COMMANDS[page]
    for command in COMMANDS[page]:
        tokens = shlex.split(command)
        with redirect_stdout(StringIO()):
            assert run(application(*tokens[:1]), tokens) == 0, command
        out = Path(tokens[tokens.index("--out") + 1])
        assert {"config.toml", "summary.json", "report.html", "layers.parquet"} <= {
            f.name for f in out.iterdir()
        }


if __name__ == "__main__":
    print(tables())
