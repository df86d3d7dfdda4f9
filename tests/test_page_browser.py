"""The page of `mimlab reproduce` in a browser: opened from a file without a network, moved by mouse and keyboard.

What it shows is compared with the run directory's tables and with rows simulated here. Needs Chromium; skipped where
there is none, unless MIMLAB_NEED_BROWSER is set.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from mimlab.dynamics.integrators import flow
from mimlab.dynamics.mean_field import mean_field_draws
from mimlab.dynamics.rows import measured
from mimlab.dynamics.tables import attention_map
from mimlab.objectives.kernel import RowObjective
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.report.explorer import MEASURES, kept
from mimlab.report.numbers import format_number
from mimlab.runs.tables import read_table
from mimlab.studies import every_query, explored, reproduction, training_verdicts, world_jobs, worlds
from mimlab.studies.outcomes import Outcome
from mimlab.world.photograph import bundled_photographs
from mimlab.world.row import row_of
from mimlab.world.world import World

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1280, 390)
SMALLEST = 12.0  # CSS pixels
ONE_RUN = worlds.Run(
    "one-run",
    "a small world, stopped early: its table of evidence and its command must fit a telephone",
    {
        "world": {"area_sizes": [60, *[6] * 10]},
        "dynamics": {"engine": "mean-field", "integrator": "descent", "learning_rate": 1.0, "steps": 20},
    },
    ("correlations", "attention"),
)
MASKED = replace(explored.GRIDS[0], global_exponents=(0.6, 0.75, 0.9), mask_ratios=(0.5, 0.75))
CONTRASTIVE = replace(explored.GRIDS[1], global_exponents=(0.6, 0.9), latents=((0.5, 1.5),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A reproduction of few jobs, in this process."""
    home = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        patch.setattr(explored, "GRIDS", (MASKED, CONTRASTIVE))
        patch.setattr(explored, "PATCHES", 200)
        patch.setattr(explored, "DRAWS", 64)
        work = [every_query.ask_photograph, explored.explore, partial(world_jobs.run_job, ONE_RUN)]
        patch.setattr(reproduction, "jobs", lambda: work)
        patch.setattr(world_jobs, "survey", lambda *_: Outcome("survey"))
        patch.setattr(training_verdicts, "RECORDED", home)  # where nothing is
        reproduction.run_reproduce(home / "out", command="mimlab reproduce --out runs/reproduce")
    return home / "out"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        told = "there is no chromium: install Debian's package to try the page in a browser"
        (pytest.fail if os.environ.get("MIMLAB_NEED_BROWSER") else pytest.skip)(told)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser, folder) -> Iterator[Opened]:
    """Open the page at a width; whatever asks for a network or complains on the console fails the test."""
    contexts, wrong = [], []

    def open_page(width: int = WIDTHS[0], **given: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **given)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("request", lambda one: one.url.startswith(("file:", "data:")) or wrong.append(one.url))
        page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((folder / "report.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def said(page: Any, kind: str) -> dict[str, str]:
    """Everything that a part of the page says, by name."""
    found = page.evaluate(
        """kind => [...document.querySelectorAll(`.widget[data-kind="${kind}"] [data-shown]`)].map(
          one => [one.dataset.shown, one.innerText])""",
        kind,
    )
    return dict(found)


def control(page: Any, kind: str, name: str) -> Any:
    return page.locator(f'.widget[data-kind="{kind}"] [name="{name}"]')


def courses(folder: Path, **wanted: Any) -> Any:
    """The recorded times of the one run that is as wanted, those that the page keeps."""
    table = read_table(folder / "worlds/explorer.parquet")
    for name, value in wanted.items():
        table = table.filter(pc.equal(table[name], value))
    assert len(set(table["run"].to_pylist())) == 1
    return table.take(kept(table.num_rows))


def agrees(page: Any, table: Any) -> None:
    """Every number of the explorer is the table's at the chosen time."""
    at = int(control(page, "explorer", "moment").input_value())
    row = table.slice(at, 1).to_pylist()[0]
    told = said(page, "explorer")
    assert told["moment"] == f"t = {format_number(row['time'], 3)}"
    for name in MEASURES:
        error = row[f"{name}_se"]
        spread = f" ± {format_number(2 * error, 2)}" if error else ""
        assert told[name] == format_number(row[name], 3) + spread, name
    current = page.locator(".phases [aria-current]").all_inner_texts()
    assert [text.split()[0] for text in current] == [row["phase"]]


START = {"objective": "masked", "global_exponent": 0.9, "mask_ratio": 0.75, "latent_low": 1.0}


def test_the_explorer_begins_at_half_attention_with_the_tables_numbers(opened, folder):
    page, table = opened(), courses(folder, **START)
    agrees(page, table)
    assert float(said(page, "explorer")["attention_own"]) == pytest.approx(0.5, abs=0.15)
    gap = table["information_gap"][0].as_py()
    assert said(page, "explorer")["gap"] == f"{format_number(gap, 2)} (κc = 0.9)"


def test_each_control_of_the_explorer_changes_what_it_should(opened, folder):
    page, at = opened(), dict(START)
    slides = [("gap", "ArrowLeft", {"global_exponent": 0.75}), ("gap", "ArrowLeft", {"global_exponent": 0.6})]
    slides += [("ratio", "ArrowLeft", {"mask_ratio": 0.5}), ("gap", "End", {"global_exponent": 0.9})]
    for name, key, change in slides:
        control(page, "explorer", name).press(key)
        at |= change
        agrees(page, courses(folder, **at))
    control(page, "explorer", "latent").select_option(label="0.2 to 1.8: U/L = 9")
    at["latent_low"] = 0.2
    table = courses(folder, **at)
    agrees(page, table)
    assert said(page, "explorer")["said"].endswith(": two phases.")
    control(page, "explorer", "gap").press("Home")  # Δ < 0
    assert said(page, "explorer")["said"].endswith(": one phase.")
    control(page, "explorer", "gap").press("End")
    seen = set()
    for key in ("Home", "ArrowRight", "ArrowRight", "PageUp", "End"):
        control(page, "explorer", "moment").press(key)
        agrees(page, table)
        seen.add(said(page, "explorer")["phi_own"])
    assert len(seen) == 5
    assert control(page, "explorer", "moment").input_value() == str(table.num_rows - 1)
    assert "--latent-low 0.2 --latent-high 1.8" in said(page, "explorer")["command"]


def test_contrastive_runs_are_there_where_the_page_says_and_say_their_error(opened, folder):
    page = opened()
    control(page, "explorer", "objective").select_option(label="contrastive")
    at = {"objective": "contrastive", "global_exponent": 0.9, "mask_ratio": 0.5}
    agrees(page, courses(folder, **at))
    assert (
        control(page, "explorer", "ratio").is_disabled() and control(page, "explorer", "latent").is_disabled()
    )
    assert "±" in said(page, "explorer")["attention_global"]
    control(page, "explorer", "gap").press("Home")
    agrees(page, courses(folder, **at | {"global_exponent": 0.6}))
    control(page, "explorer", "objective").select_option(label="masked")  # keeps what is there for both
    agrees(page, courses(folder, **START | {"global_exponent": 0.6, "mask_ratio": 0.5, "latent_low": 0.5}))


def test_the_plot_draws_the_tables_curves_with_marker_and_phases(opened, folder):
    page, table = opened(), courses(folder, **START)
    control(page, "explorer", "moment").press("ArrowRight")
    at = int(control(page, "explorer", "moment").input_value())
    plot = page.evaluate(
        "(({data, layout}) => ({data, shapes: layout.shapes}))(document.querySelector('.plot'))"
    )
    for name, curve, mark in zip(MEASURES, plot["data"][:4], plot["data"][4:], strict=True):
        np.testing.assert_allclose(curve["x"], table["time"].to_pylist(), rtol=1e-5)
        np.testing.assert_allclose(curve["y"], table[name].to_pylist(), rtol=1e-5, atol=1e-12)
        assert (mark["x"], mark["y"]) == ([curve["x"][at]], [curve["y"][at]])
    *bands, marker = plot["shapes"]
    assert marker["x0"] == marker["x1"] == plot["data"][0]["x"][at]
    rows = table.to_pylist()
    for band, name in zip(bands, dict.fromkeys(row["phase"] for row in rows), strict=True):
        inside = [row["phase"] == name for row in rows if band["x0"] < row["time"] <= band["x1"] * (1 + 1e-9)]
        assert inside and all(inside)


def sums(patch: int, world: World, times: list[float]) -> list[dict[str, float]]:
    """Attention of a patch followed by itself, on an unmasked photograph, at each time: what the page says of it."""
    layout, flat = world.layout(), world.photograph.labels.ravel()
    objective, row = MaskedReconstruction(), row_of(layout, patch, world.max_cells)
    draws = mean_field_draws(row, world.latent, objective.masked(row.patches))
    kernel = RowObjective(row, draws, objective.query_masked(row.patches))
    path = flow(kernel, np.zeros(row.size), times[-1], np.inf, np.array(times))
    run = measured(row, path, kernel.evaluate(path.states), world.latent.mean)
    others = np.arange(len(flat)) != patch
    parts = {
        "own": others & (flat == flat[patch]),
        "global": others & (flat == 0),
        "other": others & (flat != 0) & (flat != flat[patch]),
    }
    maps = [attention_map(run, layout, place, world.latent.mean) for place in range(len(times))]
    return [
        {"itself": one[patch], "largest": one.max()}
        | {name: one[those].sum() for name, those in parts.items()}
        for one in maps
    ]


def click(page: Any, patch: int, rows: int, columns: int) -> None:
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    row, column = divmod(patch, columns)
    at = {"x": (column + 0.5) * box["width"] / columns, "y": (row + 0.5) * box["height"] / rows}
    canvas.click(position=at)


def read(text: str) -> float:
    """A number as the page writes it."""
    mantissa, _, power = text.replace("−", "-").removesuffix(" per patch").partition("×10")
    power = power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(f"{mantissa}e{power or 0}")


@pytest.fixture(scope="module")
def photograph() -> World:
    return World(image=str(bundled_photographs()[every_query.ASKED]))


@pytest.mark.parametrize(("width", "sizes"), [(1280, (1, 2, 20)), (390, (10, 70))])
def test_a_click_shows_the_attention_of_that_very_patch(opened, folder, photograph, width, sizes):
    """Against each patch's own row, although the page has one row for all patches in areas of one size."""
    labels = photograph.photograph.labels
    flat, (rows, columns) = labels.ravel(), labels.shape
    of_size = np.bincount(flat)[flat]
    times = list(dict.fromkeys(read_table(folder / "worlds/photograph.parquet")["time"].to_pylist()))
    page = opened(width)
    for size in sizes:
        patch = int(np.flatnonzero(of_size == size)[-1])  # never the one that was followed
        click(page, patch, rows, columns)
        row, column = divmod(patch, columns)
        assert said(page, "photograph")["said"].startswith(f"Row {row}, column {column}:")
        expected = sums(patch, photograph, times)
        control(page, "photograph", "moment").press("Home")
        for moment in range(len(times)):
            told = said(page, "photograph")
            assert told["moment"] == f"t = {format_number(times[moment], 3)}"
            if flat[patch] == 0:
                assert told["global"] == "–"
                del expected[moment]["global"]
            for name, value in expected[moment].items():
                assert read(told[name]) == pytest.approx(value, rel=6e-3, abs=1e-12), (size, moment, name)
            control(page, "photograph", "moment").press("ArrowRight")


def test_arrows_move_the_patch_that_asks_and_colour_shows_its_area(opened, photograph):
    labels = photograph.photograph.labels
    rows, columns = labels.shape
    page = opened()
    click(page, columns + 1, rows, columns)
    for key, place in (("ArrowRight", "Row 1, column 2"), ("ArrowDown", "Row 2, column 2")):
        page.keyboard.press(key)
        assert said(page, "photograph")["said"].startswith(f"{place}:")
    for _ in range(4):
        page.keyboard.press("ArrowUp")  # and no further than the edge
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert said(page, "photograph")["said"].startswith("Row 0, column 0:")
    control(page, "photograph", "moment").press("End")
    colours = page.evaluate(
        """([rows, columns]) => { const canvas = document.querySelector("canvas"), side = canvas.width / columns;
        const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return Array.from({length: rows * columns}, (_, patch) => {
          const middle = ((Math.floor(patch / columns) + 0.5) * canvas.width + patch % columns + 0.5) * side * 4;
          return Array.from(all.slice(middle, middle + 3)); }); }""",
        [rows, columns],
    )
    strength = np.ptp(np.array(colours), axis=1)[1:]  # a grey has none; the one that asks is apart
    own = labels.ravel()[1:] == labels[0, 0]
    assert strength[own].min() > 60 > 30 > strength[~own].max()


def test_every_control_has_a_label_and_is_reached_and_seen_by_keyboard(opened):
    page = opened()
    for words in ("Objective", "Latents z", "Information gap Δ", "Mask ratio γ"):
        assert page.get_by_label(words, exact=True).count() == 1, words
    assert page.get_by_label("Time", exact=True).count() == 2
    slides = page.locator("input[type=range]")
    assert all(one.get_attribute("aria-valuetext") for one in slides.all())
    reached: list[tuple[str, ...]] = []
    lit, last = [], ("photograph", "moment")
    while last not in reached and len(lit) < 20:
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => { const one = document.activeElement, style = getComputedStyle(one);
            return [one.closest(".widget")?.dataset.kind ?? null, one.getAttribute("name") ?? one.tagName.toLowerCase(),
              style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2]; }"""
        )
        if here[0] is not None:
            reached.append(tuple(here[:2]))
            lit.append(here[2])
    names = ("objective", "latent", "gap", "ratio", "moment", "summary")
    assert reached == [*(("explorer", n) for n in names), ("photograph", "canvas"), last]
    assert all(lit)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_legible_at_a_desk_and_on_a_telephone(opened, width):
    page = opened(width)
    page.locator("details summary").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.evaluate(
        """least => { const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), small = [];
        for (let node = walker.nextNode(); node; node = walker.nextNode()) {
          const one = node.parentElement, box = one.getBoundingClientRect();
          if (node.data.trim() && box.width && !one.closest("script, style, noscript")
            && parseFloat(getComputedStyle(one).fontSize) < least) small.push(one.tagName + ": " + node.data.trim());
        } return small; }""",
        SMALLEST,
    )
    assert not small
    for part in (".controls", ".plot", "canvas", ".shown"):
        for box in [one.bounding_box() for one in page.locator(part).all()]:
            assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_plot_follows_light_and_dark(opened):
    page = opened(color_scheme="light")
    colour = "document.querySelector('.plot').layout.font.color"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{colour} !== '{light}'")
    assert (light, page.evaluate(colour)) == ("#1f2328", "#e6e9ec")


def test_without_javascript_verdicts_and_figures_remain(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("table caption").inner_text().startswith("Verdicts:")
    assert page.locator("figure img").count() >= 2 and page.locator("figure img").first.is_visible()
    assert not page.locator(".widget:visible").count()
    told = page.locator("noscript:visible").all_inner_texts()
    assert len(told) == 2 and all("JavaScript" in text for text in told)


def test_numbers_are_written_as_on_the_rest_of_the_page(opened):
    page = opened()
    generator = np.random.default_rng(0)
    values = [0.0, 1.0, 99_999.6, 123_456.0, 0.001, 0.00099996, *(10.0 ** np.arange(-8, 9))]
    values += (generator.choice([-1, 1], 300) * 10 ** generator.uniform(-9, 9, 300)).tolist()
    for digits in (2, 3, 4):
        said = page.evaluate(
            "([values, digits]) => values.map((x) => mimlab.number(x, digits))", [values, digits]
        )
        assert said == [format_number(value, digits) for value in values]
    assert page.evaluate("mimlab.number(null)") == format_number(None)


def test_the_page_is_one_file_of_bearable_size(folder):
    page = folder / "report.html"
    assert page.stat().st_size < 15e6
    text = page.read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1
    assert "<link" not in text.split("<script>")[0] and ' src="http' not in text
