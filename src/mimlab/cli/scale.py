"""`mimlab scale`: one world over a range of P."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mimlab.cli.console import show_exponents, show_rates
from mimlab.cli.flags import configured
from mimlab.cli.session import Session
from mimlab.dynamics.config import SimulationConfig
from mimlab.runs.axes import read_axis
from mimlab.studies.rates import run_rates
from mimlab.studies.scaling import DEFAULTS, run_scale


@configured(SimulationConfig, without=("world.patches",), defaults=DEFAULTS)
def scale(
    mapping: Mapping[str, Any],
    *,
    patches: Annotated[tuple[float, float], Parameter(metavar="LOW HIGH")],
    points: int = 9,
    over: Annotated[list[str] | None, Parameter(consume_multiple=1, negative=())] = None,
    out: Path,
    overwrite: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Simulate one world over a range of P, and fit its exponents.

    The world of CONFIG.toml, or of the flags, is simulated at log-spaced numbers
    of patches, up to half attention unless stop_attention says otherwise. The
    exponents of the half-attention time and of the final stage come with their
    intervals, beside the bounds of the theory.

    Examples:

      mimlab scale config.toml --patches 1e4 1e12 --out runs/scale
      mimlab scale --global-exponent 0.9 --local-exponent 0.3 \\
          --engine mean-field --patches 1e4 1e12 --out runs/scale
      mimlab scale --patches 1e4 1e12 --over world.local_exponent=0.1:0.5:5 \\
          --over world.global_exponent=0.6,0.95 --out runs/rates
      mimlab scale --patches 1e3 1e5 --points 5 --global-exponent 0.9 \\
          --local-exponent 0.3 --over dynamics.engine=sampled,mean-field \\
          --over 'world.latent={"low":0.5,"high":1.5},{"values":[0.2,1.8]}' --out runs/laws

    Parameters
    ----------
    patches
        The least and the largest P. The file needs no patches of its own.
    points
        How many values of P, the two included.
    over
        A key and the values that it takes, KEY=LOW:HIGH:NUMBER, with :log for even
        logarithms, or KEY=A,B,C. Given several times, axes are crossed; every point
        of theirs is a series over P.
    out
        Folder of the run. Refused where it is not empty.
    overwrite
        Replace the run at --out, once the new one is whole.
    json
        Print the summary as JSON on stdout, and nothing else.
    """
    low, high = patches
    axes = [read_axis(text, SimulationConfig) for text in over or ()]
    run = partial(run_rates, axes=axes) if axes else run_scale
    with session.progress() as progress:
        result = run(
            dict(mapping),
            out,
            low=low,
            high=high,
            points=points,
            overwrite=overwrite,
            command=session.command,
            progress=progress,
        )
    return session.finish(result, show_rates if axes else show_exponents, json=json, out=out)
