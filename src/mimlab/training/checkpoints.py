"""What a run leaves behind to be used, and to go on from.

*Checkpoints* are the encoder alone, `checkpoints/step-000123/`, in the format of transformers: any tool that
loads a directory of transformers' loads them, `mimlab probe` among them. *The state*, `state.pt`, is everything
that training depends on: weights of all parts, optimizer, step, and the configuration it belongs to. Random
numbers need no place in it: each is drawn from the seed and the number of its batch. *Journals* are the log and
whatever else grows step by step: lines of JSON, cut back to the state's step when a run goes on.

Each file or folder is there whole or not at all. Weights are compared with a configuration key by key before
they are loaded: of another depth or patch they would load in part, and train from something nobody asked for.
"""

from __future__ import annotations

import copy
import errno
import inspect
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mimlab.probing.hugging import quiet
from mimlab.probing.position_queries import CONTENT_IN_QUERY
from mimlab.probing.preprocessing import IMAGENET
from mimlab.runs import InputError
from mimlab.runs.files import replacing

STATE = "state.pt"
CHECKPOINTS = "checkpoints"
SHAPES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("image_size", "patch_size", "num_channels", "qkv_bias", "hidden_act", "layer_norm_eps"),
)
"""Keys of transformers' configurations in which two encoders must agree to share weights."""
REDRAWN = ("mask_token", "pooler")
"""Parts that one objective's encoder has and another's has not; they start anew."""


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many steps is."""
    return folder / CHECKPOINTS / f"step-{step:06d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """After which steps there are checkpoints in a run directory, in order."""
    names = (path.name for path in (folder / CHECKPOINTS).glob("step-*"))
    return sorted(int(name[5:]) for name in names if name[5:].isdecimal())


def drop_checkpoints(folder: Path, after: int) -> None:
    """Remove the checkpoints of later steps."""
    for step in checkpoint_steps(folder):
        if step > after:
            shutil.rmtree(checkpoint_folder(folder, step))


def write_checkpoint(folder: Path, step: int, encoder: nn.Module) -> Path:
    """The encoder as a directory of transformers', with its preprocessing; nothing where it is already there.

    Raises OSError in one line where it cannot be written.
    """
    target = checkpoint_folder(folder, step)
    if target.exists():
        return target
    made = target.with_name(target.name + ".new")
    with _explained(made), quiet():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        encoder.save_pretrained(made)
        settings = preprocessor_settings(encoder.config.image_size)
        (made / "preprocessor_config.json").write_text(
            json.dumps(settings, indent=2) + "\n", encoding="utf-8"
        )
        made.rename(target)
    return target


def preprocessor_settings(side: int) -> dict[str, Any]:
    """The settings of transformers' ViTImageProcessor that make of a picture what the encoder was trained on."""
    mean, std = IMAGENET
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def latest_checkpoint(start: Path) -> Path:
    """The checkpoint that `start` names: itself, or the last one of a run. Raises InputError where there is none."""
    if (start / "model.safetensors").is_file():
        return start
    steps = checkpoint_steps(start)
    if not steps:
        raise InputError(
            f"start: {start} holds no checkpoint; give a pretraining run, or one of its checkpoints"
        )
    return checkpoint_folder(start, steps[-1])


