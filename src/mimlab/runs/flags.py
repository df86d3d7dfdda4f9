"""Configurations as flags: the name of each key's flag, and its values as a shell's words, both ways.

A key's flag is its name (`mask_ratio` is `--mask-ratio`), below the first level with the names of its
tables in front (`world.latent.low` is `--latent-low`); a key called `name` takes its table's
(`objective.name` is `--objective`).

A word is read as whatever fits the key's type: a number (1e4 is a whole one), a list as JSON has it, a
text. Keys that are lists take several words, apart or with commas between.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from mimlab.runs.config import fit
from mimlab.runs.schema import Key, Mismatch, arms, convert, keys, name_of


def flag_name(key: Key) -> str:
    """The flag of a key, with its hyphens in front."""
    *tables, name = key.path
    words = tables[1:] or tables if name == "name" and tables else [*tables[1:], name]
    return "--" + "-".join(words).replace("_", "-")


def takes_several(key: Key) -> bool:
    """Whether the flag of a key takes several words: the key is a list, and not one of lists."""
    return all(_is_tuple(arm) and not _is_tuple(get_args(arm)[0]) for arm in arms(key.type))


def read_flag(key: Key, words: Sequence[str]) -> object:
    """What was typed after a flag, as the type of its key has it. Raises InputError where it does not fit."""
    if not takes_several(key):
        return read_word(key, words[0], flag_name(key))
    item = get_args(arms(key.type)[0])[0]
    parts = [part for word in words for part in word.split(",") if part]
    return fit(key, [_reading(part, item) for part in parts], flag_name(key))


def read_word(key: Key, word: str, name: str) -> object:
    """One word as the type of a key has it, a whole list as JSON. Raises InputError, which calls the key ``name``."""
    return fit(key, _reading(word, key.type), name)


def write_flags(config: object) -> list[str]:
    """The flags that make a configuration, as words: every key that differs from its own default.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class World:
    ...     area_sizes: tuple[int, ...] = ()
    ...     patch_size: int = 16
    >>> write_flags(World(area_sizes=(40, 8, 8)))
    ['--area-sizes', '40', '8', '8']
    """
    return _write(config, ())


def _write(config: object, path: tuple[str, ...]) -> list[str]:
    words: list[str] = []
    for key in keys(type(config), path):
        value = getattr(config, key.name)
        if value is None or value == key.default:
            continue
        if is_dataclass(value):
            if type(value) is not key.table:
                words += [flag_name(one) for one in keys(type(value), key.path) if one.name == "name"]
                words.append(str(name_of(type(value))))
            words += _write(value, key.path)
        else:
            items = value if takes_several(key) else [value]
            words += [flag_name(key), *(_word(item) for item in items)]
    return words


def _word(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool | tuple) else str(value)


def _reading(word: str, hint: Any) -> object:
    """The first reading of a word that fits a type; the word itself where none does."""
    for read in (int, float, _json, str):
        with suppress(ValueError, Mismatch):
            value = read(word)
            convert(value, hint)
            return value
    return word


def _json(word: str) -> object:
    value = json.loads(word)
    if value is None:
        raise Mismatch  # null is how a key is left out, not a value
    return value


def _is_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple
