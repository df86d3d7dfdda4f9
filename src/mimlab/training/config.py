"""What a pretraining run is asked for: the one schema behind TOML, flags and Python.

A key that an objective does not use is refused, not ignored: a run whose `config.toml` says `mask_ratio` has
masked. Keys left out (None) that have a published value are filled in with it, so that `config.toml` says
what was done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mimlab.runs.checks import finite_number, whole_number
from mimlab.runs.errors import InputError
from mimlab.training.watching_plan import WatchingConfig as WatchingConfig
from mimlab.world.world import World

Name = Literal["simmim", "mae", "simclr", "moco-v3", "dino", "supervised"]

MASKED = ("simmim", "mae")
CONTRASTIVE = ("simclr", "moco-v3")
MASK_RATIO = {"simmim": 0.6, "mae": 0.75}
TEMPERATURE = {"simclr": 0.2, "moco-v3": 0.2, "dino": 0.1}
MOMENTUM = {"moco-v3": 0.99, "dino": 0.996}
"""As published (SimCLR's temperature: what the trial on photographs found; the student's of DINO)."""
DEFAULT_STEPS = 750
AREAS = ("fixed", "shifted")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is learned from the images.

    Parameters
    ----------
    name
        "simmim" (mask tokens in the encoder), "mae" (the encoder sees visible patches alone), "simclr", "moco-v3",
        "dino", or "supervised" (which folder, or which photograph).
    second
        A second objective, contrastive beside a masked one, on the same encoder.
    weight
        Of the second objective's loss; the first has one minus it.
    mask_ratio
        Share of patches masked, in (0, 1): 0.6 for simmim and 0.75 for mae unless given.
    mask
        "random" patches or "block": rectangles.
    norm_pixels
        Reconstruct pixels standardised within each patch.
    temperature
        Of the softmax over pairs, 0.2 unless given; of DINO's student, 0.1.
    momentum
        Of the momentum encoder, in [0, 1), at the start: 0.99 for moco-v3, 0.996 for dino unless given.
    start
        A pretraining run, or one of its checkpoints, from whose encoder to start.
    """

    name: Name = "simmim"
    second: Name | None = None
    weight: float | None = None
    mask_ratio: float | None = None
    mask: Literal["random", "block"] = "random"
    norm_pixels: bool = False
    temperature: float | None = None
    momentum: float | None = None
    start: Path | None = None

    def __post_init__(self) -> None:
        if self.second is not None and (self.name not in MASKED or self.second not in CONTRASTIVE):
            raise InputError(
                f"objective: {self.name} with second = {self.second} is no pair; give a masked one "
                f"({', '.join(MASKED)}) with a contrastive one ({', '.join(CONTRASTIVE)})"
            )
        self._fill("weight", dict.fromkeys(CONTRASTIVE, 0.5) if self.second else {})
        self._fill("mask_ratio", MASK_RATIO)
        self._fill("temperature", TEMPERATURE)
        self._fill("momentum", MOMENTUM)
        for name in ("weight", "mask_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 < finite_number(f"objective.{name}", value) < 1:
                raise InputError(f"objective.{name} = {value} must lie between 0 and 1, both left out")
        if self.temperature is not None:
            _positive("objective.temperature", self.temperature)
        if self.momentum is not None and not 0 <= finite_number("objective.momentum", self.momentum) < 1:
            raise InputError(f"objective.momentum = {self.momentum} must be at least 0 and below 1")
        for name, plain in (("mask", "random"), ("norm_pixels", False)):
            if getattr(self, name) != plain and self.name not in MASKED:
                raise InputError(f"objective.{name}: {self.name} masks nothing; leave it out")

    @property
    def names(self) -> tuple[str, ...]:
        """One objective, or both of a pair."""
        return (self.name,) if self.second is None else (self.name, self.second)

    def _fill(self, key: str, published: dict[str, float]) -> None:
        """Give a key that is left out its published value; refuse one that no objective here uses."""
        used = [published[name] for name in self.names if name in published]
        if getattr(self, key) is None:
            object.__setattr__(self, key, used[0] if used else None)
        elif not used:
            needed = "a second objective" if key == "weight" else ", ".join(published)
            raise InputError(f"objective.{key} is for {needed}, not for {self.name}; leave it out")


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the vision transformer.

    Parameters
    ----------
    image_size, patch_size
        Sides in pixels; the patch's divides the image's.
    width, depth, heads
        Of the encoder: channels, blocks, attention heads of each.
    decoder_width, decoder_depth, decoder_heads
        Of mae's decoder.
    positions
        "sincos" (fixed, in two dimensions), "learned", or fixed and drawn: "random" directions, "orthogonal" ones.
    content_in_query
        Whether a query depends on what its patch shows, as in any vision transformer. False: on its position alone, as
        in the theory.
    """

    image_size: int = 32
    patch_size: int = 4
    width: int = 96
    depth: int = 4
    heads: int = 3
    decoder_width: int = 64
    decoder_depth: int = 1
    decoder_heads: int = 2
    positions: Literal["sincos", "learned", "random", "orthogonal"] = "sincos"
    content_in_query: bool = True

    def __post_init__(self) -> None:
        sizes = ("image_size", "patch_size", "width", "depth", "heads")
        for name in (*sizes, "decoder_width", "decoder_depth", "decoder_heads"):
            whole_number(f"network.{name}", getattr(self, name))
        _divides("patch_size", self.patch_size, "image_size", self.image_size)
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            _divides(heads, getattr(self, heads), width, getattr(self, width))
            if self.positions == "sincos" and getattr(self, width) % 4:
                raise InputError(
                    f"network.{width} = {getattr(self, width)} must be a multiple of 4 for positions = sincos"
                )
            if self.positions == "orthogonal" and getattr(self, width) < self.grid**2:
                raise InputError(
                    f"network.{width} = {getattr(self, width)} is too small for {self.grid**2} orthogonal positions; "
                    "give as many channels as patches, or other positions"
                )
        if self.patch_size == self.image_size:
            raise InputError(f"network.patch_size = {self.patch_size} leaves one patch; give a smaller one")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are cut.

    Parameters
    ----------
    images
        A folder of images; without it the photographs that come with scikit-image and other dependencies.
    world
        Or: a world of the simulator, rendered as images: area_sizes that add up to the network's patches, clusters,
        partitions, latent.
    areas
        Of such a world: "fixed", or "shifted" by a random offset in each image.
    held_out
        A folder of images to watch and evaluate on, never trained on; without it the dependencies' held-out ones.
    crop
        Least and largest side, in pixels, of the windows cut from the dependencies' photographs.
    scale
        Least and largest share of an image's area that a crop of a folder's images takes.
    batch_size
        Images in one forward pass of one process.
    workers
        Processes that read a folder's images; what is drawn does not depend on them.
    """

    images: Path | None = None
    world: World | None = None
    areas: Literal["fixed", "shifted"] = "fixed"
    held_out: Path | None = None
    crop: tuple[int, int] = (48, 128)
    scale: tuple[float, float] = (0.2, 1.0)
    batch_size: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "held_out"):
            if self.world is not None and getattr(self, name) is not None:
                raise InputError(f"data: {name} and world do not go together; give images or a world")
        if self.world is None and self.areas != "fixed":
            raise InputError(
                f'data.areas = "{self.areas}" is for a rendered world; give one, or leave it out'
            )
        if self.images is not None and self.held_out is not None:
            trained, held = (Path(path).resolve() for path in (self.images, self.held_out))
            if trained in (held, *held.parents) or held in trained.parents:
                raise InputError(
                    f"data: held_out = {self.held_out} and images = {self.images} share files, and what is held out is "
                    "never trained on; give folders apart"
                )
        whole_number("data.batch_size", self.batch_size, least=2)
        whole_number("data.workers", self.workers, least=0)
        least, largest = (whole_number("data.crop", side) for side in self.crop)
        if least > largest:
            raise InputError(f"data.crop = {least} {largest} must be the least side, then the largest")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise InputError(f"data.scale = {low} {high} must be two shares in (0, 1], the least first")


