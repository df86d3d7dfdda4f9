"""How measurements become verdicts: intervals and thresholds, fits, shares, ranks, and the table of all claims."""

import re
from math import inf, isfinite, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mimlab
from mimlab.claims import Claim, Measurement, Threshold, judge, judge_points, judge_survey
from mimlab.claims.catalogue import CLAIMS, thresholds_table
from mimlab.claims.fits import SIGMAS, fit_line
from mimlab.claims.points import PointsEvidence, exponents
from mimlab.claims.surveys import SurveyEvidence, rank_correlation, share
from mimlab.studies.single import Simulation

DOCS = Path(__file__).parents[1] / "docs"
VERDICTS = ("holds", "fails", "inconclusive")
finite = st.floats(-1e6, 1e6)


def between(low: float | None, high: float | None, value: float = 0.0) -> Measurement:
    return Measurement(value, low, high, "")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.2, 1.8, "holds"),
        (1.0, 2.0, "holds"),  # the band is closed
        (0.2, 0.8, "fails"),
        (2.1, 9.0, "fails"),
        (0.9, 1.5, "inconclusive"),
        (1.5, 2.5, "inconclusive"),
        (0.0, 3.0, "inconclusive"),  # an interval that holds the whole band says nothing
        (0.5, 1.0, "inconclusive"),  # touches the band
        (nan, nan, "inconclusive"),
        (1.5, nan, "inconclusive"),
        (-inf, 0.0, "inconclusive"),
        (1.5, inf, "inconclusive"),
        (None, None, "inconclusive"),
    ],
)
def test_the_whole_interval_decides(low, high, expected):
    assert Threshold(1.0, 2.0).verdict(between(low, high)) == expected


def test_a_band_may_be_open_on_one_side():
    assert Threshold(high=0.1).verdict(between(-50, 0.1)) == "holds"
    assert Threshold(high=0.1).verdict(between(0.11, 0.2)) == "fails"
    assert Threshold(low=0.95).verdict(between(0.96, 1.2)) == "holds"
    assert Threshold(low=0.95).verdict(between(0.9, 0.96)) == "inconclusive"
    assert [str(Threshold(high=0.1)), str(Threshold(low=2)), str(Threshold(0.8, 1.25))] == [
        "≤ 0.1",
        "≥ 2",
        "in [0.8, 1.25]",
    ]


@given(finite, finite, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_wider_interval_never_says_more(centre, low, width, more):
    """Widening may only take a verdict back; and holds and fails are never both had."""
    band = Threshold(low, low + 1.0)
    narrow = band.verdict(between(centre - width, centre + width))
    wide = band.verdict(between(centre - width - more, centre + width + more))
    assert wide in (narrow, "inconclusive")


def test_what_was_not_measured_is_inconclusive_and_says_why():
    missing = Measurement.missing("half attention was never reached")
    assert (missing.value, missing.low, missing.high) == (None, None, None)
    assert Threshold().verdict(missing) == "inconclusive"
    claim = Claim("a", "b", "c", "d", Threshold(high=1.0), lambda _: missing, "≤ 1", "e")
    record = claim.judge(None).as_dict()
    assert record["verdict"] == "inconclusive" and record["value"] is None
    assert record["evidence"] == "half attention was never reached"


def test_a_claim_that_does_not_speak_gives_no_verdict():
    claim = Claim("a", "b", "c", "d", Threshold(), lambda _: None, "any", "e")
    assert claim.judge("evidence") is None


def test_a_threshold_may_depend_on_the_evidence():
    claim = Claim(
        "a", "b", "c", "d", lambda e: Threshold(high=e), lambda e: between(1.0, 1.0, 1.0), "≤ evidence", "e"
    )
    assert [claim.judge(2.0).verdict, claim.judge(0.5).verdict] == ["holds", "fails"]


def test_slope_is_that_of_numpy():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=20), generator.normal(size=20)
    line = fit_line(x.tolist(), y.tolist())
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    assert line.slope == pytest.approx(slope, rel=1e-10)
    width = stats.t.ppf(0.975, 18) * np.sqrt(covariance[0, 0])
    assert [line.low, line.high] == pytest.approx([slope - width, slope + width], rel=1e-9)
    assert line.points == 20


@pytest.mark.parametrize("points", [3, 5, 9])
def test_intervals_of_slopes_cover_the_truth_19_times_in_20(points):
    generator, x, trials = np.random.default_rng(points), np.linspace(0, 3, points), 2000
    lines = [fit_line(x, 0.7 * x + 0.1 * generator.normal(size=points)) for _ in range(trials)]
    covered = sum(line.low <= 0.7 <= line.high for line in lines)
    assert stats.binomtest(covered, trials, 0.95).pvalue > 1e-3


def test_a_line_needs_three_points_that_differ():
    assert fit_line([0, 1], [0, 1]) is None
    assert fit_line([1, 1, 1], [0, 1, 2]) is None
    assert fit_line([0, 1, nan], [0, 1, 2]) is None
    assert fit_line([0, 1, 2], [0, 1, inf]) is None
    exact = fit_line([0, 1, 2, nan], [1, 3, 5, 7])
    assert (exact.slope, exact.points) == (pytest.approx(2), 3)
    assert exact.high - exact.low < 1e-12


