"""Models of transformers, from a directory or the Hugging Face hub, with their own preprocessing.

Of a model of images and texts the vision tower is loaded, of ViTMAE the encoder; it runs unmasked and
unshuffled. Weights that a directory lacks are an error: transformers would draw them at random and go on.
Code that a repository brings along is never run.

Without `preprocessor_config.json` pictures are resized to the configuration's `image_size`, whole, and
normalised as the family is: by 0.5 for ViT, SigLIP and BEiT, by CLIP's own numbers for CLIP, by ImageNet's for
the others. Some published weights of a family differ; with those the numbers are another model's.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from mimlab.probing.layout import Layout
from mimlab.probing.position_queries import CONTENT_IN_QUERY, query_by_position
from mimlab.probing.preprocessing import CLIP, HALF, IMAGENET, Preprocessing
from mimlab.runs.errors import InputError

Preprocess = Callable[[Image.Image], Tensor]

PREFIX = {
    **{
        "vit": 1,
        "vit_mae": 1,
        "vit_msn": 1,
        "deit": 2,
        "beit": 1,
        "data2vec-vision": 1,
        "clip_vision_model": 1,
    },
    **{"dinov2": 1, "dinov2_with_registers": 1, "dinov3_vit": 1, "ijepa": 0, "siglip_vision_model": 0},
}
"""Tokens before the patches by model_type, registers aside: CLS, and DeiT's distillation token."""
COLOURS = {
    **{"vit": HALF, "siglip_vision_model": HALF, "beit": HALF, "data2vec-vision": HALF},
    "clip_vision_model": CLIP,
}
FIXED_POSITIONS = "fixed_positions"
"""Key of transformers' configuration: positions were given, and no training changes them."""
UNTRAINED = ("pooler", "mask_token")
"""Parts that published weights often lack and no attention depends on."""
SECONDS = 10
"""How long to wait for the hub."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports and progress bars; what they say that matters is an error here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_directory(folder: Path) -> tuple[nn.Module, Preprocess]:
    """The model in a directory that transformers saved, in eval mode and float32, and its preprocessing.

    Raises InputError where there is no configuration, the model is none of images, or weights are damaged,
    missing or of another shape.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} holds no config.json; give a directory that transformers' save_pretrained wrote, a "
            "run of mimlab pretrain that has a checkpoint, or a checkpoint file itself."
        )
    from transformers import AutoConfig, AutoModel

    with quiet(), _explained(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
            local_files_only=True,
        )
    if model.main_input_name != "pixel_values":
        raise InputError(f"{folder} holds a {type(model).__name__}, which takes no images.")
    missing = sorted(k for k in info["missing_keys"] if not any(part in k for part in UNTRAINED))
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise InputError(f"the weights in {folder} lack {shown}; give a directory with the whole model.")
    _follow_configuration(model)
    return model.eval(), _preprocessing(folder, model.config)


def _follow_configuration(model: Any) -> None:
    """What a configuration says that transformers does not know."""
    if not getattr(model.config, CONTENT_IN_QUERY, True):
        query_by_position(model)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What transformers and safetensors raise on bad input is of many kinds and not documented."""
    try:
        yield
    except Exception as error:
        code = holds_code(folder, error, "save it as safetensors: model.save_pretrained(...)")
        raise code or InputError(
            f"the model in {folder} cannot be loaded: {reason_of(error)}; download or save the whole directory again, "
            "or wrap another kind of model as your own module:function."
        ) from None


def holds_code(path: Path, error: Exception, instead: str) -> InputError | None:
    """What to say where PyTorch refused to unpickle a class or function; None where that is not what was wrong.

    instead: how to save the weights alone. PyTorch's own words advise to load without its guard.
    """
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found and InputError(
        f"{path} holds {found[1]}, which is no weight: unpickling it could run code, so nothing was loaded. If you "
        f"trust the file, load it where you do and {instead}."
    )


def reason_of(error: Exception) -> str:
    """What a reader's error says was wrong, in a line."""
    found = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(error))
    lines = (
        [f"no weights of torch.save's: {found[1]}"]
        if found
        else str(error).strip().splitlines() or [type(error).__name__]
    )
    return lines[0][:300].rstrip(". ")


