"""Tiny vision models of transformers, with random weights so large that no attention is near uniform.

The truth comes from elsewhere than what is tested: the maps that the model's own float64 copy returns under "eager"
(`output_attentions=True`), whose logarithms are logits that the oracle can take.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.swin.modeling_swin import SwinAttention

from mimlab.probing.layout import Layout

from .handwritten_models import spread
from .probe_networks import expected_of

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
IMAGE = {"image_size": 16, "patch_size": 4}
SQUARE, WIDE = (16, 16), (12, 20)
KINDS = ("sdpa", "eager")


@dataclass(frozen=True)
class Tiny:
    """A model of transformers: its class and config, what the call needs, and what is to be found.

    options: beside SIZE and IMAGE. pixels: height and width of the images.
    """

    of: type[nn.Module]
    config: type[Any]
    options: dict[str, Any]
    prefix: int
    pixels: tuple[int, int] = WIDE
    call: dict[str, Any] = field(default_factory=dict)

    def build(self, kind: str) -> nn.Module:
        """A model under "sdpa" or "eager": the same weights, from a config of its own."""
        model = self.of._from_config(self.config(**SIZE | IMAGE | self.options), attn_implementation=kind)
        return spread(model)

    @property
    def images(self) -> Tensor:
        return torch.randn(2, 3, *self.pixels, generator=torch.Generator().manual_seed(7))

    @property
    def layout(self) -> Layout:
        return Layout((self.pixels[0] // 4, self.pixels[1] // 4), self.prefix, (4.0, 4.0))

    def arguments(self, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """Arguments of the call."""
        call = {name: value() if callable(value) else value for name, value in self.call.items()}
        return {"pixel_values": self.images.to(dtype), **call}


def ordered(patches: int) -> Callable[[], Tensor]:
    """ViTMAE's noise that leaves the patches where they are."""
    return lambda: torch.arange(patches).float().expand(2, patches)


def _models() -> dict[str, Tiny]:
    t = transformers
    resized = {"interpolate_pos_encoding": True}
    mae = {"mask_ratio": 0.0, "decoder_num_hidden_layers": 1, "decoder_hidden_size": 16} | {
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 16,
    }
    biased = {"use_relative_position_bias": True, "use_absolute_position_embeddings": True}
    return {
        "ViT": Tiny(t.ViTModel, t.ViTConfig, {}, 1, call=resized),
        "DeiT": Tiny(t.DeiTModel, t.DeiTConfig, {}, 2, call=resized),
        "ViTMAE": Tiny(t.ViTMAEModel, t.ViTMAEConfig, mae, 1, call={**resized, "noise": ordered(15)}),
        "DINOv2": Tiny(t.Dinov2Model, t.Dinov2Config, {}, 1),
        "DINOv2 with registers": Tiny(
            t.Dinov2WithRegistersModel, t.Dinov2WithRegistersConfig, {"num_register_tokens": 3}, 4
        ),
        "DINOv3": Tiny(t.DINOv3ViTModel, t.DINOv3ViTConfig, {"num_register_tokens": 4}, 5),
        "CLIP": Tiny(t.CLIPVisionModel, t.CLIPVisionConfig, {}, 1, call=resized),
        "SigLIP": Tiny(t.SiglipVisionModel, t.SiglipVisionConfig, {}, 0, call=resized),
        "BEiT": Tiny(t.BeitModel, t.BeitConfig, biased, 1, SQUARE),
        "BEiT, shared bias": Tiny(
            t.BeitModel, t.BeitConfig, {"use_shared_relative_position_bias": True}, 1, SQUARE
        ),
        "data2vec": Tiny(t.Data2VecVisionModel, t.Data2VecVisionConfig, biased, 1, SQUARE),
        "I-JEPA": Tiny(t.IJepaModel, t.IJepaConfig, {}, 0, call=resized),
    }


MODELS = _models()


@cache
def maps_of(name: str) -> list[Tensor]:
    """The maps of every layer as the model itself returns them, computed in float64: (images, heads, ., .)."""
    model = MODELS[name].build("eager").double()
    call = MODELS[name].arguments(torch.float64)
    found = model(**call, output_attentions=True).attentions
    return [layer.detach().double() for layer in found]


@cache
def expected(name: str) -> dict[str, Any]:
    """The oracle's answer of a model."""
    return expected_of([[layer.log() for layer in maps_of(name)]], MODELS[name].layout)


SWIN = ((12, 24), (24, 24))
"""Images of 2 x 4 and of 4 x 4 windows, in the first of two stages."""


def swin(kind: str) -> nn.Module:
    """Two stages of two blocks each, the second with shifted windows of 3 x 3 patches of 2 x 2 pixels."""
    sizes = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 3}
    config = transformers.SwinConfig(image_size=24, patch_size=2, **sizes)
    return spread(transformers.SwinModel._from_config(config, attn_implementation=kind))


def swin_maps(call: dict[str, Any]) -> list[Tensor]:
    """Maps of all four blocks, window by window: what the attention modules of a float64 copy return."""
    model, found = swin("eager").double(), []
    for module in model.modules():
        if isinstance(module, SwinAttention):
            module.register_forward_hook(lambda _, __, output: found.append(output[1].detach().double()))
    model(**{**call, "pixel_values": call["pixel_values"].double()})
    return found
