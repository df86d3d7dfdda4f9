"""Weights as MAE, MoCo v3, DINO, DINOv2 and DeiT publish them, in the model that transformers has for them.

All five share one vision transformer and one set of names (`blocks.3.attn.qkv.weight`). Sizes are read off
the shapes; the model is built with LayerNorm's eps at 1e-6, which all five use, and the names are changed to
those of the transformers hub, which every release of transformers reads. The result equals the original's
tokens up to rounding.

Weights are loaded as weights only: a file with code in it is refused, never run. Left out, since no attention
of the encoder depends on them: MAE's decoder, classifiers, projection heads, mask tokens. Anything else the
file holds beside a vision transformer's parameters is an error, and so is any that is missing.

What gives wrong numbers silently: the wrong number of heads, which no shape tells. It is 64 channels a head,
except MoCo v3's ViT-S (12 heads) and ViT-H (16); a model of one's own needs `heads`.
"""

import argparse
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimlab.probing.hugging import holds_code, quiet, reason_of
from mimlab.runs.errors import InputError

PATCHES = "patch_embed.proj.weight"
WRAPPERS = ("teacher", "model", "state_dict", "student", "model_ema", "state_dict_ema")
"""Where training programs keep the weights, in the order tried. DINO is judged by its teacher."""
ENCODERS = ("base_encoder", "teacher", "student", "momentum_encoder")
"""Of several encoders in one state, which is meant, in the order tried."""
IGNORED = re.compile(r"decoder_|head|mask_token$|pre_logits\.|fc_norm\.")
KINDS = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image"}
"""Files that are given for weights by mistake, by their first bytes."""
RUN_AT = 224
"""DINOv2's position table is for 518 pixels; its evaluations, and the probe, run it at 224."""


INTACT = "give the whole checkpoint of one of MAE, MoCo v3, DINO, DINOv2 or DeiT."

TOP = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "register_tokens": "embeddings.register_tokens",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "norm": "layernorm",
}
VIT = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
DINOV2 = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "mlp.w12": "mlp.weights_in",
    "mlp.w3": "mlp.weights_out",
    "ls2.gamma": "layer_scale2.lambda1",
}
"""Original names to those on the transformers hub: outside the blocks, and in a block of either model."""


@dataclass(frozen=True)
class Architecture:
    """A vision transformer's sizes, as its parameters' shapes tell them."""

    width: int
    depth: int
    hidden: int
    heads: int
    patch: int
    grid: int
    class_position: bool
    registers: int
    distilled: bool
    scaled: bool
    gated: bool
    biased: bool

    @property
    def side(self) -> int:
        """Of the picture, in pixels."""
        return self.grid * self.patch

    @property
    def positions(self) -> int:
        """Rows of the table of positions."""
        return self.grid**2 + self.class_position + self.distilled

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter of the encoder, by its original name."""
        width, hidden = self.width, self.hidden
        shapes: dict[str, tuple[int, ...]] = {
            PATCHES: (width, 3, self.patch, self.patch),
            "patch_embed.proj.bias": (width,),
            "cls_token": (1, 1, width),
            "pos_embed": (1, self.positions, width),
            **({"dist_token": (1, 1, width)} if self.distilled else {}),
            **({"register_tokens": (1, self.registers, width)} if self.registers else {}),
            **_linear("norm", (width,)),
        }
        mlp = {"mlp.w12": (2 * hidden, width), "mlp.w3": (width, hidden)}
        if not self.gated:
            mlp = {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        linear = {"norm1": (width,), "norm2": (width,), "attn.proj": (width, width), **mlp}
        for block in range(self.depth):
            name = f"blocks.{block}"
            for part, shape in linear.items():
                shapes |= _linear(f"{name}.{part}", shape)
            shapes |= {f"{name}.attn.qkv.weight": (3 * width, width)}
            shapes |= {f"{name}.attn.qkv.bias": (3 * width,)} if self.biased else {}
            shapes |= {f"{name}.ls{i}.gamma": (width,) for i in (1, 2)} if self.scaled else {}
        return shapes


def load_checkpoint(path: Path, heads: int | None = None) -> tuple[nn.Module, int]:
    """The encoder whose weights a file holds, in eval mode and float32, and the side in pixels to run it at.

    path: a .safetensors file, or anything that torch.save wrote (.pth, .pt, .pth.tar). heads: attention heads
    of every block; None: as published, see the module's docstring.

    Raises InputError for a file that is damaged or cut short, holds code, or holds something other than one
    of these models' parameters, all present and of fitting shapes; the message names which are not.
    """
    payload = _read(path)
    weights, moco = _encoder(payload, path)
    shape = _architecture(weights, heads, moco, path)
    _check(weights, shape.parameters(), path)
    weights = {name: weights[name].float() for name in shape.parameters()}
    smaller = RUN_AT // shape.patch
    if shape.scaled and shape.class_position and shape.grid > smaller:
        weights["pos_embed"] = _resampled(weights["pos_embed"], shape.grid, smaller, shape.registers)
        shape = replace(shape, grid=smaller)
    return _build(shape, weights, path), shape.side


def _linear(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# Reading


def _read(path: Path) -> Any:
    """What the file holds; only tensors, plain values and an argparse.Namespace can come of it."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # MAE's and DINO's training programs save their arguments as one; unpickling it runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a reader raises on damaged bytes is not documented
        code = holds_code(
            path, error, 'save the state dict alone: torch.save({"model": model.state_dict()}, ...)'
        )
        raise code or InputError(
            f"{path} is damaged, cut short or no file of weights ({_reason(path, error)}), and nothing in it was run; "
            "give an intact .safetensors file or one that torch.save wrote."
        ) from None


