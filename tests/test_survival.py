"""The survival table: where along each axis a claim fails first, by the seeds' vote."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimlab.claims.survival import SILENT, SURVIVAL_SCHEMA, survival, vote

said = st.sampled_from(["holds", "fails", "inconclusive", None])


@given(st.lists(said, min_size=1, max_size=7))
def test_a_vote_is_what_more_than_half_say(verdicts):
    majorities = [
        one for one, n in Counter(one or SILENT for one in verdicts).items() if n > len(verdicts) / 2
    ]
    assert vote(verdicts) == (majorities[0] if majorities else "inconclusive")


def table(values, base, at_base, moved):
    """The records of one claim on one axis; verdicts as lists, one for each seed, by value."""
    pairs = [(value, {"c": verdict}) for value, seeds in moved.items() for verdict in seeds]
    return survival(["c"], {"k": values}, {"k": base}, [{"c": one} for one in at_base], {"k": pairs})


def test_the_first_failure_is_counted_from_the_base_on_each_side():
    moved = {0.1: ["fails"], 0.2: ["inconclusive"], 0.4: ["holds"], 0.5: ["fails"], 0.6: ["holds"]}
    above, below = table([0.6, 0.1, 0.5, 0.2, 0.4], 0.3, ["holds"], moved)
    assert (above["side"], above["until"], above["fails_at"], above["inconclusive_at"]) == (
        "above",
        "0.6",
        "0.5",
        None,
    )
    assert (below["side"], below["until"], below["fails_at"], below["inconclusive_at"]) == (
        "below",
        "0.1",
        "0.1",
        "0.2",
    )
    assert above["verdicts"] == "0.3 holds; 0.4 holds; 0.5 fails; 0.6 holds"
    assert list(above) == SURVIVAL_SCHEMA.names


def test_it_takes_most_seeds_to_fail():
    moved = {
        2: ["fails", "holds", "holds"],
        3: ["fails", "fails", "holds"],
        4: ["fails", "holds", "inconclusive"],
    }
    (record,) = table([2, 3, 4], 1, ["holds"] * 3, moved)
    assert (record["fails_at"], record["inconclusive_at"], record["seeds"]) == ("3", "4", 3)
    assert record["verdicts"] == "1 holds; 2 holds (2 of 3); 3 fails (2 of 3); 4 inconclusive (1 of 3)"


def test_what_holds_throughout_fails_nowhere_and_what_fails_at_the_base_fails_there():
    (record,) = table([2.0, 3.0], 1.0, ["holds"], {2.0: ["holds"], 3.0: ["holds"]})
    assert (record["fails_at"], record["inconclusive_at"], record["silent_at"]) == (None, None, None)
    (record,) = table([2.0], 1.0, ["fails"], {2.0: ["holds"]})
    assert (record["at_base"], record["fails_at"]) == ("fails", "1.0")


def test_silence_is_told_apart_and_a_silent_path_left_out():
    (record,) = table([2, 3], 1, ["holds"], {2: [None], 3: ["fails"]})
    assert (record["silent_at"], record["fails_at"]) == ("2", "3")
    assert table([2, 3], 1, [None], {2: [None], 3: [None]}) == []


def test_each_word_is_a_path_of_its_own():
    records = table(["a", "b"], "a", ["holds"], {"a": ["holds"], "b": ["fails"]})
    assert [(r["side"], r["until"], r["fails_at"]) for r in records] == [("each", "b", "b")]
    lists = table([(1.0,), (0.2, 1.8)], None, ["holds"], {(1.0,): ["holds"], (0.2, 1.8): ["inconclusive"]})
    assert [(r["base"], r["until"], r["inconclusive_at"]) for r in lists] == [
        (None, "[1.0]", None),
        (None, "[0.2,1.8]", "[0.2,1.8]"),
    ]


@pytest.mark.parametrize("base", [0.0, 5.0, 2.5])
@given(st.lists(said, min_size=5, max_size=5))
def test_the_first_failure_is_the_nearest(base, verdicts):
    values = [1.0, 2.0, 3.0, 4.0, 6.0]
    moved = {value: [verdict] for value, verdict in zip(values, verdicts, strict=True)}
    for record in table(values, base, ["holds"], moved):
        sign = 1 if record["side"] == "above" else -1
        failing = [v for v in values if moved[v] == ["fails"] and (v - base) * sign > 0]
        nearest = min(failing, key=lambda v: abs(v - base)) if failing else None
        assert record["fails_at"] == (None if nearest is None else str(nearest))
