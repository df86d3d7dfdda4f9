"""Pages: whole and well-formed HTML, everything escaped, nothing fetched, every picture described."""

import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import mimlab.report
from mimlab.report import Section, reproduce_page, simulation_page, write_page
from mimlab.report.markup import prose
from mimlab.report.numbers import format_number

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """Elements, ids, targets of links and text of a page; complains where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def figure(path, description="A line that rises."):
    info = PngInfo()
    if description:
        info.add_text("Description", description)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)).save(path, pnginfo=info)
    return path


def verdict(claim="two phases", word="holds", **change):
    return {
        "claim": claim,
        "statement": f"The statement of {claim}.",
        "source": "theory, section 5",
        "quantity": "Φ / log P",
        "value": -0.234,
        "low": -0.241,
        "high": -0.227,
        "threshold": "at most −0.15",
        "reason": "the formula's half",
        "verdict": word,
        "evidence": "1024 draws",
        "world": "P = 10⁴",
        "command": "mimlab simulate --patches 10000",
        "figure": None,
        **change,
    }


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


def test_page_is_whole_and_fetches_nothing(tmp_path):
    figure(tmp_path / "figures" / "a.png", "Attention rises.")
    sections = [
        Section(
            "One", "First.", figures=["figures/a.png"], rows=[{"slope": 0.7, "name": "x"}], command="mimlab x"
        ),
        Section("Two", "Second.", details=[("Source", "theory, section 5")]),
    ]
    write_page(tmp_path / "p.html", "Title", "Lead.", sections, "mimlab y", {"seed": 0})
    page = read(tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert not page.all("script") and not page.all("link")
    assert "http" not in text and "@import" not in text and "url(" not in text
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert (image["alt"], image["width"], image["height"]) == ("Attention rises.", "6", "4")
    assert "prefers-color-scheme: dark" in text
    for said in ("Title", "Lead.", "First.", "0.7", "theory, section 5", "mimlab x", "mimlab y", "seed"):
        assert said in page.text


def test_every_link_leads_somewhere_even_where_headings_repeat(tmp_path):
    headings = ["Same", "Same-2", "same", "Same", "Φ", "Υ"]
    write_page(tmp_path / "p.html", "T", "L", [Section(h, "") for h in headings], "c", {})
    page = read(tmp_path / "p.html")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids)) == len(headings)
    assert [link["href"] for link in page.all("a")] == [f"#{one}" for one in ids]


def test_everything_from_outside_is_escaped(tmp_path):
    evil = "<script>alert('\"&')</script>"
    figure(tmp_path / "a.png", evil)
    record = verdict(
        **{key: evil for key in verdict() if key not in ("verdict", "value", "low", "high", "figure")}
    )
    section = Section(evil, evil, [record], ["a.png"], [{evil: evil}], [(evil, evil)], evil)
    write_page(tmp_path / "p.html", evil, evil, [section], evil, {evil: evil})
    page = read(tmp_path / "p.html")
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == evil
    assert page.text.count(evil) >= 20


def test_verdicts_stand_first_by_colour_and_word(tmp_path):
    records = [
        verdict(word="holds"),
        verdict("trend", "fails"),
        verdict("rate", "inconclusive", value=None, low=None),
    ]
    reproduce_page(tmp_path / "p.html", records, "mimlab reproduce", {})
    page = read(tmp_path / "p.html")
    badges = [attrs["class"] for attrs in page.all("span") if "badge" in attrs.get("class", "")]
    assert badges == 2 * ["badge holds", "badge fails", "badge inconclusive"]
    first = page.text.index("Verdicts: holds 1, fails 1, inconclusive 1.")
    assert first < page.text.index("Rate") < page.text.index("The statement of two phases.")
    for said in ("✓ holds", "−0.234 [−0.241, −0.227]", "at most −0.15", "the formula's half", "1024 draws"):
        assert said in page.text


def test_contents_link_to_what_the_overview_does_not(tmp_path):
    figures = Section("Figures", "What is drawn.")
    reproduce_page(tmp_path / "p.html", [verdict()], "c", {}, sections=[figures])
    page = read(tmp_path / "p.html")
    assert [link["href"] for link in page.all("a")] == ["#two-phases", "#figures"]
    assert "Also on this page" in page.text and "Contents" not in page.text


def test_a_command_can_be_copied_and_does_not_break_within_a_flag(tmp_path):
    command = "mimlab simulate --query-at 3,4 --out 'runs/a--b'"
    write_page(tmp_path / "p.html", "T", "L", [], command, {})
    page = read(tmp_path / "p.html")
    assert command in page.text
    assert (tmp_path / "p.html").read_text().count('<span class="flag">--') == 2


def test_a_claim_has_one_section_for_all_its_worlds(tmp_path):
    records = [verdict(world="A"), verdict("rate"), verdict(world="B", word="fails", statement="Another.")]
    reproduce_page(tmp_path / "p.html", records, "c", {}, sections=[Section("Benchmarks", "Fast.")])
    page = read(tmp_path / "p.html")
    assert len(page.all("section")) == 3
    assert page.text.count("The statement of two phases.") == 1
    assert "Another." in page.text
    assert len(page.all("article")) == 3


def test_what_verdicts_share_is_said_once_and_what_differs_with_each(tmp_path):
    records = [verdict(world="A"), verdict(world="B", threshold="at most −0.3", label="areas of 8")]
    reproduce_page(tmp_path / "p.html", records, "c", {})
    text = read(tmp_path / "p.html").text
    assert text.count("the formula's half") == text.count("theory, section 5") == 1
    assert text.count("at most −0.15") == text.count("at most −0.3") == 1
    assert text.index("the formula's half") < text.index("A ✓ holds") < text.index("at most −0.3")
    assert text.index("B ✓ holds") < text.index("areas of 8")


def test_the_overview_has_a_row_for_each_claim_and_names_surprises(tmp_path):
    records = [
        verdict(world="A", expected="holds"),
        verdict(world="B", expected="fails", word="fails", value=0.5),
        verdict(world="C", expected="holds", word="inconclusive", value=None, low=None, high=None),
        verdict("rate", expected="holds"),
    ]
    reproduce_page(tmp_path / "p.html", records, "c", {})
    page = read(tmp_path / "p.html")
    overview, rest = page.text.split("The statement of two phases.")
    assert len([attrs for attrs in page.all("th") if attrs.get("scope") == "row"]) == 2
    assert "✓ holds 1 ✗ fails 1 ? inconclusive 1" in overview
    assert "−0.234 to 0.5not as expected: C" in overview
    assert "Rate✓ holds−0.234 [−0.241, −0.227]as expected" in overview
    assert "✗ fails as expected" in rest and "? inconclusive expected: holds" in rest


def test_a_claim_without_a_world_is_not_named_twice(tmp_path):
    reproduce_page(tmp_path / "p.html", [verdict("rate", world=None)], "c", {})
    assert read(tmp_path / "p.html").text.count("Rate") == 2  # in the overview and above its section


def test_no_lead_leaves_no_empty_paragraph(tmp_path):
    write_page(tmp_path / "p.html", "T", "", [], "c", {"Versions": {"numpy": "2.4"}, "Latents": [1.0, 2]})
    page = read(tmp_path / "p.html")
    assert not page.all("p")
    assert not [attrs for attrs in page.all("meta") if attrs.get("name") == "description"]
    assert "numpy 2.4" in page.text and "1, 2" in page.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("T_half ≈ P/(γ(1-γ)C_a)", "T<sub>half</sub> ≈ P/(γ(1-γ)C<sub>a</sub>)"),
        ("(1-γ) P^Δ_p = 1", "(1-γ) P<sup>Δ<sub>p</sub></sup> = 1"),
        ("P^(max{2(U/L-1), 1}(1-κs))", "P<sup>max{2(U/L-1), 1}(1-κs)</sup>"),
        ("stop_attention at 10^12, a-1", "stop_attention at 10<sup>12</sup>, a-1"),
        ("P_001.jpg, P_a.jpg of C_a.", "P_001.jpg, P_a.jpg of C<sub>a</sub>."),
        ("in [-1.15, -½]", "in [−1.15, −½]"),
    ],
)
def test_formulas_are_set(text, shown):
    assert prose(text) == shown


def test_a_figure_of_two_verdicts_is_embedded_once(tmp_path):
    figure(tmp_path / "a.png")
    records = [verdict(figure="a.png"), verdict("rate", figure=str(tmp_path / "a.png"))]
    reproduce_page(tmp_path / "p.html", records, "c", {})
    page = read(tmp_path / "p.html")
    (whole,) = page.all("figure")
    assert len(page.all("img")) == 1
    assert {"href": f"#{whole['id']}"} in page.all("a")
    assert "See figure 1." in page.text


def test_bad_verdicts_and_undescribed_figures_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="'rate': the verdict is 'maybe', not one of holds, fails, inconclusive"
    ):
        Section("x", "", verdicts=[verdict("rate", "maybe")])
    figure(tmp_path / "bare.png", "")
    with pytest.raises(ValueError, match=r"bare\.png has no description"):
        write_page(tmp_path / "p.html", "T", "L", [Section("x", "", figures=["bare.png"])], "c", {})
    with pytest.raises(OSError, match=r"missing\.png"):
        write_page(tmp_path / "p.html", "T", "L", [Section("x", "", figures=["missing.png"])], "c", {})
    assert not (tmp_path / "p.html").exists()


def test_a_verdict_needs_only_its_claim_and_word(tmp_path):
    reproduce_page(tmp_path / "p.html", [{"claim": "bare", "verdict": "inconclusive"}], "c", {})
    assert "value = –" in read(tmp_path / "p.html").text


def test_simulation_page_tells_the_run(tmp_path):
    figure(tmp_path / "figures" / "attention.png")
    summary = {
        "status": "stopped",
        "half_time": 3510.2,
        "patches": 10_000,
        "area_sizes": [[3981, 1], [17, 27], [16, 348]],
        "information_gap": 0.5,
        "phases": [{"query": 3981, "name": "growth", "start": 1000.0, "end": 9000.0}],
        "claims": [verdict(figure="figures/attention.png")],
        "seed": 7,
        "versions": {"mimlab": "0.1.0"},
        "latent": {"low": 0.5, "high": 1.5},
        "loss_floor": None,
    }
    figures = {"attention": ["figures/attention.png"], "something_else": []}
    simulation_page(tmp_path / "report.html", summary, figures, "mimlab simulate")
    page = read(tmp_path / "report.html")
    for said in (
        "The run ended when attention reached its target. Half attention is reached at time 3510.",
        "3981, 17 × 27, 16 × 348",
        "mimlab 0.1.0",
        "low 0.5, high 1.5",
        "growth",
        "Something else",
    ):
        assert said in page.text
    assert "Loss floor" not in page.text
    assert [attrs["alt"] for attrs in page.all("img")] == ["A line that rises."]


def test_of_several_queries_the_lead_says_which(tmp_path):
    queries = [{"query": 0, "half_time": 24.0}, {"query": 3981, "half_time": 3510.2}]
    summary = {"status": "stopped", "half_time": 3510.2, "queries": queries, "latent": [1.0, 1.0]}
    summary["area_sizes"] = [[3981, 1], *([100 + i, 2] for i in range(20))]
    simulation_page(tmp_path / "report.html", summary, {}, "c")
    text = read(tmp_path / "report.html").text
    assert "Half attention is reached by query 3981 at time 3510." in text
    assert "Latents1" in text and "110 × 2 and 18 more areas" in text


def test_a_failed_run_has_a_page(tmp_path):
    summary = {"status": "failed: the step size vanished", "half_time": None, "phases": [], "claims": []}
    simulation_page(tmp_path / "report.html", summary, {}, "mimlab simulate")
    assert "failed: the step size vanished" in read(tmp_path / "report.html").text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "–"),
        (-float("inf"), "−∞"),
        (0.0, "0"),
        (99_999, "99999"),
        (100_000, "10⁵"),
        (99_999.6, "10⁵"),
        (9999.96, "10000"),
        (0.00012344, "1.234×10⁻⁴"),
        (0.001, "0.001"),
        (np.float64(-1.5), "−1.5"),
    ],
)
def test_numbers_as_people_write_them(value, shown):
    assert format_number(value) == shown


def test_pages_do_not_need_matplotlib():
    code = (
        "import sys; from mimlab.report import write_page, reproduce_page; print('matplotlib' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_every_public_name_loads():
    assert set(mimlab.report.__all__) == set(mimlab.report._HOMES)
    for name in mimlab.report.__all__:
        assert callable(getattr(mimlab.report, name))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mimlab.report.nonsense