def test_sampling_errors_are_multiplied_for_eight_replicates():
    assert pytest.approx(stats.t.ppf(0.975, 7), abs=5e-4) == SIGMAS


@pytest.mark.parametrize(("successes", "total"), [(0, 7), (3, 10), (35, 40), (40, 40)])
def test_shares_have_wilsons_interval(successes, total):
    measured = share(successes, total, "queries")
    low, high = stats.binomtest(successes, total).proportion_ci(0.95, "wilson")
    assert measured.value == successes / total
    assert [measured.low, measured.high] == pytest.approx([low, high], abs=1e-4)
    assert measured.evidence == f"{successes} of {total} queries"


def test_no_share_without_queries():
    assert share(0, 0, "queries").value is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=40))
def test_rank_correlation_is_spearmans(pairs):
    x, y = (list(column) for column in zip(*pairs, strict=True))
    measured = rank_correlation(x, y, "x against y")
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert measured.value is None
        return
    assert measured.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    slack = 1e-5  # at a correlation of 1 the transformed value is infinite, so it is cut off just before
    assert -1 <= measured.low <= measured.value + slack
    assert measured.value - slack <= measured.high <= 1


def test_intervals_of_rank_correlations_cover_the_truth_19_times_in_20():
    """Normal pairs of correlation ρ have the rank correlation 6/π asin(ρ/2)."""
    generator, trials, covered = np.random.default_rng(2), 1000, 0
    truth = 6 / np.pi * np.arcsin(0.8 / 2)
    for _ in range(trials):
        x, noise = generator.normal(size=(2, 30))
        measured = rank_correlation(x, 0.8 * x + 0.6 * noise, "")
        covered += measured.low <= truth <= measured.high
    assert 0.93 < covered / trials < 0.97


def test_fewer_than_four_queries_have_no_rank_correlation():
    assert rank_correlation([1, 2, 3], [1, 2, 3], "").value is None
    assert rank_correlation([1, 2, 3, 4], [5, 5, 5, 5], "").value is None


def test_the_page_has_the_codes_table():
    assert thresholds_table() in (DOCS / "claims.md").read_text(encoding="utf-8")


def test_every_claim_says_where_it_is_from_and_why_it_is_judged_so():
    names = [claim.name for claim in CLAIMS]
    assert len(set(names)) == len(names)
    for claim in CLAIMS:
        texts = (claim.statement, claim.source, claim.quantity, claim.rule, claim.reason)
        assert all(text.strip() for text in texts), claim.name
        assert claim.statement.endswith("."), claim.name
        if isinstance(claim.threshold, Threshold):
            said = [float(number) for number in re.findall(r"-?\d[\d.e-]*", claim.rule)]
            band = (claim.threshold.low, claim.threshold.high)
            assert said == [limit for limit in band if isfinite(limit)], claim.name


def test_sections_that_claims_cite_exist():
    """A claim that says "derivations, section X" sends its reader to a heading of docs/derivations.md."""
    headings = (DOCS / "derivations.md").read_text(encoding="utf-8")
    for claim in CLAIMS:
        if "derivations, section" in claim.source:
            title = claim.source.split("'")[1]
            assert f"# {title}\n" in headings, claim.name


@pytest.fixture(scope="module")
def sampled() -> Simulation:
    return mimlab.simulate(mimlab.World(area_sizes=(12, 4, 4)), draws=64, query="all")


def test_verdicts_speak_of_every_query_in_the_order_of_the_table(sampled):
    verdicts = judge(sampled.trajectory, sampled.summary)
    queries = [v.query for v in verdicts]
    assert queries == sorted(queries, key=lambda query: (query is None, query))  # last those of the whole map
    order = [claim.name for claim in CLAIMS]
    for query in {v.query for v in verdicts}:
        places = [order.index(v.claim.name) for v in verdicts if v.query == query]
        assert places == sorted(set(places))
    assert {v.verdict for v in verdicts} <= set(VERDICTS)
    plain = [v.as_dict() for v in verdicts]
    named = [f"query {p['query']}" if p["query"] is not None else "all queries" for p in plain]
    expected = [p | {"world": world} for p, world in zip(plain, named, strict=True)]
    assert expected == sampled.summary["claims"]


def test_which_claims_speak_of_which_row(sampled):
    """Query 0 lies in the global area, query 12 in a local one with Δ_p = log_20(144/80) > 0, latents constant."""
    judged = {
        query: {c["claim"] for c in sampled.summary["claims"] if c["query"] == query} for query in (0, 12)
    }
    both = {"convergence", "area-wide attention", "small position correlations"}
    assert judged[0] == both | {"monotone growth"}
    assert judged[12] == both | {"two phases", "depth of decoupling", "half-attention time"}


