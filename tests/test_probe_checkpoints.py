"""Published checkpoints: the converted model gives the original's own tokens, and bad files are named as bad.

`Original` is the vision transformer of MAE, MoCo v3, DINO, DINOv2 and DeiT, written here from their papers with
the parameter names that their files have.
"""

import argparse
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mimlab.probing.checkpoints import load_checkpoint
from mimlab.runs.errors import InputError

WIDTH, DEPTH, HEADS, PATCH = 32, 2, 4, 8


class Attention(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, gated):
        super().__init__()
        self.gated = gated
        if gated:
            hidden = (4 * WIDTH * 2 // 3 + 7) // 8 * 8
            self.w12, self.w3 = nn.Linear(WIDTH, 2 * hidden), nn.Linear(hidden, WIDTH)
        else:
            self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        if not self.gated:
            return self.fc2(nn.functional.gelu(self.fc1(x)))
        gate, up = self.w12(x).chunk(2, dim=-1)
        return self.w3(nn.functional.silu(gate) * up)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return self.gamma * x


class Block(nn.Module):
    def __init__(self, scaled, gated, bias):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn, self.mlp = Attention(bias), Mlp(gated)
        self.ls1, self.ls2 = (Scale(), Scale()) if scaled else (nn.Identity(), nn.Identity())

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Original(nn.Module):
    def __init__(self, grid=4, registers=0, distilled=False, scaled=False, gated=False, bias=True, cls=True):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2 + cls + distilled, WIDTH))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, WIDTH)) if distilled else None
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, WIDTH)) if registers else None
        self.blocks = nn.ModuleList(Block(scaled, gated, bias) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.named_parameters():  # nothing is 0 or 1, so that nothing can be left out
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2 + 0.1
            if not name.startswith(("blocks", "norm")):  # so small that eps tells in the first LayerNorm
                parameter.data *= 0.01

    def positions(self, grid):
        """The table, resampled as DINOv2 does where the picture has another size."""
        old = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if self.blocks[0].ls1.__class__ is nn.Identity or old == grid:
            return self.pos_embed
        table = self.pos_embed[:, 1:].unflatten(1, (old, old)).movedim(3, 1)
        if self.register_tokens is None:
            ratio = (grid + 0.1) / old
            table = nn.functional.interpolate(table, scale_factor=(ratio, ratio), mode="bicubic")
        else:
            table = nn.functional.interpolate(table, size=(grid, grid), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).mT], dim=1)

    def forward(self, pixels):
        x = self.patch_embed.proj(pixels).flatten(2).mT
        first = [self.cls_token] + ([] if self.dist_token is None else [self.dist_token])
        first = [token.expand(len(x), -1, -1) for token in first]
        if self.pos_embed.shape[1] == x.shape[1]:  # DeiT III: no position for CLS
            x = torch.cat([*first, x + self.pos_embed], dim=1)
        else:
            x = torch.cat([*first, x], dim=1) + self.positions(pixels.shape[-1] // PATCH)
        if self.register_tokens is not None:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def write(path, payload):
    torch.save(payload, path)
    return path


def same_tokens(path, original, side=32):
    """The model of the file gives the original's tokens on random pixels, and is to be run at that side."""
    model, own_side = load_checkpoint(path, heads=HEADS)
    assert own_side == side
    assert not model.training
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = model(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(tokens, original(pixels), atol=1e-5, rtol=0)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def test_mae_with_its_decoder_and_training_state(tmp_path):
    original = Original()
    state = original.state_dict()
    extra = {
        "mask_token": torch.ones(1, 1, 16),
        "decoder_embed.weight": torch.ones(16, WIDTH),
        "decoder_blocks.0.attn.qkv.weight": torch.ones(48, 16),
        "decoder_pos_embed": torch.ones(1, 17, 16),
    }
    payload = {"model": state | extra, "epoch": 3, "args": argparse.Namespace(model="mae", lr=1e-3)}
    same_tokens(write(tmp_path / "mae.pth", payload), original)


def test_moco_takes_the_base_encoder_and_leaves_the_projection(tmp_path):
    original = Original()
    base = prefixed(original.state_dict(), "module.base_encoder.")
    momentum = {name.replace("base", "momentum"): tensor + 1 for name, tensor in base.items()}
    head = {
        "module.base_encoder.head.0.weight": torch.ones(8, WIDTH),
        "module.predictor.0.weight": torch.ones(4, 8),
    }
    payload = {"arch": "vit_base", "state_dict": momentum | base | head, "epoch": 300}
    same_tokens(write(tmp_path / "moco.pth.tar", payload), original)


def test_dino_takes_the_teacher(tmp_path):
    original = Original()
    student = {name: tensor + 1 for name, tensor in original.state_dict().items()}
    payload = {
        "student": prefixed(student, "module.backbone."),
        "teacher": prefixed(original.state_dict(), "backbone.") | {"head.mlp.0.weight": torch.ones(8, WIDTH)},
        "args": argparse.Namespace(arch="vit_small"),
    }
    same_tokens(write(tmp_path / "dino.pth", payload), original)


def test_plain_state_without_bias_of_queries_in_half_precision(tmp_path):
    original = Original(bias=False).half()
    path = write(tmp_path / "plain.pt", original.state_dict() | {"head.weight": torch.ones(10, WIDTH)})
    same_tokens(path, original.float())


def test_deit_distilled_as_safetensors(tmp_path):
    original = Original(distilled=True)
    save_file(original.state_dict() | {"head_dist.bias": torch.ones(10)}, tmp_path / "deit.safetensors")
    same_tokens(tmp_path / "deit.safetensors", original)
    assert load_checkpoint(tmp_path / "deit.safetensors", HEADS)[0].config.model_type == "deit"


def test_deit_iii_has_no_position_for_cls(tmp_path):
    original = Original(scaled=True, cls=False)
    state = {name.replace("ls1.gamma", "gamma_1"): tensor for name, tensor in original.state_dict().items()}
    state = {name.replace("ls2.gamma", "gamma_2"): tensor for name, tensor in state.items()}
    same_tokens(write(tmp_path / "deit3.pth", {"model": state}), original)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize(("grid", "side"), [(4, 32), (30, 224)])
def test_dinov2_at_its_own_size_and_resampled(tmp_path, gated, registers, grid, side):
    original = Original(grid=grid, registers=registers, scaled=True, gated=gated)
    state = original.state_dict() | {"mask_token": torch.ones(1, WIDTH)}
    same_tokens(write(tmp_path / "dinov2.pth", state), original, side)


def test_dinov2_in_chunks_of_blocks(tmp_path):
    original = Original(scaled=True)
    state = {
        name.replace("blocks.", f"blocks.{name.split('.')[1]}.")
        if name.startswith("blocks")
        else name: tensor
        for name, tensor in original.state_dict().items()
    }
    assert "blocks.1.1.attn.qkv.weight" in state
    path = write(tmp_path / "teacher.pth", {"teacher": prefixed(state, "backbone.")})
    same_tokens(path, original)


def test_tuned_on_the_mean_token(tmp_path):
    original = Original()
    state = {
        name.replace("norm.", "fc_norm.", name.startswith("norm.")): t
        for name, t in original.state_dict().items()
    }
    same_tokens(write(tmp_path / "tuned.pth", {"model": state}), original)


def test_heads_as_published(tmp_path):
    def heads(width, **wrapping):
        grow = {WIDTH: width, 3 * WIDTH: 3 * width, 4 * WIDTH: 4 * width}
        state = {
            name: torch.zeros([grow.get(n, n) for n in tensor.shape])
            for name, tensor in Original().state_dict().items()
            if "blocks.1." not in name
        }
        state["patch_embed.proj.weight"] = torch.zeros(width, 3, PATCH, PATCH)
        prefix = wrapping.pop("prefix", "")
        path = write(tmp_path / "wide.pth", {"state_dict": prefixed(state, prefix), **wrapping})
        return load_checkpoint(path)[0].config.num_attention_heads

    assert heads(384) == 6
    assert heads(384, prefix="module.base_encoder.") == 12
    assert heads(384, prefix="module.", arch="vit_small") == 12
    assert heads(1280) == 16


# Bad input


def refused(path, match, heads=HEADS):
    with pytest.raises(InputError, match=match) as caught:
        load_checkpoint(path, heads)
    assert path.name in str(caught.value)
    return str(caught.value)


class Code:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("wrap", ["protocol 2", "protocol 4", "beside", "in-arguments"])
def test_code_in_a_pickle_is_not_run(tmp_path, wrap):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    state = Original().state_dict()
    if wrap.startswith("protocol"):
        path.write_bytes(pickle.dumps(Code(mark), protocol=int(wrap[-1])))
    elif wrap == "beside":
        write(path, {"model": state, "hook": Code(mark)})
    else:
        write(path, {"model": state, "args": argparse.Namespace(hook=Code(mark))})
    refused(path, "posix.mkdir.*nothing was loaded|nothing in it was run")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))  # the code would have worked
    assert mark.exists()