def _reason(path: Path, error: Exception) -> str:
    """What is wrong with a file; of one that is no checkpoint, what it is as far as its first bytes tell."""
    with path.open("rb") as file:
        start = file.read(200)
    if "Unsupported operand" in str(error) and start.startswith(b"\x80"):
        return "a pickle that torch.save did not write"
    if start and all(32 <= byte < 127 or byte in b"\t\n\r" for byte in start):
        return "a text"
    return next((kind for mark, kind in KINDS.items() if start.startswith(mark)), reason_of(error))


def _encoder(payload: Any, path: Path) -> tuple[dict[str, Tensor], bool]:
    """Parameters by their original names, every prefix gone, and whether MoCo v3 wrote them."""
    state = payload
    for _ in range(4):
        if not isinstance(state, Mapping) or any(isinstance(value, Tensor) for value in state.values()):
            break
        state = next((state[key] for key in WRAPPERS if key in state), None)
    names = [name for name in state if isinstance(name, str)] if isinstance(state, Mapping) else []
    prefixes = {name.removesuffix(PATCHES) for name in names if name.endswith(PATCHES)}
    if not prefixes:
        raise InputError(
            f"{path} holds no {PATCHES}, which MAE, MoCo v3, DINO, DINOv2 and DeiT all have"
            f"{': it has ' + _listed(names) if names else ''}. For weights of transformers give the directory, "
            "with its config.json; for another model your own module:function."
        )
    rank = {prefix: [word in prefix for word in ENCODERS] for prefix in prefixes}
    best = [prefix for prefix in prefixes if rank[prefix] == max(rank.values())]
    if len(best) > 1:
        raise InputError(
            f"{path} holds several encoders, {_listed(sorted(best))}; save the one that is meant."
        )
    prefix = best[0]
    weights = {_original(n.removeprefix(prefix)): state[n] for n in names if n.startswith(prefix)}
    if "norm.weight" not in weights:  # models tuned on the mean of their tokens have this one instead
        weights = {name.replace("fc_norm.", "norm."): tensor for name, tensor in weights.items()}
    moco = isinstance(payload, Mapping) and payload.get("arch") == "vit_small"
    return weights, moco or "base_encoder" in prefix or "momentum_encoder" in prefix


def _original(name: str) -> str:
    """A parameter's name without DINOv2's chunks of blocks, and with DeiT III's layer scale as DINOv2's."""
    name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name)


# Sizes


def _architecture(weights: dict[str, Tensor], heads: int | None, moco: bool, path: Path) -> Architecture:
    blocks = {int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name))}
    missing = [name for name in ("cls_token", "pos_embed") if name not in weights]
    if missing or not blocks:
        raise InputError(f"{path} lacks {_listed([*missing, *([] if blocks else ['blocks'])])}; {INTACT}")
    patches, table = weights[PATCHES], weights["pos_embed"]
    if patches.ndim != 4 or table.ndim != 3:
        shapes = f"{PATCHES} is {tuple(patches.shape)}, pos_embed is {tuple(table.shape)}"
        raise InputError(f"{path}: {shapes}; they should have 4 and 3 axes. {INTACT}")
    width, _, _, patch = patches.shape
    distilled = "dist_token" in weights
    rows = table.shape[1] - distilled
    class_position = next((bool(n) for n in (1, 0) if rows > n and isqrt(rows - n) ** 2 == rows - n), None)
    if class_position is None:
        raise InputError(
            f"{path}: the {table.shape[1]} rows of pos_embed are no square grid of patches after "
            f"{1 + distilled} tokens; wrap the model as your own module:function."
        )
    hidden = {key: t for key in ("fc1", "w3") for n, t in weights.items() if n.endswith(f".mlp.{key}.weight")}
    return Architecture(
        width=width,
        depth=max(blocks) + 1,
        hidden=hidden["w3"].shape[-1] if "w3" in hidden else hidden["fc1"].shape[0] if hidden else 4 * width,
        heads=_heads(width, heads, moco, path),
        patch=patch,
        grid=isqrt(rows - class_position),
        class_position=class_position,
        registers=weights["register_tokens"].shape[1] if "register_tokens" in weights else 0,
        distilled=distilled,
        scaled=any(name.endswith(".ls1.gamma") for name in weights),
        gated="w3" in hidden,
        biased=any(name.endswith(".attn.qkv.bias") for name in weights),
    )


