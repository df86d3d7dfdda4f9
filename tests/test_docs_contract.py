"""docs/file-contract.md against the code: every key of a configuration, every column, every key of a summary."""

import json
import re
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mimlab
from mimlab.claims.survival import SURVIVAL_SCHEMA
from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.tables import CORRELATIONS_SCHEMA, TRAJECTORY_SCHEMA
from mimlab.runs.axes import Axis
from mimlab.runs.flags import flag_name
from mimlab.runs.schema import Key, keys
from mimlab.studies.diversity import SCHEMA as DIVERSITY_SCHEMA
from mimlab.studies.every_query import PHOTOGRAPH_SCHEMA
from mimlab.studies.explored import EXPLORER_SCHEMA
from mimlab.studies.outcomes import Setting
from mimlab.studies.photographs import GAP_SCHEMA, gap_summary
from mimlab.studies.rates import EXPONENTS_SCHEMA, run_rates
from mimlab.studies.scaling import POINTS_SCHEMA, run_scale
from mimlab.studies.survey import SURVEY_SCHEMA
from mimlab.studies.sweep_points import RESULT_SCHEMA
from mimlab.studies.weighted import RUNGS_SCHEMA
from mimlab.training.watching import MAPS_SCHEMA, SCHEMA, SHARES_SCHEMA
from mimlab.world.gap import area_statistics

PAGE = (Path(__file__).parents[1] / "docs/file-contract.md").read_text()
SCHEMAS = {
    "trajectory.parquet": TRAJECTORY_SCHEMA,
    "correlations.parquet": CORRELATIONS_SCHEMA,
    "points.parquet": POINTS_SCHEMA,
    "rows.parquet": RESULT_SCHEMA,
    "survival.parquet": SURVIVAL_SCHEMA,
    "exponents.parquet": EXPONENTS_SCHEMA,
    "rungs.parquet": RUNGS_SCHEMA,
    "gap.parquet": GAP_SCHEMA,
    "diversity.parquet": DIVERSITY_SCHEMA,
    "photographs.parquet": SURVEY_SCHEMA,
    "worlds/explorer.parquet": EXPLORER_SCHEMA,
    "worlds/photograph.parquet": PHOTOGRAPH_SCHEMA,
    "statistics.parquet": SCHEMA,
    "maps.parquet": MAPS_SCHEMA,
    "shares.parquet of a pretraining run": SHARES_SCHEMA,
}
TYPES = {pa.int64(): "int64", pa.float64(): "float64", pa.string(): "string"}


def section(title: str) -> str:
    """The text below a heading, up to the next."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    assert found is not None, f"there is no section {title}"
    return found[1]


def rows(title: str) -> list[list[str]]:
    """Cells of the table of a section, its head left out; names without their backticks."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [[name.strip("`"), *rest] for name, *rest in cells]


def names(title: str) -> list[str]:
    return [name for name, *_ in rows(title)]


def leaves(cls: type, path: tuple[str, ...] = (), built: Any = MISSING) -> list[tuple[Key, Any]]:
    """Every key that holds a value, with the value that it has where nothing is given."""
    found = []
    for key in keys(cls, path):
        default = key.default if built is MISSING else getattr(built, key.name)
        if key.table is None:
            found.append((key, None if default is MISSING else default))
        else:
            found += leaves(key.table, key.path, default)
            for other in key.tables[1:]:  # what only another kind of the table has
                known = {str(one) for one, _ in found}
                found += [(one, value) for one, value in leaves(other, key.path) if str(one) not in known]
    return found


@pytest.fixture(scope="module")
def run() -> Any:
    return mimlab.simulate(mimlab.World(area_sizes=(12, 4, 4)), engine="mean-field", query="all")


def test_every_key_of_a_configuration_is_listed_with_its_default():
    expected = {
        str(key): "" if value is None else json.dumps(value) for key, value in leaves(SimulationConfig)
    }
    assert {name: default for name, _, default, _ in rows("config.toml")} == expected
    assert len(names("config.toml")) == len(expected)


def test_flags_are_as_the_page_says():
    flags = {str(key): flag_name(key) for key, _ in leaves(SimulationConfig)}
    said = {
        "objective.mask_ratio": "--mask-ratio",
        "world.latent.low": "--latent-low",
        "objective.name": "--objective",
    }
    for key, flag in said.items():
        assert flags[key] == flag
        assert f"`{flag}`" in section("config.toml")


@pytest.mark.parametrize("title", list(SCHEMAS))
def test_every_column_is_listed_with_its_type(title):
    listed = [(name, kind) for name, kind, *_ in rows(title)]
    assert listed == [(field.name, TYPES[field.type]) for field in SCHEMAS[title]]


def test_every_key_of_a_summary_is_listed(run):
    assert names("summary.json") == list(run.summary)
    assert names("Of each query") == list(run.summary["queries"][0])
    assert [*names("Of each verdict"), "world"] == list(run.summary["claims"][0])
    with_setting = Setting("", "", {}).records(run.summary["claims"], None)[0]
    more = set(with_setting) - set(names("Of each verdict"))
    assert more == set(re.findall(r"`(\w+)`", section("Of each verdict").split("\n\n")[-2])) - {"reproduce"}


def test_keys_of_the_other_summaries_are_named():
    text = section("Summaries of the other commands")
    scale = run_scale(
        {"world": {"global_exponent": 0.9, "local_exponent": 0.3}}, None, low=1e3, high=1e5, points=3
    )
    axes = [Axis("world.local_exponent", (0.2, 0.3))]
    crossed = run_rates({"world": {"global_exponent": 0.9}}, None, axes, low=1e3, high=1e5, points=3)
    gap = gap_summary([("one.png", area_statistics([(60, 1), (10, 4)]))])
    for said in (scale, scale["exponents"][0], crossed, gap, gap["photographs"][0]):
        assert set(said) <= set(re.findall(r"\w+", text))
    assert set(scale["points"][0]) == set(POINTS_SCHEMA.names)


def test_null_only_where_the_page_says(run):
    """On a run of all queries without sampling error: columns with nothing in "null" are full."""
    without = {name for name, _, null, _ in rows("trajectory.parquet") if not null}
    empty = {name for name in run.trajectory.column_names if run.trajectory[name].null_count}
    assert not without & empty
    of_photographs = {"distance_ratio", "locality_1"}
    errors = {name for name in run.trajectory.column_names if name.endswith("_se")}
    assert empty == {"step", *of_photographs, *errors}
    sampled = mimlab.simulate(mimlab.World(area_sizes=(12, 4, 4)), draws=64).trajectory
    assert {name for name in sampled.column_names if sampled[name].null_count} == {
        *("step", "nmi", "nmi_bound", "effective_rank", "diversity", "diversity_bound", "spread"),
        *("mean_entropy", "distance_ratio", "locality_1", "nmi_se", "diversity_se"),
    }
    assert run.correlations["cluster"].null_count
    assert not any(
        run.correlations[name].null_count for name in run.correlations.column_names if name != "cluster"
    )
