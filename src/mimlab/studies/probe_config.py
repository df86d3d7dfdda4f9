"""What a probe run is asked to do: every input, so that the run can be repeated from what it stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimlab.runs import InputError
from mimlab.runs.checks import whole_number


@dataclass(frozen=True)
class ProbeConfig:
    """Models, images and statistics of one probe run. Raises InputError for what does not go together.

    Parameters
    ----------
    models
        Names of models; see `mimlab.probing.models.load_model`.
    images
        Folders or files; without it scikit-image's photographs.
    statistics
        Names of statistics, or "core", or "all".
    layers
        Places in the forward pass, from 0, or names of modules; without it all.
    heads
        Numbers from 0; without it all.
    batch_size
        Images in one forward pass. The positional statistics average over these.
    method
        How attention is computed: "auto" takes the fastest that can be had.
    shares
        Estimate the shares of logit variance, on images whose patches are permuted.
    permutations
        Permutations of each image for the shares: so many images go through the model at once.
    random_weights
        Measure each architecture with weights drawn anew, too.
    device
        Where the models run: cpu, cuda, cuda:1.
    dtype
        What the models compute in; statistics are computed in float32 or better whatever it is.
    checkpoint_heads
        Attention heads of a bare checkpoint that does not tell; without it, as published.
    seed
        Draws of the random weights and of the permutations.
    """

    models: tuple[str, ...]
    images: tuple[Path, ...] | None = None
    statistics: tuple[str, ...] = ("core",)
    layers: tuple[int | str, ...] | None = None
    heads: tuple[int, ...] | None = None
    batch_size: int = 8
    method: Literal["auto", "tiles", "compiled", "triton"] = "auto"
    shares: bool = False
    permutations: int = 16
    random_weights: bool = True
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpoint_heads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("models: give at least one model")
        twice = [name for name, count in Counter(self.models).items() if count > 1]
        if twice:
            raise InputError(f"models: {', '.join(twice)} is given more than once; once is enough")
        if self.images == ():
            raise InputError(
                "images: the list is empty; give folders or files, or leave it out for scikit-image's photographs"
            )
        if not self.statistics:
            raise InputError("statistics: give at least one, or core, or all")
        whole_number("batch_size", self.batch_size)
        whole_number("permutations", self.permutations, least=2)
        whole_number("seed", self.seed, least=0)
        if self.checkpoint_heads is not None:
            whole_number("checkpoint_heads", self.checkpoint_heads)
        if self.heads is not None and (not self.heads or min(self.heads) < 0):
            raise InputError(
                f"heads = {list(self.heads)} must be numbers of heads, from 0; leave it out for all"
            )
        if self.layers == ():
            raise InputError("layers: give at least one, or leave it out for all")
