"""`mimlab gap`: the information gap of photographs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mimlab.cli.console import show_gap
from mimlab.cli.session import Session
from mimlab.studies.photographs import run_gap


def gap(
    images: list[Path],
    /,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    patch_size: int = 16,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Measure the information gap of photographs.

    Each photograph's grid of patches is divided into areas of like appearance.
    Their sizes give the exponents of the global and of the local areas, the
    information gap Δ, the gap Δ_p of every local patch, and with them what the
    theory predicts: two phases of learning above 0, one below.

    Examples:

      mimlab gap photo.jpg
      mimlab gap holiday/*.jpg --patch-size 32 --out runs/holiday

    Parameters
    ----------
    images
        Photographs, or folders of them; in a folder, what cannot be used is skipped and said.
    out
        Folder for the tables and figures; without it nothing is written. Refused where it is not empty.
    overwrite
        Replace the run at --out, once the new one is whole.
    patch_size
        Side of a patch in pixels.
    json
        Print the result as JSON on stdout, and nothing else.
    """
    with session.progress() as progress:
        result = run_gap(
            images,
            out,
            overwrite=overwrite,
            patch_size=patch_size,
            command=session.command,
            progress=progress,
        )
    return session.finish(result, show_gap, json=json, out=out)
