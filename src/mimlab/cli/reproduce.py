"""`mimlab reproduce`: every claim."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mimlab.cli.console import show_verdicts
from mimlab.cli.session import Session
from mimlab.studies.reproduction import run_reproduce


def reproduce(
    *,
    out: Path,
    published: Annotated[list[str] | None, Parameter(consume_multiple=1)] = None,
    images: Annotated[list[Path] | None, Parameter(consume_multiple=1)] = None,
    with_training: Annotated[bool | Literal["full"], Parameter(negative=())] = False,
    overwrite: bool = False,
    resume: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Judge every claim of the theory, and write the report.

    Runs synthetic worlds with an information gap above and below 0 and real
    photographs, in about three minutes on two cores; prints a verdict on each
    claim, and writes the figures and report.html. The paper's comparison of
    pretrained models needs their weights, which are not downloaded: without
    --published the report says where they are. Networks are trained with
    --with-training only, half an hour longer; without it the claims on them are
    judged on what was recorded.

    Examples:

      mimlab reproduce --out runs/reproduce
      mimlab reproduce --published weights/ --images photos/ --out runs/reproduce
      mimlab reproduce --with-training --out runs/reproduce
      mimlab reproduce --with-training=full --out runs/reproduce --resume

    Parameters
    ----------
    out
        Folder of the report. Refused where it is not empty.
    published
        Pretrained ViT-B/16 of MAE, MoCo v3, DINO and DeiT: a folder that holds the published files, or models by
        name, as mimlab probe takes them, the method being part of the name (mae.pth, facebook/dino-vitb16).
    images
        Folders of images, or images, for --published; without it scikit-image's photographs.
    with_training
        Train networks by masked, contrastive and supervised objectives, three seeds each, about two minutes a run
        on two cores; "full": by more objectives, and on rendered worlds.
    overwrite
        Replace the report at --out, once the new one is whole.
    resume
        Go on with an interrupted reproduction --with-training; networks that are done are kept.
    json
        Print the verdicts as JSON on stdout, and nothing else.
    """
    with session.resumable(out), session.progress() as progress:
        result = run_reproduce(
            out,
            published=published or (),
            images=images,
            training=("full" if with_training == "full" else "default") if with_training else None,
            overwrite=overwrite,
            resume=resume,
            command=session.command,
            progress=progress,
        )
    return session.finish(result, show_verdicts, json=json, out=out)
