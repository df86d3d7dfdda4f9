"""Configurations: frozen dataclasses, plain mappings and TOML text, one schema for the three.

A dataclass states each key once: its name, type and default. `build` checks a mapping against those types
and makes the dataclass, whose own checks then run; `to_mapping` is its inverse, with every default written
out, so that a run can be repeated from what it stored. What the types may be, and which values fit them, is
in `mimlab.runs.schema`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from mimlab.runs.errors import InputError
from mimlab.runs.files import replacing
from mimlab.runs.schema import Key, Mismatch, convert, describe, keys, name_of, nearest

T = TypeVar("T")


def build(cls: type[T], mapping: Mapping[str, object], where: str = "config") -> T:
    """The dataclass `cls` from a mapping, nested dataclasses from nested mappings.

    `where` names the source in messages, for example the path of the file.

    Raises InputError for an unknown key (and names the nearest known one), a missing key, or a value of
    another type. The dataclasses themselves raise it for values that do not go together.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Masking:
    ...     mask_ratio: float = 0.75
    >>> build(Masking, {"mask_ratio": 0.5})
    Masking(mask_ratio=0.5)
    >>> build(Masking, {"mask_ration": 0.5})
    Traceback (most recent call last):
        ...
    mimlab.runs.errors.InputError: config: there is no key mask_ration; the nearest is mask_ratio
    """
    return _make(cls, check(cls, mapping, where), where, ())


def check(cls: type, mapping: Mapping[str, object], where: str = "config") -> dict[str, Any]:
    """The mapping with each value as its type has it: what of `build` holds for half a configuration.

    Raises InputError for an unknown key or a value of another type; missing keys are not asked for.
    """
    return _checked(cls, mapping, where, cls, ())


def _checked(
    cls: type, mapping: Mapping[str, object], where: str, root: type, path: tuple[str, ...]
) -> dict[str, Any]:
    known = {key.name: key for key in keys(cls, path)}
    result: dict[str, Any] = {}
    for name, value in mapping.items():
        key = known.get(name)
        if key is None:
            given = ".".join((*path, name))
            raise InputError(f"{where}: there is no key {given}; the nearest is {nearest(name, root, path)}")
        if key.table is not None and isinstance(value, Mapping):
            _refuse_of_others(key, value, where)
            result[name] = _checked(key.table_of(value), value, where, root, key.path)
        else:
            result[name] = fit(key, value, f"{where}: {key}")
    return result


def _refuse_of_others(key: Key, value: Mapping[str, object], where: str) -> None:
    """Raises InputError for a key that the table's dataclass lacks and another of its union has."""
    table = key.table_of(value)
    known = {one.name for one in keys(table)}
    for other in key.tables:
        for one in keys(other, key.path):
            if one.name in value and one.name not in known:
                raise InputError(
                    f"{where}: {one} is for {key} = {name_of(other)}, not for {name_of(table)}; leave it out, or give "
                    f"{key}.name"
                )


def fit(key: Key, value: object, name: str) -> object:
    """The value as the type of its key has it. Raises InputError, which calls the key `name`."""
    try:
        return convert(value, key.type)
    except Mismatch:
        raise InputError(f"{name} must be {describe(key.type)}, not {_show(value)}") from None


def _make(cls: type[T], mapping: Mapping[str, object], where: str, path: tuple[str, ...]) -> T:
    values = dict(mapping)
    for key in keys(cls, path):
        if key.name not in values and key.default is MISSING:
            if key.table is None:
                raise InputError(f"{where}: {key} is missing; it is {describe(key.type)}")
            values[key.name] = {}  # its own checks say what the table needs
        value = values.get(key.name)
        if key.table is not None and isinstance(value, Mapping):
            values[key.name] = _make(key.table_of(value), value, where, key.path)
    return cls(**values)


def _show(value: object) -> str:
    """A value as TOML writes it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_mapping(config: object) -> dict[str, Any]:
    """A dataclass as a plain mapping, in the order of its fields: defaults included, None left out.

    Tuples become lists and paths become texts, as TOML and JSON have them.
    """
    values = ((key.name, getattr(config, key.name)) for key in keys(type(config)))
    return {name: _plain(value) for name, value in values if value is not None}


def _plain(value: object) -> object:
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """`base` with the keys of `over` laid on top, table by table; neither is changed.

    >>> merge({"world": {"patches": 100}, "seed": 0}, {"world": {"clusters": 2}})
    {'world': {'patches': 100, 'clusters': 2}, 'seed': 0}
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        result[key] = value
    return result


def read_toml(path: str | Path) -> dict[str, Any]:
    """The mapping in a TOML file. Raises InputError where there is none, or it is not TOML in UTF-8."""
    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not TOML: byte {error.start} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None


def write_toml(path: str | Path, config: object) -> None:
    """Write a dataclass or a mapping as TOML, atomically."""
    mapping = config if isinstance(config, Mapping) else to_mapping(config)
    with replacing(Path(path)) as temporary:
        temporary.write_text(tomli_w.dumps(mapping), encoding="utf-8")
