"""Configurations: mappings, dataclasses and TOML say the same, and what does not fit is refused by name."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimlab.runs import InputError, build, merge, read_toml, to_mapping, write_toml


@dataclass(frozen=True)
class Law:
    low: float = 1.0
    high: float = 1.0
    values: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Place:
    patches: int | None = None
    area_sizes: tuple[int, ...] | None = None
    partitions: str | tuple[tuple[int, ...], ...] = "shared"
    law: Law = field(default_factory=Law)
    image: Path | None = None

    def __post_init__(self) -> None:
        if self.patches is not None and self.patches < 1:
            raise InputError(f"world: patches is {self.patches}; give 1 or more")


@dataclass(frozen=True)
class Config:
    seed: int
    place: Place = field(default_factory=Place)
    rate: Optional[float] = None  # noqa: UP045 (the older spelling must work too)
    engine: Literal["sampled", "dense"] = "sampled"
    query: str | int = "local"
    exact: bool = False
    span: tuple[float, float] = (0.0, 1.0)


def test_defaults_and_nested_tables():
    config = build(Config, {"seed": 1, "place": {"area_sizes": [4, 2], "law": {"low": 0.5}}})
    assert config == Config(seed=1, place=Place(area_sizes=(4, 2), law=Law(low=0.5)))


def test_list_of_lists_and_unions():
    place = {"partitions": [[4, 2], [3, 3]], "image": "a.png"}
    config = build(Config, {"seed": 0, "query": 7, "place": place})
    assert config.place.partitions == ((4, 2), (3, 3))
    assert config.query == 7
    assert config.place.image == Path("a.png")


@pytest.mark.parametrize("value", [10000, 1e4, 10000.0])
def test_whole_numbers_may_be_written_as_floats(value):
    patches = build(Place, {"patches": value}).patches
    assert patches == 10000
    assert isinstance(patches, int)


def test_floats_take_integers():
    low = build(Law, {"low": 2}).low
    assert low == 2.0
    assert isinstance(low, float)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"seed": "one"}, 'config: seed must be a whole number, not "one"'),
        ({"seed": 1.5}, "config: seed must be a whole number, not 1.5"),
        ({"seed": True}, "config: seed must be a whole number, not true"),
        ({"seed": 1e300}, r"config: seed must be a whole number, not 1e\+300"),
        ({"seed": 0, "rate": math.inf}, "config: rate must be a finite number, not inf"),
        ({"seed": 0, "rate": math.nan}, "config: rate must be a finite number, not nan"),
        ({"seed": 0, "rate": 10**400}, "config: rate must be a finite number, not 1000"),
        ({"seed": 0, "rate": False}, "config: rate must be a finite number, not false"),
        ({"seed": 0, "exact": 1}, "config: exact must be true or false, not 1"),
        ({"seed": 0, "engine": "fast"}, 'engine must be "sampled" or "dense", not "fast"'),
        ({"seed": 0, "engine": 3}, 'engine must be "sampled" or "dense", not 3'),
        ({"seed": 0, "query": [1]}, r"query must be a text or a whole number, not \[1\]"),
        (
            {"seed": 0, "span": [1.0]},
            r"span must be a list \(a finite number, a finite number\), not \[1.0\]",
        ),
        ({"seed": 0, "place": 3}, "config: place must be a table, not 3"),
        (
            {"seed": 0, "place": {"area_sizes": [1, "2"]}},
            r"place\.area_sizes must be a list \(a whole number, ...\)",
        ),
        ({"seed": 0, "place": {"area_sizes": [1, True]}}, r"place\.area_sizes must be a list"),
        ({"seed": 0, "place": {"law": {"low": {}}}}, r"place\.law\.low must be a finite number, not a table"),
        ({}, "config: seed is missing; it is a whole number"),
    ],
)
def test_values_that_do_not_fit(mapping, message):
    with pytest.raises(InputError, match=message):
        build(Config, mapping)


@pytest.mark.parametrize(
    ("mapping", "given", "near"),
    [
        ({"place": {"patchs": 3}}, "place.patchs", "place.patches"),
        ({"patches": 3}, "patches", "place.patches"),
        ({"place": {"law": {"hihg": 3}}}, "place.law.hihg", "place.law.high"),
        ({"palce": {"patches": 3}}, "palce", "place"),
        ({"Seed": 3}, "Seed", "seed"),
        ({"qqq": 3}, "qqq", "query"),
    ],
)
def test_unknown_keys_name_the_nearest(mapping, given, near):
    with pytest.raises(InputError) as refusal:
        build(Config, {"seed": 0, **mapping}, where="my.toml")
    assert str(refusal.value) == f"my.toml: there is no key {given}; the nearest is {near}"


def test_own_checks_of_the_dataclasses_run():
    with pytest.raises(InputError, match="patches is 0; give 1 or more"):
        build(Config, {"seed": 0, "place": {"patches": 0}})


def test_long_values_are_shortened():
    with pytest.raises(InputError) as refusal:
        build(Config, {"seed": "x" * 1000})
    assert len(str(refusal.value)) < 120


def test_mapping_writes_defaults_and_leaves_none_out():
    assert to_mapping(Config(seed=3, place=Place(area_sizes=(4, 2), image=Path("a.png")))) == {
        "seed": 3,
        "place": {
            "area_sizes": [4, 2],
            "partitions": "shared",
            "law": {"low": 1.0, "high": 1.0},
            "image": "a.png",
        },
        "engine": "sampled",
        "query": "local",
        "exact": False,
        "span": [0.0, 1.0],
    }


finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    Config,
    seed=st.integers(-(2**62), 2**62),
    place=st.builds(
        Place,
        patches=st.none() | st.integers(1, 10**12),
        area_sizes=st.none() | st.lists(st.integers(1, 99), min_size=1).map(tuple),
        partitions=st.just("nested")
        | st.lists(st.lists(st.integers(1, 9), min_size=1).map(tuple), min_size=1).map(tuple),
        law=st.builds(Law, low=finite, values=st.none() | st.lists(finite, min_size=1).map(tuple)),
        image=st.none() | st.just(Path("photo graph.png")),
    ),
    rate=st.none() | finite,
    query=st.text() | st.integers(0, 99),
    exact=st.booleans(),
    span=st.tuples(finite, finite),
)


@given(configs)
def test_dataclass_survives_toml(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round.toml"
    write_toml(path, config)
    assert build(Config, read_toml(path)) == config


def test_merge_goes_into_tables_and_changes_neither():
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    over = {"a": {"c": {"f": 4}}, "e": {"g": 5}}
    assert merge(base, over) == {"a": {"b": 1, "c": {"d": 2, "f": 4}}, "e": {"g": 5}}
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert over == {"a": {"c": {"f": 4}}, "e": {"g": 5}}


def test_files_that_are_not_toml(tmp_path):
    cases = {
        "none.toml": (None, "there is no such file"),
        "syntax.toml": (b"seed = 1\nworld = \n", r"is not TOML: Invalid value \(at line 2, column 9\)"),
        "latin.toml": (b"name = '\xe9'", "is not TOML: byte 8 is not UTF-8 text"),
        "picture.png": (b"\x89PNG\r\n\x1a\n\x00", "is not TOML: byte 0 is not UTF-8"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}:? {message}"):
            read_toml(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_toml(tmp_path)
