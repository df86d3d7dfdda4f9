"""What users give: numbers, plain, NumPy's or none at all; lists; and what they have installed."""

from collections.abc import Iterable
from importlib.util import find_spec
from math import isfinite
from numbers import Integral, Real
from typing import Any

from mimlab.runs.errors import InputError


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int; a float that is whole counts. Raises InputError otherwise, or below ``least``.

    >>> whole_number("steps", 1e3)
    1000
    """
    whole = _is_number(value) and (isinstance(value, Integral) or (isfinite(value) and value % 1 == 0))
    if not whole:
        kind = "positive whole number" if least > 0 else "whole number"
        raise InputError(f"{name} = {value!r} must be a {kind}.")
    if value < least:
        raise InputError(f"{name} = {value} must be at least {least}.")
    return int(value)


def finite_number(name: str, value: Any) -> float:
    """``value`` as a float. Raises InputError where it is no number, or has no finite float."""
    if _is_number(value):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if isfinite(number):
            return number
    raise InputError(f"{name} = {value!r} must be a finite number.")


def items_of(name: str, values: Any, kind: str) -> tuple[Any, ...]:
    """The items of a list, at least one; a text is none. Raises InputError, which calls the items ``kind``."""
    items = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else ()
    if not items:
        raise InputError(f"{name} = {values!r} must be a list of {kind}, at least one.")
    return items


def installed(what: str, modules: Iterable[str], extra: str) -> None:
    """Raises InputError where one of the modules that ``what`` needs cannot be imported; ``extra`` brings them."""
    lacking = [name for name in modules if find_spec(name) is None]
    if lacking:
        raise InputError(f"{what}: needs {' and '.join(lacking)}; install mimlab[{extra}]")


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)
