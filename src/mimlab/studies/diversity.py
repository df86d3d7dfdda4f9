"""Diversity in theory beside that of trained networks: runs of the whole map, judged, and one figure for both.

What is measured here is the map on an unmasked image (docs/diversity.md); networks' values are the recorded ones of
`studies.trained`, made by this reproduction or an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.claims.diversity import LEAK, MAP_CLAIMS, areas_bound
from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import build, merge
from mimlab.runs.tables import read_table, write_table
from mimlab.studies.commands import command_for
from mimlab.studies.outcomes import Job, Outcome, Setting
from mimlab.studies.single import Simulation, simulate_config, write_tables
from mimlab.studies.worlds import LOCAL_AND_EVEN, LOCAL_AND_LARGE, VARYING, Run
from mimlab.world.photograph import bundled_photographs

JOB = "diversity"
FIGURE = "figures/diversity.png"
TABLE = "diversity.parquet"
NETWORKS = "training/looks.parquet"
"""Networks' statistics, by folder of a reproduction."""
HELD_OUT = ("camera", "chelsea", "coffee")
"""Photographs on which the networks' attention was measured."""

_MASKED = {"dynamics": {"engine": "mean-field", "query": "all"}}
_CONTRASTIVE = {
    "world": {"clusters": 4, "latent": VARYING},
    "objective": {"name": "contrastive"},
    "dynamics": {
        **{"engine": "mean-field", "start": 1.0, "draws": 128},
        **{"integrator": "descent", "learning_rate": 1500.0, "steps": 1200},
    },
}
_LARGE = {"area_sizes": [40, *[8] * 5]}  # Δ = 0.21
_EVEN = {"area_sizes": [16, *[8] * 8]}  # Δ = -0.21


def _masked(world: Mapping[str, Any], **dynamics: Any) -> dict[str, Any]:
    return merge(_MASKED, {"world": dict(world), "dynamics": dynamics})


RUNS: tuple[Run, ...] = (
    Run("masked-large", "masked, Δ = 0.5, P = 10⁴", _masked(LOCAL_AND_LARGE)),
    Run("masked-even", "masked, Δ = -0.2, P = 10⁴", _masked(LOCAL_AND_EVEN)),
    Run("masked-far", "masked, Δ = 0.5, P = 10¹²", _masked({**LOCAL_AND_LARGE, "patches": 10**12})),
    Run("masked-small", "masked, Δ = 0.2, P = 80", _masked({**_LARGE, "latent": VARYING})),
    Run("masked-small-even", "masked, Δ = -0.2, P = 80", _masked({**_EVEN, "latent": VARYING})),
    Run(
        "masked-early",
        "masked, Δ = 0.5, P = 10⁴, stopped at a third of the local patches' half-attention time",
        _masked(LOCAL_AND_LARGE, learning_rate=1.0, steps=1000),
        expected={"NMI of a converged masked model": "fails", "NMI by area sizes": "fails"},
    ),
    Run(
        "contrastive-large",
        "contrastive, Δ = 0.2, P = 80, from a random start",
        merge(_CONTRASTIVE, {"world": _LARGE}),
    ),
    Run(
        "contrastive-even",
        "contrastive, Δ = -0.2, P = 80, from a random start",
        merge(_CONTRASTIVE, {"world": _EVEN}),
    ),
    Run(
        "contrastive-apart",
        "contrastive, Δ = 0.2, P = 80, positions apart, from a random start",
        merge(_CONTRASTIVE, {"world": _LARGE, "dynamics": {"start_alike": "nothing", "draws": 64}}),
        expected=dict.fromkeys(("contrastive NMI", "contrastive diversity"), "fails"),
    ),
    Run(
        "contrastive-blind",
        "contrastive, nothing to tell: one cluster, constant latents, P = 80, from a random start",
        merge(
            _CONTRASTIVE,
            {
                "world": {**_LARGE, "clusters": 1, "latent": {"low": 1.0, "high": 1.0}},
                "dynamics": {"steps": 100},  # none of them moves anything
            },
        ),
        expected=dict.fromkeys(("contrastive NMI", "contrastive diversity"), "fails"),
    ),
)

