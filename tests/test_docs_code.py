"""The pages of docs/: every block of Python runs and prints what the page says, and every citation leads somewhere.

The blocks of a page share their names and run in order. A block followed by a ```text block must print just that;
what any other block prints must stand, line by line, somewhere in its page. Numbers may differ by one unit of their
last digit. `<!-- not run by the tests: why -->` or `<!-- needs MODULE -->` before a block says when it is left out.
"""

import contextlib
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
SOURCES = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "src").rglob("*.py"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*?) -->\n)?```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<text>.*?)```)?", re.S
)
NUMBER = re.compile(r"[-+]?\d+(?:\.(?P<decimals>\d+))?(?:e(?P<power>[-+]?\d+))?")


def unit(match: re.Match[str]) -> float:
    """One unit of the last digit of a number as printed."""
    return 10.0 ** (int(match["power"] or 0) - len(match["decimals"] or ""))


def same(printed: str, written: str) -> bool:
    """Equal lines: words and their order, numbers up to a unit of the last digit, whatever the spacing."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", written).split():
        return False
    pairs = zip(NUMBER.finditer(printed), NUMBER.finditer(written), strict=True)
    return all(abs(float(a[0]) - float(b[0])) <= 1.001 * max(unit(a), unit(b)) for a, b in pairs)


def left_out(mark: str | None) -> bool:
    needed = re.fullmatch(r"needs (\w+)", mark or "")
    return (mark or "").startswith("not run by the tests:") or (
        needed is not None and find_spec(needed[1]) is None
    )


def run(code: str, names: dict[str, Any], page: Path, line: int) -> list[str]:
    """Lines that a block prints; tracebacks show the page's own line numbers."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    return out.getvalue().splitlines()


@pytest.fixture
def one_photograph(monkeypatch):
    """A page on all photographs is checked on one of them."""
    from mimlab.world import photograph

    every = photograph.bundled_photographs()
    monkeypatch.setattr(photograph, "bundled_photographs", lambda: {"coins": every["coins"]})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("one_photograph")
def test_blocks_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    names: dict[str, Any] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        if left_out(block["mark"]):
            continue
        printed = run(block["code"], names, page, text[: block.start("code")].count("\n"))
        if block["text"] is not None:
            written = block["text"].splitlines()
            differing = [(p, w) for p, w in zip(printed, written, strict=False) if not same(p, w)]
            assert not differing
            assert len(printed) == len(written)
        else:
            assert not [p for p in printed if not any(same(p, w) for w in text.splitlines())]


def test_lines_are_compared_by_their_numbers():
    assert same("T = 2931, slope -1.53", "T =  2930, slope -1.54")
    assert same("1.6e-06", "1.7e-06")
    assert not same("slope -1.53", "slope -1.56")
    assert not same("slope -1.53", "Slope -1.53")
    assert not same("1 2", "1")


def titles(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", page.read_text(), re.M)


def anchor(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [p for p in SOURCES if p.suffix == ".md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        path, _, part = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not part or part in [anchor(t) for t in titles(linked)], f"{page.name} links to {target}"


def test_sections_that_are_cited_exist():
    theory, derivations = ROOT / "docs/theory.md", ROOT / "docs/derivations.md"
    numbers = {title.split(".")[0] for title in titles(theory) if title[0].isdigit()}
    cited_numbers, cited_titles = set(), set()
    for path in SOURCES:
        text = re.sub(r"\s+", " ", path.read_text())
        for listed in re.findall(r"theory(?:\.md\))?,? sections? ([\d, and-]+)", text):
            cited_numbers |= set(re.findall(r"\d+", listed))
        cited_titles |= set(re.findall(r"derivations(?:\.md)?\)?,(?: section)? [\"'](.*?)[\"']", text))
    assert {"3", "4", "5", "9"} <= cited_numbers <= numbers
    assert "Merging like areas" in cited_titles
    assert cited_titles <= set(titles(derivations))


def test_pages_that_the_code_names_exist():
    for path in SOURCES:
        for name in re.findall(r"docs/[\w-]+\.md", path.read_text()):
            assert (ROOT / name).exists(), f"{path.name} names {name}"
