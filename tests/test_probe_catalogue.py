"""The catalogue of the probe's statistics: every stated value against explicit maps, every statement there."""

import math

import numpy as np
import pytest

from mimlab import statistics
from mimlab.probing.catalogue import ALL, CATALOGUE, CORE, baselines
from mimlab.probing.layout import Layout

SMALL = Layout(grid=(5, 7), prefix=2, patch_size=(16, 8))
LARGE = Layout(grid=(20, 20), prefix=3, patch_size=(16, 16))
HEADS = 2
POSITIONAL = "positional_"


def measured(weights, layout):
    """Every statistic of maps (heads, tokens, tokens) over all tokens, in plain words; positional ones apart."""
    patches = weights[:, layout.prefix :, layout.prefix :]
    maps = patches / patches.sum(-1, keepdims=True)
    grid = np.indices(layout.grid).reshape(2, -1).T
    uniform = np.full_like(maps[0], 1 / layout.patches)
    mean_rows = np.repeat(maps.mean(-2, keepdims=True), layout.patches, axis=-2)
    unit = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
    distance = statistics.distance(maps, layout.positions())
    return {
        "distance": distance,
        "distance_ratio": distance / statistics.distance(uniform, layout.positions()),
        "entropy": statistics.entropy(maps),
        "information": statistics.information(maps),
        "mean_row_entropy": statistics.entropy(mean_rows),
        "nmi": statistics.nmi(maps),
        "diversity": statistics.diversity(maps),
        "spread": statistics.spread(maps),
        "prefix_mass": weights[:, layout.prefix :, : layout.prefix].sum(-1).mean(-1),
        **{f"locality_{r}": statistics.locality(maps, grid, r) for r in (1, 2, 4)},
        "head_diversity": 1 - (unit[0] * unit[1]).sum(-1).mean(),
    }


def random_maps(layout, images, seed=0):
    logits = np.random.default_rng(seed).normal(size=(images, HEADS, layout.tokens, layout.tokens))
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True)


def stated(layout, kind):
    return {record["statistic"]: record[kind] for record in baselines(layout)}


def test_the_sets_are_those_of_the_table():
    assert (
        *("distance", "distance_ratio", "entropy", "information", "mean_row_entropy", "nmi"),
        *("diversity", "spread", "prefix_mass"),
    ) == CORE
    extra = ("locality_1", "locality_2", "locality_4", "head_diversity")
    assert (*CORE, *extra, *(f"{POSITIONAL}{name}" for name in CORE[:-1])) == ALL
    assert [record["statistic"] for record in baselines(SMALL)] == list(ALL)
    assert [record["statistic"] for record in baselines(SMALL, ["nmi", "nmi:cl-vs-mim", "mine"])] == [
        "nmi",
        "nmi:cl-vs-mim",
    ]


@pytest.mark.parametrize("name", ALL)
def test_every_record_says_how_to_read_it(name):
    one = CATALOGUE[name]
    assert one.name == name
    assert all((one.title, one.formula, one.range, one.higher))
    assert one.per in ("head", "layer", "batch")
    assert one.unit == {"distance": "px"}.get(
        name.removeprefix(POSITIONAL), "nats" if "entropy" in name or "information" in name else ""
    )


@pytest.mark.parametrize("layout", [SMALL, LARGE, Layout((1, 3), patch_size=(2.5, 4))], ids=str)
def test_uniform_and_identity_are_exact(layout):
    equal = np.full((HEADS, layout.tokens, layout.tokens), 1 / layout.tokens)
    own = np.stack([np.eye(layout.tokens)] * HEADS)
    for kind, weights in (("uniform", equal), ("identity", own)):
        values = measured(weights, layout)
        said = stated(layout, kind)
        for name in ALL:
            expected = values[name.removeprefix(POSITIONAL)]  # every image gives the same map
            np.testing.assert_allclose(said[name], expected, rtol=1e-12, atol=1e-12, err_msg=f"{kind} {name}")


def test_random_is_the_limit_of_many_patches_and_images():
    values = measured(random_maps(LARGE, 1)[0], LARGE)
    said = stated(LARGE, "random")
    for name, found in values.items():
        np.testing.assert_allclose(said[name], found, rtol=0.04, atol=1e-3, err_msg=name)
    small = Layout((6, 8), prefix=1)
    averaged = measured(random_maps(small, 400).mean(0), small)
    for name, expected in stated(small, "random").items():
        if name.startswith(POSITIONAL):
            found = averaged[name.removeprefix(POSITIONAL)]
            np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01, err_msg=name)


def test_one_patch_has_no_second_query_to_compare_with():
    for kind in ("uniform", "identity", "random"):
        said = stated(Layout((1, 1), prefix=1), kind)
        assert all(math.isnan(said[name]) for name in ("diversity", "spread", "distance_ratio"))
    assert stated(Layout((1, 1), prefix=1), "uniform")["entropy"] == 0.0
    assert stated(Layout((1, 1), prefix=1), "uniform")["prefix_mass"] == 0.5