SCHEMA = pa.schema(
    [("world", pa.string()), ("label", pa.string()), ("objective", pa.string()), ("patches", pa.int64())]
    + [
        (name, pa.float64())
        for name in (
            *("nmi", "nmi_se", "nmi_start", "nmi_bound", "nmi_areas", "nmi_areas_leak"),
            *("diversity", "diversity_se", "diversity_start", "diversity_bound"),
            *("spread", "mean_entropy", "distance_ratio", "locality_1"),
        )
    ]
)


def jobs() -> list[Job]:
    """A job for each run, the longest first, and for each photograph."""
    ordered = sorted(RUNS, key=lambda run: run.name.startswith("masked"))
    photographs = [
        Run(f"masked-{name}", f"masked, photograph {name}", _masked({"image": str(path)}))
        for name, path in bundled_photographs().items()
        if name in HELD_OUT
    ]
    return [partial(_run, one) for one in (*ordered, *photographs)]


def _run(run: Run, folder: Path) -> Outcome:
    config = build(SimulationConfig, run.config)
    simulation = simulate_config(config)
    home = folder / "worlds" / run.name
    home.mkdir()
    write_tables(simulation, home)
    setting = Setting(run.name, run.label, run.expected, command_for(config, f"runs/{run.name}"))
    names = {claim.name for claim in MAP_CLAIMS}
    judged = [verdict for verdict in simulation.summary["claims"] if verdict["claim"] in names]
    return Outcome(
        f"{JOB} {run.name}",
        setting.records(judged, FIGURE),
        statuses=[simulation.summary["status"]],
        records=[record_of(simulation, run.name, run.label)],
    )


def record_of(simulation: Simulation, world: str, label: str) -> dict[str, Any]:
    """A row of the table: the map's statistics at the end, NMI and diversity at the start, and the bounds."""
    rows, summary = simulation.trajectory.to_pylist(), simulation.summary
    first, last = rows[0], rows[-1]
    known = {
        "world": world,
        "label": label,
        "objective": summary["objective"],
        "patches": summary["patches"],
        "nmi_start": first["nmi"],
        "diversity_start": first["diversity"],
        "nmi_areas": areas_bound(summary["area_sizes"]),
        "nmi_areas_leak": areas_bound(summary["area_sizes"], LEAK),
    }
    return {name: (last | known)[name] for name in SCHEMA.names}


def beside_networks(outcomes: Sequence[Outcome], folder: Path) -> Outcome:
    """The table, figure and section of the runs that `jobs` made, networks beside them where there are any."""
    from mimlab.report import Section
    from mimlab.report.diversity import draw_diversity

    records = [record for one in outcomes if one.job.startswith(f"{JOB} ") for record in one.records]
    records.sort(key=lambda record: record["objective"] != "masked")
    if not records:
        return Outcome(JOB)
    write_table(folder / TABLE, pa.Table.from_pylist(records, schema=SCHEMA))
    networks = folder / NETWORKS
    draw_diversity(records, read_table(networks) if networks.is_file() else None, folder / FIGURE)
    section = Section(
        "Diversity, in theory and in networks",
        "How much attention depends on the query, at the end of training: the simulator's layer on an unmasked "
        "image above, networks of this reproduction or the recorded one below, a dot for each layer, mean over heads "
        "and seeds. Black: the least that the layer's attention on own areas allows, whatever else it does. Rings: "
        "the start.",
        figures=[FIGURE],
        rows=[_row(record) for record in records],
    )
    return Outcome(JOB, figures={JOB: [FIGURE]}, sections=[section])


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    titles = {
        "nmi": "NMI",
        "nmi_bound": "bound",
        "nmi_areas": "of even areas",
        "diversity": "diversity",
        "spread": "spread",
        "mean_entropy": "entropy",
        "distance_ratio": "distance ratio",
    }
    numbers = {
        title: None if record[name] is None else round(record[name], 4) for name, title in titles.items()
    }
    return {"world": record["label"], "patches": record["patches"]} | numbers
