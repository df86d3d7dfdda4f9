"""Vision transformers as the published codes write them, small: from the image to the tokens, with their own methods.

Original MAE, DINO and DINOv2 (block, `qkv` and `proj` by hand), torchvision and open_clip (nn.MultiheadAttention),
nn.TransformerEncoder. `listen` says what their attention is, from projections in float64.
"""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .probe_networks import logits_of

DIM, HEADS, PATCH = 16, 2, 4


def spread(model: nn.Module, seed: int = 3) -> nn.Module:
    """Give a model weights, position tables and biases that make attention sharp and uneven, in eval mode."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draws)
            if parameter.dim() < 2:
                centre = 1.0 if name.endswith("weight") else 0.0  # LayerNorm's
                parameter.copy_(centre + 0.3 * noise)
            elif parameter.shape[0] == 1 or "relative_position" in name or "token" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(1.6 * noise / parameter[0].numel() ** 0.5)
    return model.eval()


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, DIM, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """As in MAE and DINO; `way` says how the softmax and the products are written."""

    def __init__(self, way: str = "softmax") -> None:
        super().__init__()
        self.num_heads, self.scale, self.way = HEADS, (DIM // HEADS) ** -0.5, way
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.attn_drop = nn.Dropout(0.2)

    def forward(self, x: Tensor, return_attention: bool = False) -> Any:
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        if self.way == "fused":
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, C))
        logits = (q @ k.transpose(-2, -1)) * self.scale
        if self.way == "exp":  # a spelling that cannot be seen
            weights = (logits - logits.amax(-1, keepdim=True)).exp()
            weights = weights / weights.sum(-1, keepdim=True)
        elif self.way == "heads in the batch":
            weights = logits.flatten(0, 1).softmax(dim=-1).unflatten(0, (B, HEADS))
        else:
            weights = logits.softmax(dim=-1)
        out = self.proj((self.attn_drop(weights) @ v).transpose(1, 2).reshape(B, N, C))
        return (out, weights) if return_attention else out


class MemEffAttention(Attention):
    """DINOv2's: another library's kernel where that is installed, else its parent's code."""

    def forward(self, x: Tensor, attn_bias: Tensor | None = None) -> Any:
        assert attn_bias is None
        return super().forward(x)


class XCA(nn.Module):
    """XCiT's attention over channels: a softmax of a square table that is none between tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, HEADS, C // HEADS).permute(2, 0, 3, 4, 1)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(dim=-1)
        return self.proj((weights @ v).permute(0, 3, 1, 2).reshape(B, N, C))


class Block(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(DIM), attention, nn.LayerNorm(DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, 24), nn.GELU(), nn.Linear(24, DIM))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """The original codes' encoder: CLS and registers before the patches, positions interpolated like none would."""

    def __init__(self, attentions: list[nn.Module], registers: int = 0) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, DIM))
        self.pos_embed = nn.Parameter(torch.zeros(1, 64, DIM))
        self.blocks = nn.ModuleList(map(Block, attentions))
        self.norm = nn.LayerNorm(DIM)

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.pos_embed[:, : x.shape[1]]
        first = torch.cat([self.cls_token, self.register_tokens], dim=1)
        return torch.cat([first.expand(len(x), -1, -1), x], dim=1)

    def random_masking(self, x: Tensor, mask_ratio: float) -> Tensor:
        """As the original MAE: shuffled even where nothing is masked."""
        kept = int(x.shape[1] * (1 - mask_ratio))
        noise = torch.rand(x.shape[:2], device=x.device)
        places = torch.argsort(noise, dim=1)[:, :kept]
        return torch.gather(x, dim=1, index=places.unsqueeze(-1).repeat(1, 1, x.shape[-1]))

    def forward_encoder(self, x: Tensor, mask_ratio: float) -> Tensor:
        """Original MAE."""
        x = self.random_masking(self.patch_embed(x), mask_ratio)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.forward_blocks(x)

    def forward_blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Without a call of the model itself."""
        return self.forward_blocks(self.tokens(x))

    def get_last_selfattention(self, x: Tensor) -> Tensor:
        """DINO."""
        x = self.tokens(x)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1].attn(self.blocks[-1].norm1(x), return_attention=True)[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)[:, 0]


class EncoderBlock(nn.Module):
    """torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.self_attention = nn.MultiheadAttention(DIM, HEADS, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(DIM, 24), nn.GELU(), nn.Linear(24, DIM))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class ResidualAttentionBlock(nn.Module):
    """open_clip's, as CLIP's own: tokens first, weights asked for or not."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(DIM), nn.MultiheadAttention(DIM, HEADS)
        self.ln_2, self.mlp = nn.LayerNorm(DIM), nn.Sequential(nn.Linear(DIM, 24), nn.Linear(24, DIM))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class TokensFirst(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.transpose(0, 1)).transpose(0, 1)


class Around(Vit):
    """CLS, patches and positions of `Vit` around another code's blocks."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__([])
        self.body = body

    def forward_blocks(self, x: Tensor) -> Tensor:
        return self.norm(self.body(x))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 24, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def build(name: str) -> nn.Module:
    """One of the codes, in eval mode."""
    made = {
        "MAE": lambda: Vit([Attention(), Attention()]),
        "MAE, fused": lambda: Vit([Attention("fused"), Attention("fused")]),
        "DINO": lambda: Vit([Attention(), Attention()]),
        "heads in the batch": lambda: Vit([Attention("heads in the batch") for _ in range(2)]),
        "DINOv2": lambda: Vit([MemEffAttention(), MemEffAttention()], registers=3),
        "torchvision": lambda: Around(nn.Sequential(EncoderBlock(), EncoderBlock())),
        "open_clip": lambda: Around(
            TokensFirst(nn.Sequential(ResidualAttentionBlock(), ResidualAttentionBlock()))
        ),
        "nn.TransformerEncoder": lambda: Around(encoder()),
    }
    return spread(made[name]())


CODES = {
    "MAE": "blocks.{}.attn",
    "MAE, fused": "blocks.{}.attn",
    "DINO": "blocks.{}.attn",
    "heads in the batch": "blocks.{}.attn",
    "DINOv2": "blocks.{}.attn",
    "torchvision": "body.{}.self_attention",
    "open_clip": "body.body.{}.attn",
    "nn.TransformerEncoder": "body.layers.{}.self_attn",
}
"""What `build` knows, and the names of its layers."""


def images(count: int = 2, seed: int = 7, pixels: tuple[int, int] = (12, 20)) -> Tensor:
    return torch.randn(count, 3, *pixels, generator=torch.Generator().manual_seed(seed))


def listen(model: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Logits (images, heads, tokens, tokens) of every attention, from what reaches it in a float64 copy."""
    twin, found = copy.deepcopy(model).double(), []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if isinstance(module, nn.MultiheadAttention):
            x = x if module.batch_first else x.transpose(0, 1)
            packed = F.linear(x, module.in_proj_weight, module.in_proj_bias)
        else:
            packed = module.qkv(x)
        q, k, _ = packed.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        found.append(logits_of(q, k, math.sqrt(HEADS / DIM)))

    for module in twin.modules():
        if isinstance(module, (Attention, nn.MultiheadAttention)):
            module.register_forward_pre_hook(hook)
    twin(pixels.double())  # gradients on: nothing takes a path past its modules
    return found