def load_encoder(encoder: nn.Module, start: Path) -> None:
    """Load the weights of a run's encoder into another's.

    `start` is a pretraining run (its last checkpoint) or a checkpoint. Raises InputError where there is none, and
    where it belongs to another configuration: key by key.
    """
    source = latest_checkpoint(start)
    try:
        there = json.loads((source / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"start: {source} cannot be read: {str(error).splitlines()[0]}") from None
    here = encoder.config.to_dict()
    refuse_differences(
        _compared(there, here),
        _compared(here, there),
        f"start: {source} is an encoder of another configuration",
    )
    weights = _weights_for(encoder, source)
    encoder.load_state_dict(encoder.state_dict() | weights)


def _compared(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration must be as in another."""
    shapes = {key: config[key] for key in SHAPES if key in config and key in other}
    return shapes | {CONTENT_IN_QUERY: config.get(CONTENT_IN_QUERY, True)}


def _weights_for(encoder: nn.Module, source: Path) -> dict[str, Any]:
    """The weights of a checkpoint by the names that this encoder gives them, all that it needs."""
    kind = type(encoder)
    parts = {"use_mask_token": "embeddings.mask_token", "add_pooling_layer": "pooler.dense.weight"}
    known, own = inspect.signature(kind).parameters, encoder.state_dict()
    options = {option: key in own for option, key in parts.items() if option in known}
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            loaded, found = kind.from_pretrained(
                source,
                config=copy.deepcopy(encoder.config),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                **options,
            )
    except Exception as error:  # what transformers and safetensors raise on damaged files is not documented
        raise InputError(f"start: {source} cannot be read: {str(error).splitlines()[0]}") from None
    odd = {*found["missing_keys"], *found["unexpected_keys"], *(one[0] for one in found["mismatched_keys"])}
    other = sorted(key for key in odd if not any(part in key for part in REDRAWN))
    if other:
        raise InputError(f"start: {source} holds other weights than this encoder: {_few(other)}")
    weights: dict[str, Any] = loaded.state_dict()
    return {key: weights[key] for key in own if key not in found["missing_keys"]}


def refuse_differences(there: Mapping[str, Any], here: Mapping[str, Any], what: str) -> None:
    """Raise InputError where two configurations differ, `what` and then each key with both values."""
    one, other = _flat(there), _flat(here)
    keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
    if keys:
        shown = "; ".join(
            f"{key} = {_shown(one.get(key))} there, {_shown(other.get(key))} here" for key in keys
        )
        raise InputError(f"{what}: {shown}")


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state, in place of an earlier one. Raises OSError in one line where it cannot be written."""
    buffer = io.BytesIO()  # a full disk is then an error of Python's own, which says what it is
    torch.save(dict(state), buffer)
    path = folder / STATE
    with _explained(path), replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state of a run; None where there is none yet. Raises InputError where it cannot be read."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged bytes make torch raise is not documented
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return state


class Journal:
    """Records of a run, a line of JSON each, in the order of their `step`.

    A line is handed to the system at once, so that a killed process loses none; `cut` drops those after a step, and
    a last line that was not finished, when a run goes on from its state.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *records: Mapping[str, Any]) -> None:
        """Append records; each has an integer `step`. Raises OSError in one line where they cannot be written."""
        lines = "".join(json.dumps(_finite(record), ensure_ascii=False) + "\n" for record in records)
        with _explained(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(lines)

    def cut(self, step: int) -> None:
        """Keep the records up to a step, -1 for none."""
        if not self.path.exists():
            return
        with (
            _explained(self.path),
            replacing(self.path) as temporary,
            open(temporary, "w", encoding="utf-8") as file,
        ):
            file.writelines(line for line in self._lines() if json.loads(line)["step"] <= step)

    def records(self) -> list[dict[str, Any]]:
        """All records."""
        return [json.loads(line) for line in self._lines()] if self.path.exists() else []

    def _lines(self) -> Iterator[str]:
        with open(self.path, encoding="utf-8") as file:
            yield from (line for line in file if line.endswith("\n"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """A full disk as one line that says what to do, whichever library met it."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None)
        full = (
            code in (errno.ENOSPC, errno.EDQUOT)
            or "os error 28" in str(error)
            or "No space left" in str(error)
        )
        if not full:
            raise
        raise OSError(
            errno.ENOSPC, "the disk is full; make room, and go on with --resume", str(path)
        ) from None


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with null for what is not finite, which JSON has no word for."""
    odd = (float("inf"), float("-inf"))
    return {k: None if isinstance(v, float) and (v != v or v in odd) else v for k, v in record.items()}


def _flat(mapping: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
