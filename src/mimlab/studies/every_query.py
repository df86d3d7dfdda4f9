"""A photograph whose every patch is asked where it attends, for ``mimlab reproduce``'s page.

Patches of areas of one size are interchangeable, so one row a class of them is enough; in mean field, which takes a
second for all of them and whose half-attention times lie within 4% of the sampled engine's here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.dynamics.rows import RowRun
from mimlab.dynamics.tables import attention_map
from mimlab.runs.tables import write_table
from mimlab.studies.outcomes import AGAIN, Outcome
from mimlab.studies.single import Simulation, simulate_config
from mimlab.world.photograph import bundled_photographs
from mimlab.world.world import World

ASKED = "coffee"
"""The photograph: gaps on both sides of 0, and areas that a reader can name."""
MOMENTS = 24
"""Times that are kept, the start among them."""
BEFORE = 30
"""The second is so many times earlier than the first half-attention time."""
PHOTOGRAPH_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("query", pa.int64()),
        ("query_area", pa.int64()),
        ("time", pa.float64()),
        ("area", pa.int64()),
        ("patches", pa.int64()),
        ("attention", pa.float64()),
    ]
)


def ask_photograph(folder: Path) -> Outcome:
    """Follow a query of each class, write worlds/photograph.parquet, and give the part of the page that shows it."""
    from mimlab.report import photograph_section

    path = bundled_photographs()[ASKED]
    config = SimulationConfig(World(image=str(path)), dynamics=Dynamics("mean-field", query="all"))
    simulation = simulate_config(config)
    table = attention_by_area(simulation, path.name)
    write_table(folder / "worlds/photograph.parquet", table)
    areas = config.world.photograph
    gaps = {
        query["area_size"]: query["patch_gap"] for query in simulation.summary["queries"] if query["area"]
    }
    section = photograph_section(
        f"Ask a patch: {ASKED}",
        f"The attention that a patch of the photograph has for every other, at {MOMENTS} times of training (mean "
        "field, constant latents, the photograph unmasked). The scale runs from 0 to the largest attention shown.",
        areas.pixels,
        areas.labels,
        table,
        gaps,
        AGAIN,
    )
    return Outcome(f"every patch of {ASKED}", statuses=[simulation.summary["status"]], sections=[section])


def attention_by_area(simulation: Simulation, image: str) -> pa.Table:
    """Of each query followed: its attention, at the moments kept, for itself (area null) and for one patch of each
    area, with how many patches it stands for; see PHOTOGRAPH_SCHEMA."""
    base, mean = simulation.config.world.base, simulation.config.world.latent.mean
    labels = base.all_labels()
    moments = _moments(simulation)
    records = []
    for run in simulation.rows:
        query = run.row.query
        others = [
            np.flatnonzero((labels == area) & (np.arange(len(labels)) != query)) for area in range(base.areas)
        ]
        for moment in moments:
            weights = attention_map(run, simulation.layout, moment, mean)
            told: list[tuple[int | None, int, float]] = [(None, 1, weights[query])]
            told += [(area, len(those), weights[those[0]]) for area, those in enumerate(others) if len(those)]
            records += [
                {
                    "image": image,
                    "query": query,
                    "query_area": base.area_of(query),
                    "time": float(run.path.times[moment]),
                    "area": area,
                    "patches": patches,
                    "attention": float(weight),
                }
                for area, patches, weight in told
            ]
    return pa.Table.from_pylist(records, schema=PHOTOGRAPH_SCHEMA)


def _moments(simulation: Simulation) -> list[int]:
    """Records to keep, the same of all rows: the start, and from before any row has learned to when the last one that
    does stops. A lone patch never learns, and its row goes on to the end of all time."""
    times = simulation.rows[0].path.times
    learned = [run for run in simulation.rows if run.path.half_time is not None]
    if not learned:
        return sorted({0, len(times) - 1})
    first = min(float(run.path.half_time or 0.0) for run in learned) / BEFORE
    last = max(_stopped(run, simulation.config.dynamics.stop_attention) for run in learned)
    wanted = np.geomspace(first, last, MOMENTS - 1)
    return sorted({0, *(int(np.argmin(np.abs(times - time))) for time in wanted)})


def _stopped(run: RowRun, stop_attention: float) -> float:
    """When a row reached the attention that it stops at, or its last time."""
    reached = np.flatnonzero(run.measures["attention_own"] >= stop_attention)
    return float(run.path.times[reached[0] if len(reached) else -1])
