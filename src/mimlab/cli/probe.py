"""`mimlab probe`: what the attention of vision transformers does."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mimlab.cli.console import show_probe
from mimlab.cli.session import Session
from mimlab.runs import InputError, RunDirectory, build, check, read_toml
from mimlab.runs.flags import read_flag
from mimlab.runs.schema import keys
from mimlab.studies.probe import run_probe
from mimlab.studies.probe_config import ProbeConfig

Several = Annotated[list[str] | None, Parameter(consume_multiple=1)]


def probe(
    models: list[str],
    /,
    *,
    out: Path,
    images: Annotated[list[Path] | None, Parameter(consume_multiple=1)] = None,
    statistics: Several = None,
    layers: Several = None,
    heads: Several = None,
    batch_size: int | None = None,
    method: str | None = None,
    shares: bool | None = None,
    permutations: int | None = None,
    random_weights: Annotated[bool | None, Parameter(negative="--no-random-weights")] = None,
    device: str | None = None,
    dtype: str | None = None,
    checkpoint_heads: int | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Measure how diverse and how local the attention of vision transformers is.

    Every self-attention is measured while the model runs, image by image, layer by
    layer and head by head: how far it reaches, how widely it spreads, how much
    it differs between queries. Beside it stand the same architecture with random
    weights, uniform attention, and identity.

    A model is a directory or name of Hugging Face transformers, a timm name, a file
    of published weights (MAE, MoCo v3, DINO, DINOv2, DeiT), or module:function of
    your own. A config.toml of an earlier run repeats it; flags override its keys.

    Examples:

      mimlab probe facebook/vit-mae-base --out runs/mae
      mimlab probe ./my-vit mae_pretrain_vit_base.pth --images photos --out runs/two
      mimlab probe runs/two/config.toml --statistics all --out runs/more

    Parameters
    ----------
    models
        Models by name, at least one; or one config.toml.
    out
        Folder of the run. Refused where it is not empty.
    images
        Folders of images, or images; without it scikit-image's photographs. What cannot be used is skipped
        and listed.
    statistics
        "core" (the default), "all", or names of statistics.
    layers
        Layers by their place in the forward pass, from 0, or by module name; without it all.
    heads
        Heads by number, from 0; without it all.
    batch_size
        Images in one forward pass; 8 unless given. The positional statistics average over these.
    method
        How attention is computed: auto (the default), tiles, compiled, triton.
    shares
        Estimate also the shares of logit variance (position, content, ...), from images whose patches are permuted.
    permutations
        Permutations of each image for --shares, 16 unless given; so many images go through the model at once.
    random_weights
        Measure each architecture with random weights, too: done unless --no-random-weights is given.
    device
        Where the models run: cpu (the default), cuda, cuda:1.
    dtype
        What the models compute in: float32 (the default), bfloat16, float16.
    checkpoint_heads
        Attention heads of a file of weights whose sizes are unusual; without it as published.
    seed
        Draws of the random weights and of the permutations; 0 unless given.
    overwrite
        Replace the run at --out, once the new one is whole.
    resume
        Go on with an interrupted run of the same inputs.
    json
        Print the summary as JSON on stdout, and nothing else.
    """
    given: dict[str, Any] = {
        "images": images,
        "statistics": _read("statistics", statistics),
        "layers": _read("layers", layers),
        "heads": _read("heads", heads),
        "batch_size": batch_size,
        "method": method,
        "shares": shares,
        "permutations": permutations,
        "random_weights": random_weights,
        "device": device,
        "dtype": dtype,
        "checkpoint_heads": checkpoint_heads,
        "seed": seed,
    }
    given = {key: value for key, value in given.items() if value is not None}
    config = build(ProbeConfig, {**_named(models), **given}, "probe")
    directory = RunDirectory(out, overwrite=overwrite)
    directory.check()
    if resume and not (directory.partial / "inputs.json").exists():
        session.tell(f"{directory.partial} holds no interrupted run to resume: beginning afresh")
    with session.resumable(out, "measured"), session.progress() as progress:
        summary, means = run_probe(
            config, out, overwrite=overwrite, resume=resume, command=session.command, progress=progress
        )
    return session.finish(summary, partial(show_probe, layers=means), json=json, out=out)


def _named(models: list[str]) -> dict[str, Any]:
    """The models, or all that an earlier run's config.toml says."""
    files = [name for name in models if name.endswith(".toml")]
    if not files:
        return {"models": models}
    if len(models) > 1:
        raise InputError(f"give models or one config.toml, not {files[0]} among others")
    return check(ProbeConfig, read_toml(files[0]), files[0])


def _read(name: str, words: list[str] | None) -> object:
    """What was typed after the flag of a key that is a list: words apart, or with commas between."""
    key = next(key for key in keys(ProbeConfig) if key.name == name)
    return None if words is None else read_flag(key, words)
