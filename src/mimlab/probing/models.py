"""Models by name: a directory or name of transformers, timm's names, published checkpoints, one's own function.

`load_model` takes the first of these that fits: a file (its weights, see `mimlab.probing.checkpoints`), a
directory (`mimlab.probing.hugging`), `module:function`, `hf-hub:...` or another name of timm's, and a name of
the Hugging Face hub, OWNER/NAME. Each comes with its own preprocessing; where none is known, as for one's own
function that gives only a model, it is ImageNet's at 224 pixels, which is wrong for a model that was trained
on other pixels, and nothing tells.
"""

import importlib
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimlab.probing.checkpoints import load_checkpoint
from mimlab.probing.hugging import Preprocess, hub_directory, layout_of, load_directory, redrawn, run
from mimlab.probing.layout import Layout
from mimlab.probing.preprocessing import published
from mimlab.runs.errors import InputError

KINDS = (
    "a directory of transformers, a pretraining run, a checkpoint file, module:function, a timm name, or a name of the "
    "Hugging Face hub as OWNER/NAME"
)


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A model ready to be probed.

    name: as it was given. module: in eval mode. preprocess: an RGB image to float32 pixels (3, h, w). forward:
    runs the module on pixels (B, 3, h, w), all of the picture's patches in order. layout: where the model says
    it, else None. random: the same architecture with weights drawn anew from a seed, None where that is unknown.
    """

    name: str
    module: nn.Module
    preprocess: Preprocess
    forward: Callable[[Tensor], object]
    layout: Layout | None = None
    random: Callable[[int], "NamedModel"] | None = None

    def __post_init__(self) -> None:
        if self.module.training:
            raise ValueError(f"{self.name} must be in eval mode: dropout is no part of what it attends to")

    def called(self, name: str) -> "NamedModel":
        """The same model under another name, its random weights too."""
        draw = self.random
        return replace(self, name=name, random=draw and (lambda seed: draw(seed).called(name)))


def load_model(name: str, heads: int | None = None) -> NamedModel:
    """The model that a name means, with its preprocessing; the module's docstring lists the kinds of names.

    heads: of every block, for a checkpoint file of unusual sizes; the others know their own.

    Raises InputError where nothing has that name, it cannot be loaded, needs a network that is not there, or
    needs timm where timm is not installed; the message says what to do.
    """
    path = Path(name).expanduser()
    if heads is not None and not path.is_file():
        raise InputError(f"heads = {heads} is for checkpoint files; {name} is none and knows its own.")
    if path.is_file():
        _need_transformers()
        module, side = load_checkpoint(path, heads)
        return of_transformers(name, module, published(side))
    if path.is_dir():
        if _timm_wrote(path):
            return _timm_source(name, f"local-dir:{path}")
        _need_transformers()
        return of_transformers(name, *load_directory(path))
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors", ".tar") or name.startswith((".", "/", "~")):
        raise InputError(f"model {name}: there is no such file or directory; check the path.")
    if name.startswith(("hf-hub:", "hf_hub:", "timm/")) or ("/" not in name and ":" not in name):
        return _timm(name)
    if re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", name):
        return _function(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"model {name!r} is no name; give {KINDS}.")
    _need_transformers()
    return of_transformers(name, *load_directory(hub_directory(name)))


def _need_transformers() -> None:
    try:
        from transformers import AutoImageProcessor, AutoModel  # noqa: F401
    except Exception as error:  # with a torchvision that does not fit torch, not always an ImportError
        raise InputError(
            f"this model needs transformers, which cannot be imported ({error}). Install mimlab[probe], and no "
            "torchvision or one that fits your torch."
        ) from None


def of_transformers(name: str, module: nn.Module, preprocess: Preprocess) -> NamedModel:
    """A model of transformers' under a name, with its layout and its random weights."""

    def random(seed: int) -> NamedModel:
        return of_transformers(name, redrawn(module, seed), preprocess)

    layout = layout_of(module.config, preprocess)
    return NamedModel(name, module, preprocess, partial(run, module), layout, random)