@dataclass(frozen=True)
class TrainingConfig:
    """How it is optimised: AdamW or gradient descent, linear warm-up, then a cosine to 0.

    The learning rate is blr x (images of one step) / 256; one step sees batch_size x accum_iter x devices images.

    Parameters
    ----------
    steps
        Optimizer steps; 750 where neither these nor epochs are given.
    epochs
        Passes over the images, in place of steps.
    blr
        Base learning rate, for 256 images a step.
    weight_decay
        Of weight matrices; biases, norms, positions and tokens have none.
    optimizer
        "adamw", or "sgd": gradient descent, with momentum betas[0].
    betas
        AdamW's.
    warmup
        Share of the steps in which the learning rate rises; 0.1 where neither this nor warmup_epochs is given.
    warmup_epochs
        The same in passes over the images, in place of warmup.
    clip
        Largest norm of the gradient; 0 leaves it as it is.
    accum_iter
        Forward passes of one process in one step.
    precision
        "float32" or "bfloat16" (mixed: weights stay float32).
    compile
        Compile the networks; pays on a GPU.
    accelerator
        "cpu", "cuda", or "auto": a GPU where there is one.
    devices
        Processes, one for each GPU. Forward passes are shared out among them, so that two with accum_iter = 1 train
        as one with accum_iter = 2.
    strategy
        How several processes work together, as Lightning Fabric names it.
    max_minutes
        Stop after so many minutes; the run can be resumed.
    """

    steps: int | None = None
    epochs: float | None = None
    blr: float = 8e-3
    weight_decay: float = 0.05
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float | None = None
    warmup_epochs: float | None = None
    clip: float = 1.0
    accum_iter: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    strategy: str = "auto"
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        for one, other in (("steps", "epochs"), ("warmup", "warmup_epochs")):
            values = getattr(self, one), getattr(self, other)
            if None not in values:
                raise InputError(
                    f"training: {one} = {values[0]} and {other} = {values[1]} do not go together; give one"
                )
        if self.warmup is None and self.warmup_epochs is None:
            object.__setattr__(self, "warmup", 0.1)
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
        for name in ("steps", "accum_iter", "devices"):
            if getattr(self, name) is not None:
                whole_number(f"training.{name}", getattr(self, name))
        for name in ("blr", "epochs", "max_minutes"):
            if getattr(self, name) is not None:
                _positive(f"training.{name}", getattr(self, name))
        for name in ("weight_decay", "clip", "warmup_epochs"):
            if getattr(self, name) is not None and finite_number(f"training.{name}", getattr(self, name)) < 0:
                raise InputError(f"training.{name} = {getattr(self, name)} must be at least 0")
        if self.warmup is not None and not 0 <= finite_number("training.warmup", self.warmup) < 1:
            raise InputError(f"training.warmup = {self.warmup} must be a share of the steps, in [0, 1)")
        if not all(0 <= finite_number("training.betas", beta) < 1 for beta in self.betas):
            raise InputError(f"training.betas = {self.betas[0]} {self.betas[1]} must lie in [0, 1)")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything a pretraining run depends on.

    Parameters
    ----------
    objective, network, data, training, watching
        What is learned, by what, from which images, how, and what is recorded.
    seed
        Drives the weights at the start, the crops and everything drawn during training.
    """

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    watching: WatchingConfig = field(default_factory=WatchingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("seed", self.seed, least=0)
        if "mae" in self.objective.names and not self.network.content_in_query:
            raise InputError(
                "network.content_in_query = false is not for mae, whose encoder sees some positions only; take simmim"
            )

    @property
    def images_per_step(self) -> int:
        """Images that one optimizer step sees, over all processes."""
        return self.data.batch_size * self.training.accum_iter * self.training.devices


def images_of(data: DataConfig) -> str:
    """What is trained on, in words."""
    return _rendered(data) or str(data.images or "photographs of the dependencies")


def held_out_of(data: DataConfig) -> str:
    """What is watched, in words."""
    return _rendered(data) or str(data.held_out or "photographs of the dependencies, held out")


def _rendered(data: DataConfig) -> str:
    if data.world is None:
        return ""
    sizes = ", ".join(f"{size}" if count == 1 else f"{count} x {size}" for size, count in data.world.runs)
    return f"a rendered world: {data.areas} areas of {sizes} patches, clusters: {data.world.clusters}"


def _positive(name: str, value: Any) -> None:
    if finite_number(name, value) <= 0:
        raise InputError(f"{name} = {value} must be positive")


def _divides(small: str, part: int, large: str, whole: int) -> None:
    if whole % part:
        raise InputError(f"network.{small} = {part} must divide {large} = {whole}")
