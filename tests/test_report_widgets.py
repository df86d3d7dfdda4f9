"""Interactive parts of a page: data that cannot break out of it, each script once, and none where nothing moves."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimlab.report import Section, explorer_section, photograph_section, write_page
from mimlab.report.explorer import MEASURES, MOMENTS, kept
from mimlab.report.widgets import Widget, short

NAMES = ("run", "time", *MEASURES, *(f"{name}_se" for name in MEASURES), "phase")


def course(run: int, times: int, errors: bool = False) -> list[dict[str, object]]:
    rows = []
    for place in range(times):
        numbers = {name: place / 7 for name in ("time", *MEASURES)}
        rows.append(
            {"run": run, "phase": "growth"} | numbers | {f"{m}_se": 0.1 if errors else None for m in MEASURES}
        )
    return [{name: row[name] for name in NAMES} for row in rows]


def facts(**change: object) -> dict[str, object]:
    return {
        "objective": "masked",
        "information_gap": 0.5,
        "global_exponent": 0.9,
        "mask_ratio": 0.75,
        "latent": [1.0, 1.0],
        "half_time": 3.0,
        "first_rates": 1.5,
        "predicted_rates": 1.4,
        "phases": [{"name": "growth", "start": 0.0, "end": 9.0}],
        "command": "mimlab simulate",
    } | change


def data_of(section: Section) -> dict[str, object]:
    """The data as a browser finds them."""
    found = re.search(r'<script type="application/json">(.*?)</script>', section.widget.markup(), re.S)
    return json.loads(found[1])


@given(st.text())
def test_data_come_through_whole_and_cannot_end_their_script(text):
    section = Section("x", "", widget=Widget("explorer", "", {"text": text + "</script><!--"}, "see below"))
    assert data_of(section) == {"text": text + "</script><!--"}
    assert section.widget.markup().count("</script") == 1 and "<!--" not in section.widget.markup()


@given(st.lists(st.floats() | st.none()))
def test_numbers_are_shortened_by_less_than_a_reader_sees(values):
    for value, held in zip(values, short(values), strict=True):
        if value is None or not math.isfinite(value):
            assert held is None
        else:
            assert held == pytest.approx(value, rel=5.1e-6, abs=0)


@given(st.integers(1, 500))
def test_the_first_and_the_last_time_are_kept_and_no_time_twice(count):
    places = kept(count)
    assert places[0] == 0 and places[-1] == count - 1
    assert len(places) == len(set(places)) == min(count, MOMENTS) and places == sorted(places)


def test_the_explorer_holds_each_run_with_its_own_times():
    table = pa.Table.from_pylist([*course(0, 5), *course(1, 300, errors=True)])
    runs = [facts(), facts(objective="contrastive", latent=[0.5, 1.5], half_time=None)]
    section = explorer_section("Explorer", "", table, runs, 1000)
    first, second = data_of(section)["runs"]
    assert first["time"] == short(np.arange(5) / 7) and "phi_own_se" not in first
    assert first["phase"] == ["growth"] * 5
    assert len(second["time"]) == MOMENTS and second["phi_own_se"] == [0.1] * MOMENTS
    assert second["time"][-1] == pytest.approx(299 / 7, rel=1e-5)
    assert (
        "All 2 runs as a table" in section.widget.controls
        and "<td>0.5 to 1.5</td>" in section.widget.controls
    )
    with pytest.raises(ValueError, match="run 2 has no recorded times"):
        explorer_section("Explorer", "", table, [*runs, facts()], 1000)


def rows_of(query: int, area: int) -> list[dict[str, object]]:
    there = {None: 0.1, 0: 0.2, 1: 0.3, 2: 0.05}
    return [
        {"query": query, "query_area": area, "time": time, "area": one, "attention": weight + time}
        for time in (0.0, 1.0)
        for one, weight in there.items()
    ]


def test_a_photograph_needs_a_query_of_each_size_of_area():
    """Areas 1 and 2 have two patches each: one query is enough for both; area 0 needs its own."""
    pixels, labels = np.full((4, 6, 3), 0.5), np.array([[0, 0, 1], [1, 2, 2]])
    table = pa.Table.from_pylist([*rows_of(0, 0), *rows_of(2, 1)])
    section = photograph_section("A photograph", "", pixels, labels, table, {2: -0.1}, "mimlab reproduce")
    data = data_of(section)
    assert data["class_of"] == [0, 1, 1] and data["sizes"] == [2, 2, 2] and data["time"] == [0.0, 1.0]
    assert data["classes"][1] == {
        "area": 1,
        "itself": [0.1, 1.1],
        "others": [[0.2, 0.3, 0.05], [1.2, 1.3, 1.05]],
    }
    assert data["image"].startswith("data:image/jpeg;base64,")
    with pytest.raises(ValueError, match="no query in an area of 2 patches"):
        photograph_section("A photograph", "", pixels, labels, pa.Table.from_pylist(rows_of(0, 0)), {}, "c")


def test_scripts_are_there_once_and_only_where_they_are_needed(tmp_path):
    still, moving = Section("Still", ""), Widget("photograph", "<canvas></canvas>", {}, "Look below.")
    plotted = Widget("explorer", "", {}, "Look below.", plotly=True)
    pages = {}
    for name, widgets in {"none": (), "one": (moving,), "all": (moving, plotted, plotted)}.items():
        sections = [still, *(Section(f"W{place}", "", widget=one) for place, one in enumerate(widgets))]
        write_page(tmp_path / f"{name}.html", "T", "", sections, "c", {})
        pages[name] = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
    assert "<script" not in pages["none"] and ".widget" not in pages["none"]
    assert "plotly.js v" not in pages["one"] and pages["one"].count("const mimlab") == 1
    assert pages["all"].count("plotly.js v") == pages["all"].count("const mimlab") == 1
    assert (
        pages["all"].count('mimlab.start("explorer"') == pages["all"].count('mimlab.start("photograph"') == 1
    )
    assert pages["all"].count('class="widget"') == pages["all"].count("<noscript>") == 3