def _heads(width: int, heads: int | None, moco: bool, path: Path) -> int:
    if heads is None:
        heads = 12 if moco and width == 384 else 16 if width == 1280 else width // 64
        if width % 64:
            raise InputError(f"{path} is {width} channels wide, which no published model is; give heads.")
    if heads < 1 or width % heads:
        raise InputError(f"heads = {heads} must divide the width of {path}, {width} channels.")
    return heads


def _check(weights: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """All parameters are there, none is strange, and each has its shape."""
    missing = [name for name in shapes if name not in weights]
    strange = [name for name in weights if name not in shapes and not IGNORED.match(name)]
    wrong = [
        f"{name} {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    found = {
        "lacks": missing,
        "has shapes that do not fit": wrong,
        "holds what none of these models has": strange,
    }
    problems = [f"{what}: {_listed(names)}" for what, names in found.items() if names]
    if problems:
        raise InputError(f"{path} {'; it '.join(problems)}; {INTACT}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# Building


def _resampled(table: Tensor, grid: int, new: int, registers: int) -> Tensor:
    """DINOv2's table of positions for another grid, as that model does it: two ways, with registers and without.

    Without, sides are scaled by (new + 0.1) / grid rather than new / grid, a tenth of a patch too much.
    """
    patches = table[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    if registers:
        patches = nn.functional.interpolate(patches, size=(new, new), mode="bicubic", antialias=True)
    else:
        ratio = (new + 0.1) / grid
        patches = nn.functional.interpolate(patches, scale_factor=(ratio, ratio), mode="bicubic")
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


def _build(shape: Architecture, weights: dict[str, Tensor], path: Path) -> nn.Module:
    """The model of transformers with these weights, which it reads by the names published on its hub."""
    import transformers

    sizes: dict[str, Any] = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "qkv_bias": shape.biased,
        "layer_norm_eps": 1e-6,
        "image_size": shape.side,
        "patch_size": shape.patch,
    }
    options = {}
    if not shape.scaled and not shape.gated and not shape.registers:
        names, options = VIT, {"add_pooling_layer": False}
        family = "DeiT" if shape.distilled else "ViT"
        sizes |= {"intermediate_size": shape.hidden}
    else:
        names, family = DINOV2, "Dinov2WithRegisters" if shape.registers else "Dinov2"
        sizes |= {"mlp_ratio": _mlp_ratio(shape, path), "use_swiglu_ffn": shape.gated}
        sizes |= {"num_register_tokens": shape.registers} if shape.registers else {}
        weights = _as_dinov2(weights, shape)
    config = getattr(transformers, f"{family}Config")(**sizes)
    named = dict(_renamed(weights, names))
    with quiet():
        model, info = getattr(transformers, f"{family}Model").from_pretrained(
            None, config=config, state_dict=named, output_loading_info=True, dtype=torch.float32, **options
        )
    if info["missing_keys"] or info["unexpected_keys"]:  # a release of transformers that reads other names
        raise RuntimeError(f"transformers {transformers.__version__} does not read {_listed(sorted(named))}")
    module: nn.Module = model.eval()
    return module


def _mlp_ratio(shape: Architecture, path: Path) -> int:
    """Hidden channels over width as Dinov2Config has it; gated, two thirds of them in multiples of 8."""
    for ratio in range(1, 17):
        hidden = ratio * shape.width
        if shape.hidden == ((int(hidden * 2 / 3) + 7) // 8 * 8 if shape.gated else hidden):
            return ratio
    raise InputError(f"{path} has {shape.hidden} hidden channels for a width of {shape.width}, no DINOv2's.")


def _as_dinov2(weights: dict[str, Tensor], shape: Architecture) -> dict[str, Tensor]:
    """What DINOv2's model has and the file need not: a mask token, and of DeiT III the position of CLS, 0."""
    table = weights["pos_embed"]
    if not shape.class_position:
        table = torch.cat([torch.zeros(1, 1, shape.width), table], dim=1)
    ones = {f"blocks.{b}.ls{i}.gamma": torch.ones(shape.width) for b in range(shape.depth) for i in (1, 2)}
    return {**ones, **weights, "pos_embed": table, "mask_token": torch.zeros(1, shape.width)}


def _renamed(weights: dict[str, Tensor], parts: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Parameters by the names of the transformers hub; query, key and value are apart there."""
    for name, tensor in weights.items():
        found = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+?)(\.weight|\.bias)?", name)
        assert found is not None
        block, part, end = found[1], found[2], found[3] or ""
        if block is None:
            yield f"{TOP[part]}{end}", tensor
        elif part == "attn.qkv":
            for third, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                yield f"encoder.layer.{block}.attention.attention.{third}{end}", piece.contiguous()
        else:
            yield f"encoder.layer.{block}.{parts.get(part, part)}{end}", tensor
