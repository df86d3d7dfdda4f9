"""`mimlab reproduce`: every claim."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mimlab.cli.console import show_verdicts
from mimlab.cli.session import Session
from mimlab.studies.reproduction import run_reproduce


def reproduce(
    *,
    out: Path,
    overwrite: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Judge every claim of the theory, and write the report.

    Runs synthetic worlds with an information gap above and below 0 and real
    photographs, in about three minutes on two cores; prints a verdict on each
    claim, and writes the figures and report.html.

    Examples:

      mimlab reproduce --out runs/reproduce

    Parameters
    ----------
    out
        Folder of the report. Refused where it is not empty.
    overwrite
        Replace the report at --out, once the new one is whole.
    json
        Print the verdicts as JSON on stdout, and nothing else.
    """
    with session.progress() as progress:
        result = run_reproduce(out, overwrite=overwrite, command=session.command, progress=progress)
    return session.finish(result, show_verdicts, json=json, out=out)
