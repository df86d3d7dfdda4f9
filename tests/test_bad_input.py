"""Whatever cannot be done as asked is refused at once, by an InputError that says what was given and what is allowed.

Each case: what is given, and the words that the message must hold. Files and command lines have tests of their own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mimlab

NAN, INF = float("nan"), float("inf")
SMALL = mimlab.World(area_sizes=(12, 4, 4, 4))
BY_EXPONENTS = {"patches": 1000, "global_exponent": 0.8, "local_exponent": 0.3}


def refused(act: Callable[[], Any], *words: str) -> None:
    """It raises InputError in a few lines that hold the words, and ends as a sentence does."""
    with pytest.raises(mimlab.InputError) as caught:
        act()
    message = str(caught.value)
    assert message.count("\n") < 4 and len(message) < 500
    for word in words:
        assert word in message


def ids(value: object) -> str | None:
    return repr(value)[:60] if isinstance(value, dict) else None


WORLDS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    # which of the three ways
    ({}, ("area_sizes", "image", "patches", "0 of the three")),
    ({"area_sizes": (4, 2), "patches": 6}, ("exactly one", "2 of the three")),
    ({"area_sizes": (4, 2), "global_exponent": 0.8}, ("exactly one", "2 of the three")),
    ({"area_sizes": (4, 2), "image": "a.png"}, ("exactly one", "2 of the three")),
    ({**BY_EXPONENTS, "image": "a.png"}, ("exactly one", "2 of the three")),
    ({"patches": 100}, ("global_exponent is missing", "go together")),
    ({"patches": 100, "global_exponent": 0.8}, ("local_exponent is missing",)),
    ({"global_exponent": 0.8, "local_exponent": 0.3}, ("patches is missing",)),
    # sizes
    ({"area_sizes": ()}, ("area_sizes", "at least one")),
    ({"area_sizes": 12}, ("area_sizes = 12", "list")),
    ({"area_sizes": "12"}, ("area_sizes = '12'", "list")),
    ({"area_sizes": (4, 0)}, ("area_sizes[1] = 0", "at least 1")),
    ({"area_sizes": (4, -2)}, ("area_sizes[1] = -2", "at least 1")),
    ({"area_sizes": (4, 2.5)}, ("area_sizes[1] = 2.5", "whole number")),
    ({"area_sizes": (4, "2")}, ("area_sizes[1] = '2'", "whole number")),
    ({"area_sizes": (4, None)}, ("area_sizes[1] = None", "whole number")),
    ({"area_sizes": (4, True)}, ("area_sizes[1] = True", "whole number")),
    ({"area_sizes": (4, np.True_)}, ("area_sizes[1]", "whole number")),
    ({"area_sizes": (4, NAN)}, ("area_sizes[1] = nan", "whole number")),
    ({"area_sizes": (4, INF)}, ("area_sizes[1] = inf", "whole number")),
    ({"area_sizes": np.array([4.0, NAN])}, ("area_sizes[1]", "nan", "whole number")),
    ({"area_sizes": (4, np.float32("inf"))}, ("area_sizes[1]", "inf", "whole number")),
    ({"area_sizes": (10**16, 4)}, ("1e+15", "lower")),
    # exponents
    ({**BY_EXPONENTS, "patches": 0}, ("patches = 0", "at least 1")),
    ({**BY_EXPONENTS, "patches": -5}, ("patches = -5", "at least 1")),
    ({**BY_EXPONENTS, "patches": 10.5}, ("patches = 10.5", "whole number")),
    ({**BY_EXPONENTS, "patches": "many"}, ("patches = 'many'", "whole number")),
    ({**BY_EXPONENTS, "patches": INF}, ("patches = inf", "whole number")),
    ({**BY_EXPONENTS, "patches": 10**400}, ("1e+15", "lower")),
    ({**BY_EXPONENTS, "global_exponent": NAN}, ("global_exponent = nan", "finite")),
    ({**BY_EXPONENTS, "local_exponent": -INF}, ("local_exponent = -inf", "finite")),
    ({**BY_EXPONENTS, "local_exponent": "0.3"}, ("local_exponent = '0.3'", "number")),
    ({**BY_EXPONENTS, "global_exponent": 1.2}, ("global_exponent = 1.2", "[0, 1]")),
    ({**BY_EXPONENTS, "local_exponent": -0.1}, ("local_exponent = -0.1", "[0, 1]")),
    ({**BY_EXPONENTS, "global_exponent": 1.0}, ("1000 patches", "leaves 0", "lower an exponent")),
    ({**BY_EXPONENTS, "global_exponent": 0.99, "local_exponent": 0.7}, ("leaves 67", "area of 126")),
    ({**BY_EXPONENTS, "patches": 1}, ("patches = 1", "raise patches")),
    # clusters, partitions and the rest
    ({"area_sizes": (4, 2), "clusters": 0}, ("clusters = 0", "at least 1")),
    ({"area_sizes": (4, 2), "clusters": 1.5}, ("clusters = 1.5", "whole number")),
    ({"area_sizes": (4, 2), "clusters": 10**9}, ("clusters = 1000000000", "at most 10000")),
    ({"area_sizes": (4, 2), "max_cells": 0}, ("max_cells = 0", "at least 1")),
    ({"area_sizes": (4, 2), "patch_size": -16}, ("patch_size = -16", "at least 1")),
    ({"area_sizes": (4, 2), "partitions": "crossed"}, ("'crossed'", "shared", "nested", "random", "list")),
    ({"area_sizes": (4, 2), "partitions": 3}, ("partitions = 3", "list")),
    ({"area_sizes": (4, 2), "partitions": None}, ("partitions = None", "list")),
    ({"area_sizes": (4, 2), "partitions": (4, 2)}, ("partitions[0] = 4", "list")),
    ({"area_sizes": (4, 2), "partitions": ()}, ("partitions = ()", "at least one")),
    (
        {"area_sizes": (4, 2), "clusters": 2, "partitions": ((4, 2),)},
        ("lists 1 clusters", "clusters = 2"),
    ),
    ({"area_sizes": (4, 2), "clusters": 2, "partitions": ((4, 2), (3, 4))}, ("[1]", "7 patches", "has 6")),
    ({"area_sizes": (4, 2), "clusters": 2, "partitions": ((4, 2), (6, 0))}, ("partitions[1][1] = 0",)),
    ({"area_sizes": (4, 2), "clusters": 2, "partitions": ((3, 3), (4, 2))}, ("[3, 3]", "own areas", "equal")),
    (
        {
            "patches": 10**8,
            "global_exponent": 0.9,
            "local_exponent": 0.3,
            "clusters": 2,
            "partitions": "random",
        },
        ("100000000 patches", "10000000", "shared"),
    ),
    ({"area_sizes": (4, 2), "latent": 1.0}, ("latent = 1.0", "Latent(")),
    ({"area_sizes": (4, 2), "latent": {"low": 1.0, "high": 1.0}}, ("latent", "Latent(")),
]


@pytest.mark.parametrize(("given", "words"), WORLDS, ids=ids)
def test_worlds(given: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(lambda: mimlab.World(**given), *words)


LATENTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("low and high", "values")),
    ({"low": 1.0}, ("low and high", "values")),
    ({"low": 1.0, "values": (1.0,)}, ("both", "one of the two")),
    ({"low": 2.0, "high": 1.0}, ("low = 2.0", "high = 1.0", "swap")),
    ({"low": -1.0, "high": 1.0}, ("-1.0", ">= 0")),
    ({"values": (1.0, -0.5)}, ("-0.5", ">= 0")),
    ({"low": 0.0, "high": 0.0}, ("every latent is 0", "positive")),
    ({"values": (0.0,)}, ("every latent is 0", "positive")),
    ({"values": ()}, ("values", "at least one")),
    ({"values": 1.0}, ("values = 1.0", "list")),
    ({"values": "12"}, ("values = '12'", "list")),
    ({"values": ("1",)}, ("values[0] = '1'", "finite number")),
    ({"values": (None,)}, ("values[0] = None", "finite number")),
    ({"low": NAN, "high": 1.0}, ("low = nan", "finite number")),
    ({"low": 0.0, "high": INF}, ("high = inf", "finite number")),
    ({"low": "a", "high": 1.0}, ("low = 'a'", "finite number")),
    ({"low": True, "high": 1.0}, ("low = True", "finite number")),
    ({"low": 1.0, "high": 10**400}, ("high = 1", "finite number")),
    ({"low": 1e-90, "high": 1e-90}, ("1e-90", "0.001", "rescale")),
    ({"values": (1e200,)}, ("1e+200", "1000", "rescale")),
]


@pytest.mark.parametrize(("given", "words"), LATENTS, ids=ids)
def test_latents(given: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(lambda: mimlab.Latent(**given), *words)


@pytest.mark.parametrize("ratio", [0, 1, 1.0, -0.1, 75])
def test_mask_ratios_that_mask_none_or_all(ratio: float) -> None:
    refused(lambda: mimlab.MaskedReconstruction(mask_ratio=ratio), f"mask_ratio = {ratio}", "between 0 and 1")


@pytest.mark.parametrize("ratio", [NAN, INF, "0.75", None, True])
def test_mask_ratios_that_are_no_numbers(ratio: Any) -> None:
    refused(lambda: mimlab.MaskedReconstruction(mask_ratio=ratio), f"mask_ratio = {ratio!r}", "finite number")


@pytest.mark.parametrize(("ratio", "masked"), [(0.01, "masks 0 of 24"), (0.99, "masks 24 of 24")])
def test_mask_ratios_that_round_to_none_or_all(ratio: float, masked: str) -> None:
    refused(
        lambda: mimlab.simulate(SMALL, mimlab.MaskedReconstruction(ratio)), f"mask_ratio = {ratio}", masked
    )


def test_another_objective() -> None:
    refused(lambda: mimlab.MaskedReconstruction(name="contrastive"), "'contrastive'", "'masked'")


DESCENT = {"integrator": "descent", "learning_rate": 1.0, "steps": 10}
RUNS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"engine": "exact"}, ("'exact'", "enumerated", "sampled", "mean-field", "dense")),
    ({"engine": None}, ("engine = None", "sampled")),
    ({"integrator": "adam"}, ("'adam'", "flow", "descent")),
    ({"engine": "dense"}, ("dense", "descent")),
    ({**DESCENT, "learning_rate": None}, ("learning_rate is missing",)),
    ({**DESCENT, "steps": None}, ("steps is missing",)),
    ({"learning_rate": 1.0}, ("go together",)),
    ({"steps": 5}, ("go together",)),
    ({**DESCENT, "learning_rate": 0}, ("learning_rate = 0", "positive")),
    ({**DESCENT, "learning_rate": -1.0}, ("learning_rate = -1.0", "positive")),
    ({**DESCENT, "learning_rate": NAN}, ("learning_rate = nan", "finite")),
    ({**DESCENT, "learning_rate": "fast"}, ("learning_rate = 'fast'", "number")),
    ({**DESCENT, "steps": 0}, ("steps = 0", "at least 1")),
    ({**DESCENT, "steps": 2.5}, ("steps = 2.5", "whole number")),
    ({**DESCENT, "steps": INF}, ("steps = inf", "whole number")),
    ({**DESCENT, "learning_rate": 1e308, "steps": 30}, ("learning_rate = 1e+308", "steps = 30", "at most")),
    ({**DESCENT, "steps": 10**400}, ("steps", "at most")),
    ({"draws": 0}, ("draws = 0", "at least 1")),
    ({"draws": 63}, ("draws = 63", "at least 64")),
    ({"draws": "1024"}, ("draws = '1024'", "whole number")),
    ({"stop_attention": 0}, ("stop_attention = 0", "positive")),
    ({"stop_attention": 1.01}, ("stop_attention = 1.01", "(0, 1]")),
    ({"stop_attention": NAN}, ("stop_attention = nan", "finite")),
    ({"query": 24}, ("query = 24", "24 patches", "0 to P-1")),
    ({"query": 10**30}, ("lies outside", "24 patches")),
    ({"query": -1}, ("query = -1", "at least 0")),
    ({"query": "-1"}, ("'-1'", "local", "global", "all", "patch index")),
    ({"query": "²"}, ("'²'", "local", "global", "all", "patch index")),
    ({"query": "nearest"}, ("'nearest'", "local", "global", "all", "patch index")),
    ({"query": 2.5}, ("query = 2.5", "whole number")),
    ({"query": NAN}, ("query = nan", "whole number")),
    ({"query": None}, ("query = None", "whole number")),
    ({"query": True}, ("query = True", "whole number")),
    ({"query": [3]}, ("query = [3]", "whole number")),
    ({"seed": -1}, ("seed = -1", "at least 0")),
    ({"seed": 1.5}, ("seed = 1.5", "whole number")),
    ({"seed": None}, ("seed = None", "whole number")),
    ({"objective": 0.75}, ("objective = 0.75", "MaskedReconstruction")),
]


@pytest.mark.parametrize(("given", "words"), RUNS, ids=ids)
def test_runs(given: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(lambda: mimlab.simulate(SMALL, **given), *words)


@pytest.mark.parametrize("engine", ["enumerated", "sampled", "mean-field"])
def test_a_world_that_lacks_what_is_asked(engine: str) -> None:
    alone = mimlab.World(area_sizes=(8,))
    refused(lambda: mimlab.simulate(alone, engine=engine), "no local area", "query = global")
    single = mimlab.World(area_sizes=(1,))
    refused(lambda: mimlab.simulate(single, engine=engine, query="global"), "masks 1 of 1")


TOO_LARGE: list[tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    # area sizes 60 and 4: vectors of visible counts grow as 5^areas
    (
        {"area_sizes": (60, *[4] * 20)},
        {"engine": "enumerated"},
        ("enumerated", "counts", "21 cells", "sampled"),
    ),
    (
        {"area_sizes": (6, *[3] * 6), "latent": mimlab.Latent(values=(1, 2, 3, 4))},
        {"engine": "enumerated"},
        ("1.64e+04 latents",),
    ),
    (
        {"area_sizes": (2,) * 400, "latent": mimlab.Latent(values=(1, 2))},
        {"engine": "enumerated"},
        ("latents", "400 cells"),
    ),
    ({**BY_EXPONENTS, "patches": 10**12}, {"engine": "enumerated"}, ("enumerated", "cells")),
    ({**BY_EXPONENTS, "patches": 10**12}, {"engine": "sampled"}, ("1024 draws", "areas", "mean-field")),
    (
        {"area_sizes": (9, 3), "latent": mimlab.Latent(0.5, 1.5)},
        {"engine": "enumerated"},
        ("discrete latent", "values", "sampled"),
    ),
    (
        {**BY_EXPONENTS, "clusters": 3, "partitions": "random", "max_cells": 100},
        {"engine": "mean-field"},
        ("3 clusters", "max_cells = 100", "shared", "nested"),
    ),
    (
        {"area_sizes": (1000, *range(1, 700))},
        {"query": "all", "engine": "mean-field"},
        ("700 rows", "at most 500", "patch index"),
    ),
]


@pytest.mark.parametrize(("world", "run", "words"), TOO_LARGE, ids=ids)
def test_what_is_too_large_is_refused_with_its_count(
    world: dict[str, Any], run: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused(lambda: mimlab.simulate(mimlab.World(**world), **run), *words)


def test_the_refused_number_of_cells_is_the_true_one() -> None:
    world = {**BY_EXPONENTS, "clusters": 2, "partitions": "random"}
    partitions = mimlab.World(**world).layout(seed=4).partitions
    cells = len(set(zip(*(p.all_labels().tolist() for p in partitions), strict=True)))
    small = mimlab.World(**world, max_cells=cells - 1)
    refused(
        lambda: mimlab.simulate(small, engine="mean-field", seed=4),
        f"{cells} cells",
        f"max_cells = {cells - 1}",
    )
    enough = mimlab.World(**world, max_cells=cells)
    rate = {"integrator": "descent", "learning_rate": 1.0, "steps": 2}
    assert mimlab.simulate(enough, engine="mean-field", seed=4, **rate).summary["status"] == "finished"


def test_images(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    for path in (tmp_path / "absent.png", text, tmp_path):
        refused(lambda path=path: mimlab.simulate(mimlab.World(image=path)), path.name)
    lists = {"clusters": 2, "partitions": ((4, 2), (3, 3))}
    refused(lambda: mimlab.World(image="a.png", **lists), "photograph", "shared", "random")


@pytest.mark.parametrize("query", [np.int64(14), 14.0, "14", np.uint8(14)])
def test_whole_numbers_of_any_kind_name_a_patch(query: Any) -> None:
    run = mimlab.simulate(SMALL, engine="mean-field", query=query, stop_attention=0.1)
    assert run.trajectory["query"].unique().to_pylist() == [14]


def test_numpy_numbers_are_numbers() -> None:
    objective = mimlab.MaskedReconstruction(np.float32(0.75))
    latent = mimlab.Latent(np.float64(0.5), np.int64(1))
    world = mimlab.World(area_sizes=np.array([12, 4, 4, 4]), latent=latent)  # type: ignore[arg-type]
    first = mimlab.simulate(
        world, objective, draws=np.int64(64), seed=np.int64(3), stop_attention=np.float32(0.25)
    )
    plain = mimlab.World(area_sizes=(12, 4, 4, 4), latent=mimlab.Latent(0.5, 1.0))
    second = mimlab.simulate(plain, draws=64, seed=3, stop_attention=0.25)
    assert first.trajectory.equals(second.trajectory)