def run(module: nn.Module, pixels: Tensor) -> Any:
    """The model's output for pixels (B, 3, h, w); ViTMAE sees all patches, in order."""
    config: Any = module.config
    if config.model_type != "vit_mae":
        return module(pixel_values=pixels)
    patches = (pixels.shape[-2] // config.patch_size) * (pixels.shape[-1] // config.patch_size)
    in_order = torch.arange(float(patches), device=pixels.device).expand(len(pixels), -1)
    return module(pixel_values=pixels, noise=in_order)


def redrawn(module: nn.Module, seed: int) -> nn.Module:
    """The same architecture as its library initialises it, from a seed; the global generator is left alone.

    Fixed positions are those of the module: nothing learned them, and transformers would draw them small or, of
    ViTMAE, leave them zero, as no training ever began.
    """
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        drawn: Any = type(module)(copy.deepcopy(module.config))
    fixed, given = getattr(module.config, FIXED_POSITIONS, False), module.state_dict()
    with torch.no_grad():
        for name, parameter in drawn.named_parameters():
            if name.endswith("position_embeddings") and (fixed or not parameter.requires_grad):
                parameter.copy_(given[name])
    _follow_configuration(drawn)
    drawn.eval()
    return cast(nn.Module, drawn)


def layout_of(config: Any, preprocess: Preprocess) -> Layout | None:
    """Grid and prefix as the configuration and the size of a preprocessed picture tell; None where unknown."""
    sizes = {tuple(preprocess(Image.new("RGB", size)).shape[-2:]) for size in ((48, 64), (64, 48))}
    if config.model_type not in PREFIX or len(sizes) > 1:
        return None
    patch = config.patch_size if isinstance(config.patch_size, list | tuple) else (config.patch_size,) * 2
    rows, columns = (side // length for side, length in zip(sizes.pop(), patch, strict=True))
    prefix = PREFIX[config.model_type] + getattr(config, "num_register_tokens", 0)
    return Layout(grid=(rows, columns), prefix=prefix, patch_size=(patch[0], patch[1]))


def _preprocessing(folder: Path, config: Any) -> Preprocess:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return _by_family(config)
    from transformers import AutoImageProcessor

    with quiet(), _explained(folder):
        try:
            processor = AutoImageProcessor.from_pretrained(
                folder, config=config, backend="pil", trust_remote_code=False, local_files_only=True
            )
        except ImportError:  # written for torchvision alone, as DINOv3's
            return _as_written(json.loads(file.read_text()))
    return partial(_processed, processor)


def _processed(processor: Any, image: Image.Image) -> Tensor:
    pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    return pixels[0]


def _by_family(config: Any) -> Preprocessing:
    size = config.image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return Preprocessing((height, width), *COLOURS.get(config.model_type, IMAGENET))


def _as_written(settings: dict[str, Any]) -> Preprocessing:
    """Preprocessing by the numbers of a file whose class cannot be loaded."""
    size = settings.get("crop_size") or settings["size"]
    colours = tuple(settings["image_mean"]), tuple(settings["image_std"])
    shorter = settings["size"].get("shortest_edge")
    resample = Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC))
    return Preprocessing((size["height"], size["width"]), *colours, shorter=shorter, resample=resample)


def hub_directory(name: str) -> Path:
    """The directory with a model of the Hugging Face hub: from the local cache, else downloaded.

    Raises InputError, at the latest after some seconds, where the hub cannot be reached or has no such model.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = ["config.json", "preprocessor_config.json"]
    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if any(cached.glob("*.safetensors")) or any(cached.glob("pytorch_model*.bin")):
            return cached
    except LocalEntryNotFoundError:
        pass
    except ValueError as error:  # no name of a repository
        raise InputError(f"model {name!r}: {error}") from None
    try:
        files = {file.rfilename for file in HfApi().model_info(name, timeout=SECONDS).siblings or []}
        weights = (
            "model*.safetensors*" if any(f.endswith(".safetensors") for f in files) else "pytorch_model*.bin*"
        )
        return Path(snapshot_download(name, allow_patterns=[*wanted, weights], etag_timeout=SECONDS))
    except RepositoryNotFoundError:
        raise InputError(
            f"model {name!r} is no file or directory here, and the Hugging Face hub has no model of that name "
            "that you may read; check the name, or log in with `hf auth login`."
        ) from None
    except Exception as error:  # of httpx or requests, by the hub's release
        raise InputError(
            f"model {name!r} is no file or directory here, and cannot be had from the Hugging Face hub "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Where there is a network "
            f"`hf download {name}` prints a directory; bring it here and give that in place of the name."
        ) from None