# timm


def _timm(name: str) -> NamedModel:
    """A model by timm's name, or by that of its repository: a local copy or one from the hub."""
    timm = _import_timm(name)
    repository = re.sub("^hf[-_]hub:", "", name)
    if "/" not in repository:
        if not timm.is_model(name.partition(".")[0]):
            near = timm.list_models(f"*{name.partition('.')[0]}*")[:4]
            similar = f"; it has {', '.join(near)}" if near else ""
            raise InputError(
                f"model {name!r} is no file or directory, and timm has none{similar}. Give {KINDS}."
            )
        with _loading(name):
            config = timm.get_pretrained_cfg(name)
        if not config.hf_hub_id or config.hf_hub_filename:  # its weights are elsewhere
            return _timm_source(name, name)
        repository = config.hf_hub_id
    return _timm_source(name, f"local-dir:{hub_directory(repository)}")


def _timm_source(name: str, source: str) -> NamedModel:
    """The model that timm builds from one of its names or from `local-dir:...`."""
    timm = _import_timm(name)

    def build(pretrained: bool, random: Callable[[int], NamedModel] | None) -> NamedModel:
        module = timm.create_model(source, pretrained=pretrained).eval()
        transform = timm.data.create_transform(
            **timm.data.resolve_model_data_config(module), is_training=False
        )
        return NamedModel(name, module, transform, module, _timm_layout(module), random)

    def random(seed: int) -> NamedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(pretrained=False, random=random)

    with _loading(name):
        return build(pretrained=True, random=random)


def _import_timm(name: str) -> Any:
    try:
        import timm
        import timm.data
    except Exception as error:  # with a torchvision that does not fit torch, a RuntimeError
        here = name.startswith(("hf-hub:", "hf_hub:")) or Path(name).expanduser().exists()
        lost = "" if here else "is no file or directory here, and as a name of timm's "
        raise InputError(
            f"model {name!r} {lost}needs timm, which cannot be imported ({error}). Install timm with a torchvision "
            f"that fits your torch, or give another of {KINDS}."
        ) from None
    return timm


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """What timm raises on damaged or missing weights is of many kinds and not documented."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"timm cannot load {name} with its weights: {reason[:300]}") from None


def _timm_wrote(folder: Path) -> bool:
    try:
        return "architecture" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def _timm_layout(module: Any) -> Layout | None:
    embed, prefix = getattr(module, "patch_embed", None), getattr(module, "num_prefix_tokens", None)
    grid, patch = getattr(embed, "grid_size", None), getattr(embed, "patch_size", None)
    if prefix is None or grid is None or patch is None:
        return None
    return Layout(grid=(grid[0], grid[1]), prefix=prefix, patch_size=(patch[0], patch[1]))


# One's own


def _function(name: str) -> NamedModel:
    """What module:function gives: a model, or a model and its preprocessing. The current directory counts."""
    module_name, _, function_name = name.partition(":")
    with _reported(name):
        function = getattr(importlib.import_module(module_name), function_name, None)
        if not callable(function):
            raise InputError(f"model {name}: {module_name} has no function {function_name}.")
        given = function()
    module, preprocess = given if isinstance(given, tuple) and len(given) == 2 else (given, published(224))
    if not isinstance(module, nn.Module) or not callable(preprocess):
        raise InputError(
            f"model {name}: the function must return a torch.nn.Module, or a pair of one and a function from an "
            f"RGB image to pixels (3, h, w); it returned {type(given).__name__}."
        )
    return NamedModel(name, module.eval(), preprocess, module)


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """The current directory importable, and errors of the user's code as messages, with file and line."""
    here = Path.cwd()
    sys.path.insert(0, str(here))
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(here)
        ]
        where = (
            f" ({Path(frames[-1].filename).relative_to(here)}, line {frames[-1].lineno})" if frames else ""
        )
        raise InputError(f"model {name}: {type(error).__name__}: {error}{where}") from None
    finally:
        sys.path.remove(str(here))