def test_an_unknown_error_concludes_nothing(sampled):
    """The dense engine's rows have noise and no standard error: whatever the values, no verdict rests on them. What
    needs no column of errors, the growth of a global query, is judged as it is."""
    unknown = sampled.trajectory
    for place, name in enumerate(unknown.column_names):
        if name.endswith("_se"):
            unknown = unknown.set_column(place, name, [[None] * len(unknown)])
    queries = [q | {"half_time_se": None} for q in sampled.summary["queries"]]
    verdicts = judge(unknown, sampled.summary | {"engine": "dense", "queries": queries})
    rest = [v for v in verdicts if v.claim.name != "monotone growth"]
    assert len(rest) > 5
    assert {v.verdict for v in rest} == {"inconclusive"}
    assert "holds" in {c["verdict"] for c in sampled.summary["claims"]}


def test_sampling_error_widens_the_interval(sampled):
    """Intervals are SIGMAS standard errors wide on each side, read from the table."""
    record = next(
        c for c in sampled.summary["claims"] if c["claim"] == "area-wide attention" and c["query"] == 12
    )
    rows = [r for r in sampled.trajectory.to_pylist() if r["query"] == 12]
    width = SIGMAS * rows[-1]["attention_own_se"]
    assert width > 0
    assert [record["low"], record["high"]] == pytest.approx(
        [record["value"] - width, record["value"] + width]
    )


def points(slope: float, *, count: int = 4, **evidence: object) -> PointsEvidence:
    """Runs whose half-attention time is P^slope, exactly."""
    runs = [
        {"patches": 10**k, "half_time": 10 ** (k * slope), "final_stage": None} for k in range(4, 4 + count)
    ]
    settings = {
        "axis": "patches",
        "is_local": True,
        "global_exponent": 0.9,
        "local_exponent": 0.3,
        "latent": (1, 1),
    }
    return PointsEvidence(runs, **(settings | evidence))


def test_predicted_exponent_and_the_papers_bound():
    assert points(0.7).predicted == pytest.approx(0.7)
    assert points(0.7, is_local=False).predicted == pytest.approx(0.1)
    assert points(0.7).bound == pytest.approx(0.7)
    assert points(0.7, latent=(0.5, 1.5)).bound == pytest.approx(4 * 0.7)
    assert points(0.7, latent=(0.8, 1.0)).bound == pytest.approx(0.7)  # 2 (U/L - 1) = 0.5, less than 1
    assert points(0.7, latent=(0.0, 1.0)).bound is None
    assert points(0.7, local_exponent=None).predicted is None


def test_exponents_as_summaries_list_them():
    listed = exponents(points(0.7))
    assert [e["quantity"] for e in listed] == ["half_time"]
    assert listed[0]["slope"] == pytest.approx(0.7)
    assert listed[0]["bound"] == listed[0]["predicted"] == pytest.approx(0.7)
    assert exponents(points(0.7, count=2)) == []


def test_runs_that_never_got_there_are_left_out_of_the_fit():
    evidence = points(0.7, count=4)
    gone = [p | {"half_time": None} if p["patches"] == 10**5 else p for p in evidence.points]
    line = points(0.7).line("half_time")
    cut = PointsEvidence(gone, "patches", True, 0.9, 0.3, (1, 1)).line("half_time")
    assert (line.points, cut.points) == (4, 3)
    assert cut.slope == pytest.approx(0.7)


def test_series_over_area_sizes_are_fitted_against_what_else_the_area_holds():
    runs = [{"patches": 1000, "area_size": c, "upsilon_over_phi": 1 / (c - 1)} for c in (4, 8, 16, 32)]
    evidence = PointsEvidence(runs, "area_size", True, None, None, (1, 1))
    (verdict,) = judge_points(evidence)
    assert verdict.claim.name == "position correlations shrink with area size"
    assert verdict.measurement.value == pytest.approx(-1)
    assert verdict.verdict == "holds"


def test_claims_on_photographs_use_what_was_measured():
    """Queries without a rate, a depth or an attention do not count, for or against."""
    query = {
        "patches": 100,
        "patch_gap": 0.5,
        "first_rates": 2.0,
        "phi_global_at_half": -1.0,
        "attention_own": 0.99,
    }
    blank = query | {"first_rates": None, "phi_global_at_half": nan, "attention_own": None}
    verdicts = judge_survey(SurveyEvidence([query] * 40 + [blank] * 40, 0.75))
    found = {v.claim.name: v for v in verdicts}
    assert found["sign of the gap on photographs"].measurement.evidence.startswith("40 of 40")
    assert found["finite-size boundary on photographs"].verdict == "holds"  # 0.25 * 100**0.5 = 2.5
    assert found["local attention on photographs"].verdict == "holds"
    assert found["gap orders photographs"].verdict == "inconclusive"  # all alike
    below = SurveyEvidence([query | {"patches": 10}] * 40, 0.75)  # 0.25 * 10**0.5 = 0.8: one phase expected
    assert {v.claim.name: v.verdict for v in judge_survey(below)}[
        "finite-size boundary on photographs"
    ] == "fails"
