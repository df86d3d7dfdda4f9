"""The shape of the house: rooms in order, light imports, and files short enough to read."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mimlab
from mimlab.cli import COMMANDS

SOURCE = Path(mimlab.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
IN_ROOMS = [path for path in FILES if path.parent != SOURCE]
ROOMS = (
    *("runs", "world", "objectives", "statistics", "dynamics", "probing", "training"),
    *("claims", "report", "studies", "cli"),
)
"""In order of dependence. A trajectory records statistics, and a study writes its report."""
HEAVY = {"torch", "transformers", "matplotlib", "plotly", "skimage", "dask", "distributed"}


def name_of(path: Path) -> str:
    return str(path.relative_to(path.parents[1]))


def imported(path: Path) -> set[str]:
    """Every mimlab module that a file imports, relative imports resolved."""
    package = ["mimlab", *path.relative_to(SOURCE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"mimlab.{alias.name}" for alias in node.names} if module == "mimlab" else {module}
    return {name for name in names if name.startswith("mimlab.")} - {"mimlab.__version__"}


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after the statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_every_folder_is_a_room():
    assert {path.relative_to(SOURCE).parts[0] for path in IN_ROOMS} <= set(ROOMS)


@pytest.mark.parametrize("path", IN_ROOMS, ids=name_of)
def test_no_file_imports_a_later_room(path):
    own = ROOMS.index(path.relative_to(SOURCE).parts[0])
    for module in imported(path):
        room = module.split(".")[1]
        assert room in ROOMS, f"{module} is in no room"
        assert ROOMS.index(room) <= own, f"{name_of(path)} imports {module}, a later room"


@pytest.mark.parametrize("path", [*FILES, *sorted(TESTS.glob("*.py"))], ids=name_of)
def test_files_are_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= 400


def test_import_is_light():
    assert not loaded_after("import mimlab") & {"numpy", "scipy", "pyarrow", "rich", "cyclopts", *HEAVY}


TYPED = """
import contextlib
from mimlab.cli import application
from mimlab.cli.session import run
tokens = {tokens}
with contextlib.redirect_stdout(None):
    assert run(application(*tokens[:1]), tokens) == 0
"""


def test_help_loads_no_command():
    loaded = loaded_after(TYPED.format(tokens=["--help"]))
    assert not loaded & {"numpy", "scipy", "pyarrow", *HEAVY}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_plots_and_no_networks(command):
    assert not loaded_after(TYPED.format(tokens=[command, "--help"])) & HEAVY


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_listed_with_its_own_first_line(command):
    module = import_module(f"mimlab.cli.{command}")
    assert getattr(module, command).__doc__.splitlines()[0] == COMMANDS[command]
    assert f"mimlab {command} " in getattr(module, command).__doc__


def test_exports_share_no_name_with_a_module():
    modules = {path.stem for path in SOURCE.iterdir()}
    assert not modules & set(mimlab.__all__)
    assert set(mimlab.__all__) == set(mimlab._HOMES)


def test_unknown_attribute_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mimlab.nonsense
