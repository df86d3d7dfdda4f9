"""The worlds behind the page's sliders, and the photograph whose every patch is asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import mimlab
from mimlab.runs.tables import read_table
from mimlab.studies import every_query, explored
from mimlab.studies.every_query import PHOTOGRAPH_SCHEMA, attention_by_area
from mimlab.studies.explored import EXPLORER_SCHEMA, GRIDS, explore
from mimlab.studies.outcomes import Outcome
from mimlab.studies.single import simulate_config


def test_both_objectives_are_followed_on_the_same_worlds():
    """Or the page would compare worlds where it says objectives."""
    masked, contrastive = ({c.world for c in grid.configs()} for grid in GRIDS)
    assert contrastive < masked
    ratios = [{c.objective.mask_ratio for c in grid.configs()} for grid in GRIDS]
    assert ratios[1] < ratios[0]
    names = [grid.objective().name for grid in GRIDS]
    assert names == ["masked", "contrastive"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("explored")
    (folder / "worlds").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explored, "PATCHES", 200)
        patch.setattr(explored, "DRAWS", 64)
        grids = [replace(grid, global_exponents=(0.9,), latents=((0.5, 1.5),)) for grid in GRIDS]
        patch.setattr(explored, "GRIDS", tuple(grids))
        outcome = explore(folder)
    return folder, outcome


def test_the_table_has_every_run_as_simulated(small):
    folder, outcome = small
    table = read_table(folder / "worlds/explorer.parquet")
    assert table.schema.equals(EXPLORER_SCHEMA)
    assert sorted(set(table["run"].to_pylist())) == [0, 1, 2, 3, 4] and outcome.statuses == ["stopped"] * 5
    one = table.filter(pc.equal(table["run"], 2))
    world = mimlab.World(
        patches=200, global_exponent=0.9, local_exponent=0.3, clusters=4, latent=mimlab.Latent(0.5, 1.5)
    )
    again = mimlab.simulate(world, mimlab.MaskedReconstruction(mask_ratio=0.75), engine="mean-field")
    assert set(one["mask_ratio"].to_pylist()) == {0.75}
    for name in ("time", "attention_own", "attention_global", "phi_own", "phi_global"):
        assert one[name].to_pylist() == again.trajectory[name].to_pylist()
    for phase in again.summary["phases"]:
        inside = [
            r["phase"] == phase["name"] for r in one.to_pylist() if phase["start"] < r["time"] <= phase["end"]
        ]
        assert inside and all(inside)


def test_only_a_contrastive_run_has_errors(small):
    table = read_table(small[0] / "worlds/explorer.parquet")
    masked, contrastive = (
        table.filter(pc.equal(table["objective"], name)) for name in ("masked", "contrastive")
    )
    for name in ("attention_own_se", "phi_global_se"):
        assert masked[name].null_count == masked.num_rows
        assert contrastive[name].null_count < contrastive.num_rows / 10
    assert not table["phase"].null_count


def test_attention_of_every_class_over_a_photograph_sums_to_one(tmp_path):
    (tmp_path / "worlds").mkdir()
    outcome = every_query.ask_photograph(tmp_path)
    table = read_table(tmp_path / "worlds/photograph.parquet")
    assert table.schema.equals(PHOTOGRAPH_SCHEMA)
    rows = table.to_pylist()
    total: dict[tuple[int, float], float] = {}
    for row in rows:
        key = row["query"], row["time"]
        total[key] = total.get(key, 0.0) + row["patches"] * row["attention"]
    np.testing.assert_allclose(list(total.values()), 1, rtol=1e-12)
    times = sorted({time for _, time in total})
    assert len(times) == every_query.MOMENTS and times[0] == 0
    (section,) = outcome.sections
    flat = np.array(section.widget.data["areas"])
    assert len(total) == len(times) * len({(area == 0, (flat == area).sum()) for area in flat})
    at_the_end = [row for row in rows if row["time"] == times[-1] and row["area"] == row["query_area"]]
    for row in at_the_end:  # masked it puts 0.99 on its own area; unmasked, where all of it shows, more
        assert row["patches"] * row["attention"] > 0.99 - 1 / row["patches"], row


def test_the_moments_of_a_world_where_nothing_is_learned_are_its_ends():
    """Single patches have nothing to attend to: no row has a half-attention time."""
    config = mimlab.simulate(mimlab.World(area_sizes=(1, 1, 1, 1)), engine="mean-field", query="all").config
    table = attention_by_area(simulate_config(config), "none")
    assert len(set(table["time"].to_pylist())) == 2
