"""Designs of a sweep: which points they have, how these are known, and what is refused."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import InputError, build, merge, to_mapping
from mimlab.studies.sweep_plan import Plan, hash_of

BASE = {
    "world": {"patches": 1000, "global_exponent": 0.9, "local_exponent": 0.3},
    "dynamics": {"engine": "mean-field"},
    "seed": 5,
}


def plan(*over: str, **more) -> Plan:
    return Plan.read(more.pop("mapping", BASE), over, **more)


def test_a_grid_has_every_combination_once():
    found = plan("world.local_exponent=0.1:0.3:3", "objective.mask_ratio=0.25,0.5", "seed=0,1")
    assert found.size == len(found.points) == 12
    expected = product((0.1, 0.2, 0.3), (0.25, 0.5), (0, 1))
    assert [tuple(point.values.values()) for point in found.points] == list(expected)
    assert len({point.hash for point in found.points}) == 12
    for point in found.points[:3]:
        over = {
            "world": {"local_exponent": point.values["world.local_exponent"]},
            "objective": {"mask_ratio": point.values["objective.mask_ratio"]},
            "seed": point.values["seed"],
        }
        assert point.config == to_mapping(build(SimulationConfig, merge(BASE, over)))
        assert point.hash == hash_of(point.config)


def test_the_hash_is_that_of_the_configuration_however_it_is_written():
    written = {
        "seed": 5,
        "dynamics": {"engine": "mean-field"},
        "world": dict(reversed(BASE["world"].items())),
    }
    (one,), (other,) = (plan("objective.mask_ratio=0.5", mapping=m).points for m in (BASE, written))
    (swept,) = plan(
        "world.local_exponent=0.3", mapping=merge(BASE, {"objective": {"mask_ratio": 0.5}})
    ).points
    assert one.hash == other.hash == swept.hash
    (different,) = plan("objective.mask_ratio=0.51").points
    assert different.hash != one.hash


def test_one_at_a_time_moves_one_axis_and_crosses_seeds():
    found = plan(
        "world.local_exponent=0.2,0.3", "objective.mask_ratio=0.5", "seed=7,8", design="one-at-a-time"
    )
    assert found.base == {"world.local_exponent": 0.3, "objective.mask_ratio": 0.75, "seed": 5}
    assert [(point.axis, point.values) for point in found.points] == [
        (axis, {"seed": seed, **values})
        for seed in (7, 8)
        for axis, values in (
            (None, {}),
            ("world.local_exponent", {"world.local_exponent": 0.2}),
            ("world.local_exponent", {"world.local_exponent": 0.3}),
            ("objective.mask_ratio", {"objective.mask_ratio": 0.5}),
        )
    ]
    assert found.size == 8
    base, _, same, _ = found.points[:4]
    assert base.hash == same.hash  # the base's own value runs once
    assert plan("world.local_exponent=0.2", design="one-at-a-time").points[0].config["seed"] == 5


def test_random_points_are_uniform_in_their_ranges_and_repeatable():
    axes = (
        "world.local_exponent=0.1:0.3:2",
        "world.patches=100:1e6:2:log",
        "dynamics.query=local,global,all",
        "seed=0:3:4",
    )
    found = plan(*axes, design="random", number=1200)
    values = {key: [point.values[key] for point in found.points] for key in found.points[0].values}
    exponents, logs = np.array(values["world.local_exponent"]), np.log10(values["world.patches"])
    for sample, low, high in ((exponents, 0.1, 0.3), (logs, 2, 6)):
        assert low <= sample.min() and sample.max() <= high
        counts = np.histogram(sample, 8, (low, high))[0]
        assert ((counts - 150) ** 2 / 150).sum() < 24.3  # chi-squared, 7 degrees of freedom, 1 in 1000
    for key, expected in (("dynamics.query", 3), ("seed", 4)):
        counts = np.array(list(Counter(values[key]).values()))
        assert len(counts) == expected
        assert ((counts - 1200 / expected) ** 2 / (1200 / expected)).sum() < 16.3  # 3 degrees
    assert all(isinstance(p, int) for p in values["world.patches"])
    again = plan(*axes, design="random", number=1200)
    assert [p.hash for p in again.points] == [p.hash for p in found.points]
    other = plan(*axes, design="random", number=1200, mapping={**BASE, "seed": 6})
    assert [p.values for p in other.points] != [p.values for p in found.points]


def test_a_point_that_cannot_be_is_kept_with_the_reason():
    good, bad = plan("world.local_exponent=0.3,0.99").points
    assert good.error is None
    assert bad.error is not None and "too few for one local area" in bad.error
    assert bad.config["world"]["local_exponent"] == 0.99


def test_the_configuration_is_filled_unless_a_default_is_in_the_way():
    assert plan("world.local_exponent=0.2").config_toml == to_mapping(build(SimulationConfig, BASE))
    latents = plan("world.latent.values=[0.2,1.8]", "objective.mask_ratio=0.5", design="one-at-a-time")
    assert latents.base == {"world.latent.values": None, "objective.mask_ratio": 0.75}
    assert plan("world.latent.values=[0.2,1.8]").config_toml == BASE
    lacking = {"world": {"global_exponent": 0.9, "local_exponent": 0.3}}
    assert plan("world.patches=1e3,1e4", mapping=lacking).config_toml == lacking
    for axis in ("world.local_exponent=0.2", "world.latent.values=[0.2,1.8]", "world.area_sizes=[8,4]"):
        mapping = {"world": {"area_sizes": [4, 2]}} if "sizes" in axis else BASE
        found = plan(axis, mapping=mapping)
        again = plan(axis, mapping=found.config_toml)
        assert [p.hash for p in again.points] == [p.hash for p in found.points]


@pytest.mark.parametrize(
    ("over", "more", "words"),
    [
        ((), {}, "there is no axis"),
        (("seed=1",), {"design": "latin"}, "give one of grid, random, one-at-a-time"),
        (("seed=1", "seed=2"), {}, "two axes set seed"),
        (("world.latent.low=1", 'world.latent={"values":[1]}'), {}, "two axes set world.latent.low"),
        (("seed=1",), {"design": "random"}, "random needs --points"),
        (("seed=1",), {"number": 5}, "grid takes no --points"),
        (("seed=1",), {"design": "random", "number": 0}, "at least 1"),
        (("seed=0:1e5:100001", "world.patches=1000:1100:101"), {}, "are too many; at most 1000000"),
        (("world.patch=1",), {}, "the nearest is world.patches"),
        (("world.local_exponent=0.99,1",), {}, "not one of 2 points can be run; the first: world"),
        (("world.patches=10",), {"mapping": {}, "design": "one-at-a-time"}, "give exactly one of area_sizes"),
        (("seed=1",), {"mapping": {"wurld": {}}}, "there is no key wurld"),
    ],
)
def test_what_is_no_plan_is_refused(over, more, words):
    with pytest.raises(InputError) as refused:
        _ = plan(*over, **more).points
    assert words in str(refused.value)