def test_a_whole_model_is_no_weights(tmp_path):
    refused(
        write(tmp_path / "whole.pth", nn.Linear(2, 2)), "torch.nn.modules.linear.Linear.*state dict alone"
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"model = 3\n", "a text"),
        (b"hello there", "a text"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (pickle.dumps({"a": 1}, protocol=4), "a pickle that torch.save did not write"),
        (b"\x01\x02", "no weights of torch.save's: Unsupported operand 1"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, content, kind):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    refused(path, rf"no file of weights \({kind}\)")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_cut_short(tmp_path, suffix, kept):
    path = tmp_path / f"short{suffix}"
    if suffix == ".pth":
        write(path, Original().state_dict())
    else:
        save_file(Original().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    refused(path, "damaged, cut short or no file of weights")


def test_half_a_checkpoint_names_what_is_missing(tmp_path):
    state = Original().state_dict()
    path = tmp_path / "half.pth"
    without = {name: t for name, t in state.items() if "blocks.0." not in name}
    refused(write(path, without), r"lacks: blocks\.0\.norm1\.weight, .* and 8 more")
    refused(write(path, {n: t for n, t in state.items() if n != "norm.bias"}), "lacks: norm.bias;")
    refused(write(path, {n: t for n, t in state.items() if n != "cls_token"}), "lacks cls_token")
    refused(write(path, {n: t for n, t in state.items() if "blocks" not in n}), "lacks blocks")
    refused(
        write(path, {n: t for n, t in state.items() if n != "blocks.1.attn.qkv.bias"}), r"1\.attn\.qkv\.bias"
    )


def test_shapes_that_do_not_fit(tmp_path):
    state = Original().state_dict()
    path = tmp_path / "odd.pth"
    message = refused(write(path, state | {"blocks.1.mlp.fc2.weight": torch.ones(WIDTH, 5)}), "do not fit")
    assert "blocks.1.mlp.fc2.weight (32, 5) instead of (32, 128)" in message
    refused(write(path, state | {"pos_embed": torch.ones(1, 15, WIDTH)}), "15 rows of pos_embed")
    refused(write(path, state | {"pos_embed": torch.ones(17, WIDTH)}), "3 axes")
    refused(
        write(path, state | {"patch_embed.proj.weight": torch.ones(WIDTH, 1, PATCH, PATCH)}),
        r"\(32, 1, 8, 8\)",
    )
    refused(write(path, state | {"blocks.0.attn.bias_table": torch.ones(3)}), "none of these models has")


def test_other_files(tmp_path):
    path = tmp_path / "other.pth"
    refused(write(path, {"fc.weight": torch.ones(2, 2)}), "holds no patch_embed.proj.weight.*fc.weight")
    refused(write(path, {"epoch": 3}), "holds no patch_embed")
    refused(write(path, [1, 2]), "holds no patch_embed")
    two = prefixed(Original().state_dict(), "left.") | prefixed(Original().state_dict(), "right.")
    refused(write(path, two), "several encoders, left., right.")


def test_heads_must_fit(tmp_path):
    path = write(tmp_path / "small.pth", Original().state_dict())
    refused(path, "32 channels wide.*give heads", heads=None)
    refused(path, "heads = 5 must divide", heads=5)
    refused(path, "heads = 0 must divide", heads=0)
