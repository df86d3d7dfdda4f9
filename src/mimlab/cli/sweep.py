"""`mimlab sweep`: many worlds at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mimlab.cli.console import show_sweep
from mimlab.cli.flags import configured
from mimlab.cli.session import Session
from mimlab.dynamics.config import SimulationConfig
from mimlab.studies.sweep import is_interrupted, run_sweep
from mimlab.studies.sweep_plan import Plan


@configured(SimulationConfig)
def sweep(
    mapping: Mapping[str, Any],
    *,
    over: Annotated[list[str], Parameter(metavar="KEY=VALUES")],
    out: Path,
    design: str = "grid",
    points: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Simulate many worlds, over axes of any keys, and judge the claims on each.

    The configuration of CONFIG.toml, or of the flags, is the base; each --over is an
    axis: a key of it with a range, low:high:number or low:high:number:log, or values
    with commas between. Points run on all cores, or on a dask cluster; each that is
    done is kept, so that an interrupted sweep goes on with --resume. A point that
    cannot run is a row that says why.

    Examples:

      mimlab sweep config.toml --over world.local_exponent=0.1:0.5:9 --out runs/sweep
      mimlab sweep config.toml --over world.patches=1e3:1e6:4:log \\
          --over dynamics.engine=sampled,mean-field --out runs/grid
      mimlab sweep config.toml --over objective.mask_ratio=0.1:0.9:9 --over seed=0,1,2 \\
          --design one-at-a-time --out runs/survival
      mimlab sweep config.toml --over world.local_exponent=0.1:0.6:2 \\
          --design random --points 1000 --scheduler tcp://head:8786 --out runs/random

    Parameters
    ----------
    over
        An axis, such as world.latent.high=1:3:5; give one --over for each.
    out
        Folder of the sweep. Refused where it is not empty. While it lasts, the sweep is in OUT.partial.
    design
        grid (every combination), random (draws, uniform in each range, of the seed of the configuration) or
        one-at-a-time (the base, then each axis alone; an axis over seed is crossed with all), which says at what
        value of each axis each claim fails first.
    points
        How many points; for random alone.
    workers
        Processes on this machine; one per core unless given.
    scheduler
        Address of a dask scheduler, whose workers run the points in place of this machine's.
    overwrite
        Replace the run at --out, once the new one is whole.
    resume
        Go on with an interrupted sweep of the same configuration, axes and design.
    json
        Print the summary as JSON on stdout, and nothing else.
    """
    plan = Plan.read(mapping, over, design, points)
    if resume and not is_interrupted(out):
        session.tell(f"{out}.partial holds no interrupted sweep to resume: beginning afresh")
    with session.resumable(out, "simulated"), session.progress() as progress:
        summary, _ = run_sweep(
            plan,
            out,
            number=workers,
            scheduler=scheduler,
            overwrite=overwrite,
            resume=resume,
            command=session.command,
            progress=progress,
        )
    return session.finish(summary, show_sweep, json=json, out=out)
