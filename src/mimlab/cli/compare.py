"""`mimlab compare`: runs of the probe or of pretraining beside each other."""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mimlab.cli.console import show_comparison
from mimlab.cli.session import Session
from mimlab.studies.comparison import run_comparison


def compare(
    runs: list[Path],
    /,
    *,
    out: Path,
    overwrite: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Put runs beside each other, in one table and one page.

    Nothing is measured again. Where the runs differ in what must be alike for
    a comparison, as in the number of patches, it is said. Of pretraining runs
    the page shows how attention formed in each; beside runs of the probe they
    stand with the end of their training.

    Examples:

      mimlab compare runs/simmim runs/simclr --out runs/both

    Parameters
    ----------
    runs
        Folders that mimlab probe or mimlab pretrain wrote, at least two.
    out
        Folder of the comparison. Refused where it is not empty.
    overwrite
        Replace what is at --out, once the new one is whole.
    json
        Print the summary as JSON on stdout, and nothing else.
    """
    summary, layers = run_comparison(runs, out, overwrite=overwrite, command=session.command)
    return session.finish(summary, partial(show_comparison, layers=layers), json=json, out=out)
