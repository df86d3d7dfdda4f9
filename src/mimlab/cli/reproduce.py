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
    published: Annotated[list[str] | None, Parameter(consume_multiple=1)] = None,
    images: Annotated[list[Path] | None, Parameter(consume_multiple=1)] = None,
    overwrite: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Judge every claim of the theory, and write the report.

    Runs synthetic worlds with an information gap above and below 0 and real
    photographs, in about three minutes on two cores; prints a verdict on each
    claim, and writes the figures and report.html. The paper's comparison of
    pretrained models needs their weights, which are not downloaded: without
    --published the report says where they are.

    Examples:

      mimlab reproduce --out runs/reproduce
      mimlab reproduce --published weights/ --images photos/ --out runs/reproduce

    Parameters
    ----------
    out
        Folder of the report. Refused where it is not empty.
    published
        Pretrained ViT-B/16 of MAE, MoCo v3, DINO and DeiT: a folder that holds the published files, or models by
        name, as mimlab probe takes them, the method being part of the name (mae.pth, facebook/dino-vitb16).
    images
        Folders of images, or images, for --published; without it scikit-image's photographs.
    overwrite
        Replace the report at --out, once the new one is whole.
    json
        Print the verdicts as JSON on stdout, and nothing else.
    """
    with session.progress() as progress:
        result = run_reproduce(
            out,
            published=published or (),
            images=images,
            overwrite=overwrite,
            command=session.command,
            progress=progress,
        )
    return session.finish(result, show_verdicts, json=json, out=out)
