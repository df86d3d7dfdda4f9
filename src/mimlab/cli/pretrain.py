"""`mimlab pretrain`: train a vision transformer, and watch its attention form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mimlab.cli.console import show_pretraining
from mimlab.cli.flags import configured
from mimlab.cli.session import Session
from mimlab.runs import build
from mimlab.studies.pretrain import run_pretrain
from mimlab.training.config import PretrainConfig
from mimlab.training.presets import with_preset


@configured(PretrainConfig)
def pretrain(
    mapping: Mapping[str, Any],
    *,
    out: Path,
    preset: str = "laptop",
    overwrite: bool = False,
    resume: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Pretrain a vision transformer, and watch its attention form.

    Sizes and schedule come from a preset, from CONFIG.toml, and from flags; a flag
    overrides the file, and the file the preset. Without --images it trains on
    photographs that come with its dependencies, and downloads nothing.

    Examples:

      mimlab pretrain --objective simmim --out runs/simmim
      mimlab pretrain --objective simclr --start runs/simmim --out runs/after
      mimlab pretrain --images photos --mask-ratio 0.75 --max-minutes 30 --out runs/mine
      mimlab pretrain --objective simmim --out runs/simmim --resume

    Parameters
    ----------
    out
        Folder of the run. Refused where it is not empty. While it lasts, the run is in OUT.partial.
    preset
        laptop (two cores, minutes), workstation (one GPU) or imagenet (eight GPUs, after the papers). Defaults
        below are simmim's on a laptop; steps, rates and batches depend on the objective.
    overwrite
        Replace the run at --out, once the new one is whole.
    resume
        Go on with an interrupted run, or one whose minutes were over, of the same configuration; begin where there
        is none.
    json
        Print the summary as JSON on stdout, and nothing else.
    """
    config = build(PretrainConfig, with_preset(preset, mapping), "mimlab pretrain")
    with session.resumable(out), session.progress() as progress:
        run = run_pretrain(
            config,
            out,
            overwrite=overwrite,
            resume=resume,
            command=session.command,
            progress=progress,
            tell=session.tell,
        )
    return 0 if not run.log else session.finish(run.summary, show_pretraining, json=json, out=out)
