"""What a dataclass says of its keys: their paths, their types in words, and which values fit them.

Types: int, float, str, bool, None, Literal, Path, tuples, unions of these, and dataclasses of these, nested to any
depth. Of a union of dataclasses a mapping is the one whose default `name` it has, or the first. Numbers: a float takes
an integer; an integer takes a float that is one (1e4), up to 2^53, where floats stop being exact; neither takes a
boolean, and no float may be infinite or not a number.
"""

import difflib
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_EXACT = 2**53
_WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
}


class Mismatch(Exception):
    """A value that does not fit its type. Whoever catches it knows the key."""


@dataclass(frozen=True)
class Key:
    """A key of a configuration: path from the root, field, type, and, if it is a table, the dataclasses it may be."""

    path: tuple[str, ...]
    field: Field[Any]
    type: Any
    tables: tuple[type[Any], ...]

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def table(self) -> type[Any] | None:
        """The dataclass if the key is a table; of several the first, which it is where nothing is said."""
        return self.tables[0] if self.tables else None

    def table_of(self, value: Mapping[str, object]) -> type[Any]:
        """The dataclass that a mapping is for."""
        named = (table for table in self.tables if value.get("name", MISSING) == name_of(table))
        return next(named, self.tables[0])

    @property
    def default(self) -> Any:
        """What the key has where it is not given; `MISSING` where it must be."""
        factory = self.field.default_factory
        return self.field.default if factory is MISSING else factory()

    def __str__(self) -> str:
        """The path as TOML writes it."""
        return ".".join(self.path)


def keys(cls: type, path: tuple[str, ...] = ()) -> Iterator[Key]:
    """The keys of one table, in order: the fields that the constructor takes."""
    return iter(_keys(cls, path))


@cache
def _keys(cls: type, path: tuple[str, ...]) -> tuple[Key, ...]:
    """Read once, since a sweep builds thousands of configurations, and reading types is slow."""
    hints = get_type_hints(cls)
    return tuple(
        Key((*path, one.name), one, hints[one.name], _tables(hints[one.name]))
        for one in fields(cls)
        if one.init
    )


def walk(cls: type, path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of a table and of the tables in it; what several dataclasses of a union have once."""
    for key in keys(cls, path):
        yield key
        known: dict[tuple[str, ...], Key] = {}
        for table in key.tables:
            known |= {one.path: one for one in walk(table, key.path) if one.path not in known}
        yield from known.values()


def name_of(table: type) -> object:
    """What `name` has in a dataclass that is not told otherwise."""
    return next((key.default for key in keys(table) if key.name == "name"), None)


def nearest(name: str, root: type, path: tuple[str, ...] = ()) -> Key:
    """The known key most like `name`, judged by its last part; among equals one in the table at `path`."""

    def likeness(key: Key) -> tuple[float, bool]:
        ratio = difflib.SequenceMatcher(None, name.lower(), key.name).ratio()
        return ratio, key.path[:-1] == path

    return max(walk(root), key=likeness)


def describe(hint: Any) -> str:
    """What a type allows, in words."""
    return " or ".join(dict.fromkeys(_describe_arm(arm) for arm in arms(hint)))


def convert(value: object, hint: Any) -> object:
    """The value as its type has it: tuples for lists, floats for integers. Raises Mismatch."""
    if value is None and type(None) in get_args(hint):
        return None
    for arm in arms(hint):
        try:
            return _convert_arm(value, arm)
        except Mismatch:
            continue
    raise Mismatch


def arms(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; None is left out."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(member for member in members if member is not type(None))


def _tables(hint: Any) -> tuple[type[Any], ...]:
    """The dataclasses that a type names."""
    return tuple(arm for arm in arms(hint) if isinstance(arm, type) and is_dataclass(arm))


def _describe_arm(arm: Any) -> str:
    if get_origin(arm) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(arm))
    if get_origin(arm) is tuple:
        items = [describe(item) for item in get_args(arm) if item is not Ellipsis]
        more = ", ..." if get_args(arm)[-1] is Ellipsis else ""
        return f"a list ({', '.join(items)}{more})"
    return "a table" if is_dataclass(arm) else _WORDS[arm]


def _convert_arm(value: object, arm: Any) -> object:
    if get_origin(arm) is tuple:
        return _items(value, get_args(arm))
    if get_origin(arm) is Literal:
        fits = isinstance(value, str) and value in get_args(arm)
    elif arm in (int, float):
        return _number(value, arm)
    elif arm is Path:
        fits = isinstance(value, str | Path)
        value = Path(value) if fits else value  # type: ignore[arg-type]
    else:
        fits = isinstance(value, arm)
    if not fits:
        raise Mismatch
    return value


def _items(value: object, hints: tuple[Any, ...]) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise Mismatch
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise Mismatch
    return tuple(convert(item, hint) for item, hint in zip(value, hints, strict=True))


def _number(value: object, kind: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mismatch
    if isinstance(value, int) and kind is int:
        return value
    try:
        number = float(value)
    except OverflowError:
        raise Mismatch from None
    if not math.isfinite(number) or (kind is int and (not number.is_integer() or abs(number) > _EXACT)):
        raise Mismatch
    return int(number) if kind is int else number
