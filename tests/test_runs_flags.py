"""Configurations as flags: what is written is read back, for any world that can be asked for."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.objectives import MaskedReconstruction
from mimlab.runs import build, merge
from mimlab.runs.flags import flag_name, read_flag, takes_several, write_flags
from mimlab.runs.schema import walk
from mimlab.world import Latent, World

KEYS = {flag_name(key): key for key in walk(SimulationConfig) if key.table is None}


def read_back(words: list[str]) -> SimulationConfig:
    """The configuration that a command line makes, read without the command line's library."""
    mapping: dict = {}
    starts = [index for index, word in enumerate(words) if word in KEYS]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        key = KEYS[words[start]]
        value = read_flag(key, words[start + 1 : end])
        for name in reversed(key.path):
            value = {name: value}
        mapping = merge(mapping, value)
    return build(SimulationConfig, mapping)


sizes = st.lists(st.integers(1, 50), min_size=2, max_size=5).map(tuple)
positive = st.floats(1e-3, 1e3)
latents = st.one_of(
    st.tuples(positive, positive).map(lambda ends: Latent(low=min(ends), high=max(ends))),
    st.lists(positive, min_size=1, max_size=3).map(lambda values: Latent(values=tuple(values))),
)
worlds = st.one_of(
    st.builds(World, area_sizes=sizes, latent=latents, clusters=st.integers(1, 3)),
    sizes.map(lambda areas: World(area_sizes=areas, clusters=2, partitions=(areas, areas[::-1]))),
    st.builds(
        World, patches=st.integers(10**4, 10**12), global_exponent=st.just(0.9), local_exponent=st.just(0.3)
    ),
)
configs = st.builds(
    SimulationConfig,
    world=worlds,
    objective=st.builds(MaskedReconstruction, mask_ratio=st.floats(0.1, 0.9)),
    dynamics=st.builds(
        Dynamics,
        engine=st.sampled_from(["sampled", "mean-field"]),
        query=st.sampled_from(["local", "global", 3]),
        stop_attention=st.floats(0.1, 1.0),
        draws=st.integers(64, 4096),
    ),
    seed=st.integers(0, 2**62),
)


@given(configs)
def test_what_is_written_is_read_back(config):
    words = write_flags(config)
    assert read_back(words) == config
    assert shlex.split(shlex.join(words)) == words


def test_only_what_differs_from_its_default_is_written():
    config = SimulationConfig(World(area_sizes=(6, 2, 2), latent=Latent(low=0.5, high=1.0)))
    assert write_flags(config) == [
        "--area-sizes",
        "6",
        "2",
        "2",
        "--latent-low",
        "0.5",
        "--latent-high",
        "1.0",
    ]


@pytest.mark.parametrize(
    ("flag", "path", "several"),
    [
        ("--patches", "world.patches", False),
        ("--area-sizes", "world.area_sizes", True),
        ("--partitions", "world.partitions", False),
        ("--latent-values", "world.latent.values", True),
        ("--objective", "objective.name", False),
        ("--seed", "seed", False),
    ],
)
def test_names(flag, path, several):
    assert str(KEYS[flag]) == path
    assert takes_several(KEYS[flag]) is several
