"""Axes of a sweep, as they are typed: ranges, lists and tables, held to the keys of a configuration."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import InputError, build, merge
from mimlab.runs.axes import Axis, label, read_axis

BASE = {"world": {"patches": 1000, "global_exponent": 0.9, "local_exponent": 0.3}}


def read(text: str) -> Axis:
    return read_axis(text, SimulationConfig)


@pytest.mark.parametrize(
    ("text", "values", "spacing"),
    [
        ("world.local_exponent=0.1:0.5:5", (0.1, 0.2, 0.3, 0.4, 0.5), "linear"),
        ("objective.mask_ratio = .25:.75:3", (0.25, 0.5, 0.75), "linear"),
        ("world.patches=1e3:1e6:4:log", (1000, 10_000, 100_000, 1_000_000), "log"),
        ("world.patches=10:20:4", (10, 13, 17, 20), "linear"),
        ("dynamics.query=0:2:3", (0, 1, 2), "linear"),
        ("objective.temperature=0.01:1:3:log", (0.01, 0.1, 1.0), "log"),
        ("dynamics.engine=sampled,mean-field", ("sampled", "mean-field"), "list"),
        ("dynamics.query=local, global ,3", ("local", "global", 3), "list"),
        ("world.area_sizes=[40,8,8],[30,10]", ((40, 8, 8), (30, 10)), "list"),
        ("world.latent.values=[0.2,1.8],[1]", ((0.2, 1.8), (1.0,)), "list"),
        ("world.latent.high=1,1.5", (1.0, 1.5), "list"),
        ("world.partitions=shared,[[3,2],[2,3]]", ("shared", ((3, 2), (2, 3))), "list"),
        ('world.image="a,b.png",c:d.png', ("a,b.png", "c:d.png"), "list"),
        ("seed=7", (7,), "list"),
        (
            'world.latent={"low":1,"high":2},{"values":[1,2]}',
            ({"low": 1.0, "high": 2.0}, {"values": (1.0, 2.0)}),
            "list",
        ),
        (
            'objective={"name":"contrastive","negatives":2}',
            ({"name": "contrastive", "negatives": 2},),
            "list",
        ),
    ],
)
def test_what_is_typed_is_read(text, values, spacing):
    axis = read(text)
    assert axis.values == values
    assert [type(value) for value in axis.values] == [type(value) for value in values]
    assert (axis.key, axis.spacing) == (text.partition("=")[0].strip(), spacing)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "world.local_exponents=0.1:0.5:3",
            "there is no key world.local_exponents; the nearest is world.local_exponent",
        ),
        ("local_exponent=0.1:0.5:3", "the nearest is world.local_exponent"),
        ("world.local_exponent", "is no axis; give table.key=values"),
        ("world.local_exponent=", "is no axis"),
        ("=1", "is no axis"),
        ("world.local_exponent=0.5:0.1:3", "no range from a lower number to a higher"),
        ("world.local_exponent=a:b:3", "no range"),
        ("world.local_exponent=0.1:0.5", "no range"),
        ("world.local_exponent=0.1:0.5:3:lin", "no range"),
        ("world.local_exponent=0:inf:3", "no range"),
        ("world.local_exponent=nan:1:3", "no range"),
        ("world.local_exponent=0.1:0.5:1", "asks for 1 values; a whole number from 2"),
        ("world.local_exponent=0.1:0.5:2.5", "asks for 2.5 values"),
        ("world.local_exponent=0.1:0.5:1e12", "asks for 1e+12 values"),
        ("world.local_exponent=0:0.5:3:log", "no logarithm at its lower end"),
        ("world.patches=1:3:9", "9 whole numbers do not fit between 1 and 3"),
        ("world.patches=10,x", 'world.patches must be a whole number, not "x"'),
        ("world.patches=10,10.5", 'world.patches must be a whole number, not "10.5"'),
        ("world.local_exponent=.5,0.5", "the value 0.5 is there twice"),
        ("world.area_sizes=40,8", 'world.area_sizes must be a list (a whole number, ...), not "40"'),
        (
            "world.latent=0.5",
            "world.latent is a table; give JSON, or one of its keys, such as world.latent.low",
        ),
        ('world.latent={"lo":1}', "there is no key lo; the nearest is low"),
        ("seed=,", "there is no value"),
    ],
)
def test_what_is_no_axis_is_refused(text, words):
    with pytest.raises(InputError) as refused:
        read(text)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 50), st.booleans())
def test_a_range_is_even_and_keeps_its_ends(low, width, count, log):
    low = abs(low) + 1e-3 if log else low
    axis = read(f"dynamics.start={low}:{low + width}:{count}{':log' if log else ''}")
    values = [math.log(value) for value in axis.values] if log else axis.values
    assert len(axis.values) == count
    assert (axis.values[0], axis.values[-1]) == (low, low + width)
    steps = [b - a for a, b in pairwise(values)]
    scale = max(map(abs, values))
    assert max(steps) - min(steps) <= 1e-11 * max(scale, 1) + 1e-11


@given(
    st.lists(
        st.one_of(st.integers(0, 10**6), st.sampled_from(["local", "global", "all"])), min_size=1, unique=True
    )
)
def test_what_is_labelled_is_read_back(values):
    assert read(f"dynamics.query={','.join(map(label, values))}").values == tuple(values)


def test_a_value_is_laid_over_a_configuration():
    axis = read('world.latent={"low":0.5,"high":1.5},{"values":[0.2,1.8]}')
    worlds = [build(SimulationConfig, merge(BASE, axis.at(value))).world for value in axis.values]
    assert [world.latent.support for world in worlds] == [(0.5, 1.5), (0.2, 1.8)]
    sizes = read("world.area_sizes=[8,4]")
    assert build(SimulationConfig, sizes.at(sizes.values[0])).world.patches_total == 12


def test_numbers_are_ordered_and_words_are_not():
    assert read("world.patches=10,5").ordered
    assert not read("dynamics.query=local,3").ordered
    with pytest.raises(InputError, match="spacing"):
        Axis("seed", (1,), "sideways")
