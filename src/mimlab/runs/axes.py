"""Axes of a sweep: a key of a configuration and the values that it shall take, as one word of a command line.

world.local_exponent=0.1:0.5:9                      nine values from 0.1 to 0.5, evenly spaced
world.patches=1e3:1e6:7:log                         seven, evenly spaced in their logarithm; whole numbers rounded
dynamics.engine=sampled,mean-field                  a list; each value is read as the key's flag would read it
world.latent.values=[0.2,1.8],[1]                   values that are lists themselves, as JSON has them
world.latent={"low":0.5,"high":1.5},{"values":[1]}  whole tables, as JSON has them: keys that move together
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimlab.runs.config import check, fit
from mimlab.runs.errors import InputError
from mimlab.runs.flags import read_word
from mimlab.runs.schema import Key, arms, nearest, walk

MOST = 1_000_000  # values of one axis
SPACINGS = ("list", "linear", "log")
_DIGITS = 12  # of a value between the ends: 0.15, not 0.15000000000000002
_FORMS = "give low:high:number, low:high:number:log, or values with commas between"


@dataclass(frozen=True)
class Axis:
    """A key of a configuration, with dots between its tables, and its values in order, as the key's type has them.

    ``spacing`` says where the values come from: "list" as given, "linear" or "log" a range from the first to the last.
    Raises InputError for no value, and for a value that is given twice.
    """

    key: str
    values: tuple[Any, ...]
    spacing: str = "list"

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise InputError(f"{self.key}: spacing = {self.spacing!r} must be one of {', '.join(SPACINGS)}")
        if not self.values:
            raise InputError(f"{self.key}: there is no value; give at least one")
        known: set[str] = set()
        for value in self.values:
            if repr(value) in known:
                raise InputError(f"{self.key}: the value {label(value)} is there twice; each must differ")
            known.add(repr(value))

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, so that one can lie beyond another."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def at(self, value: object) -> dict[str, Any]:
        """The mapping that gives the key this value, to be laid over that of a configuration.

        >>> Axis("world.latent.high", (1.0, 2.0)).at(2.0)
        {'world': {'latent': {'high': 2.0}}}
        """
        for name in reversed(self.key.split(".")):
            value = {name: value}
        assert isinstance(value, dict)
        return value


def read_axis(text: str, root: type) -> Axis:
    """The axis that was typed as "table.key=values", checked against the keys of a configuration's dataclass.

    Raises InputError for a key that is not there (and names the nearest), values that do not fit it, a range that is
    none, and what `Axis` refuses. Whether a value goes with those of other keys shows when a configuration is built.

    >>> from mimlab.dynamics.config import SimulationConfig
    >>> read_axis("world.patches=1e3:1e5:3:log", SimulationConfig).values
    (1000, 10000, 100000)
    """
    name, _, words = text.partition("=")
    name, words = name.strip(), words.strip()
    if not (name and words):
        raise InputError(f"{text!r} is no axis; give table.key=values, such as world.patches=1e3:1e5:3:log")
    key = next((key for key in walk(root) if str(key) == name), None)
    if key is None:
        raise InputError(f"there is no key {name}; the nearest is {nearest(name.rpartition('.')[2], root)}")
    kinds = arms(key.type)
    if ":" in words and (int in kinds or float in kinds):
        return _range(key, words)
    return Axis(name, tuple(_value(key, word) for word in _split(words)))


def label(value: object) -> str:
    """A value as it is typed: texts and numbers as they are, lists and tables as JSON.

    >>> label("sampled"), label(0.5), label((0.2, 1.8)), label(True)
    ('sampled', '0.5', '[0.2,1.8]', 'true')
    """
    if isinstance(value, str | float | int) and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _value(key: Key, word: str) -> object:
    """One value of a list."""
    if key.table is None:
        return read_word(key, word, str(key))
    try:
        table = json.loads(word)
    except ValueError:
        table = word
    if not isinstance(table, Mapping):
        raise InputError(f"{key} is a table; give JSON, or one of its keys, such as {_first_in(key)}")
    return check(key.table_of(table), {name: one for name, one in table.items()}, str(key))


def _first_in(key: Key) -> Key:
    assert key.table is not None
    return next(walk(key.table, key.path))


def _split(words: str) -> list[str]:
    """The values of a list: what stands between the commas that are in no brackets and no quotes."""
    parts, depth, quoted = [""], 0, False
    for sign in words:
        quoted ^= sign == '"'
        depth += 0 if quoted else (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _range(key: Key, words: str) -> Axis:
    """The axis low:high:number[:log]. Of a key that takes whole numbers alone, values are rounded."""
    found = re.fullmatch(r"([^:]+):([^:]+):([^:]+?)(:log)?", words)
    try:
        low, high, number = (float(word) for word in found.groups()[:3]) if found else (1.0, 0.0, 0.0)
    except ValueError:
        low, high, number = 1.0, 0.0, 0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{key}: {words} is no range from a lower number to a higher; {_FORMS}")
    if not (number >= 2 and number <= MOST and number.is_integer()):
        raise InputError(f"{key}: {words} asks for {number:g} values; a whole number from 2 to {MOST}")
    log = found is not None and found[4] is not None
    if log and low <= 0:
        raise InputError(
            f"{key}: {words} has no logarithm at its lower end; give a positive one, or leave out :log"
        )
    count = int(number)
    steps = [i / (count - 1) for i in range(1, count - 1)]
    between = [low * (high / low) ** x if log else low + (high - low) * x for x in steps]
    numbers = [low, *(float(f"{value:.{_DIGITS}g}") for value in between), high]
    if float not in arms(key.type):
        numbers = [round(value) for value in numbers]
        if len(set(numbers)) < count:
            raise InputError(
                f"{key}: {count} whole numbers do not fit between {low:g} and {high:g}; give fewer"
            )
    return Axis(str(key), tuple(fit(key, value, str(key)) for value in numbers), "log" if log else "linear")
