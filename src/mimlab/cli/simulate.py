"""`mimlab simulate`: one world."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mimlab.cli.console import show_simulation
from mimlab.cli.flags import configured, pair
from mimlab.cli.session import Session
from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import build
from mimlab.studies.single import run_simulation


@configured(SimulationConfig)
def simulate(
    mapping: Mapping[str, Any],
    *,
    out: Path | None = None,
    overwrite: bool = False,
    query_at: str | None = None,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Simulate one world, and judge the claims on it.

    The world comes from CONFIG.toml, from flags, or from both; a flag overrides
    its key in the file.

    Examples:

      mimlab simulate --area-sizes 40 8 8 8 --out runs/small
      mimlab simulate --patches 1e5 --global-exponent 0.9 --local-exponent 0.3
      mimlab simulate config.toml --engine mean-field --out runs/huge
      mimlab simulate --image photo.jpg --query-at 120,80 --out runs/photo

    Parameters
    ----------
    out
        Folder of the run; without it nothing is written. Refused where it is not empty.
    overwrite
        Replace the run at --out, once the new one is whole.
    query_at
        X,Y in pixels of the photograph: simulate the patch there, and draw over the photograph where its
        attention goes.
    json
        Print the summary as JSON on stdout, and nothing else.
    """
    config = build(SimulationConfig, mapping)
    with session.progress() as progress:
        simulation = run_simulation(
            config,
            out,
            overwrite=overwrite,
            query_at=None if query_at is None else pair(query_at, "--query-at"),
            command=session.command,
            progress=progress,
        )
    return session.finish(simulation.summary, show_simulation, json=json, out=out)
