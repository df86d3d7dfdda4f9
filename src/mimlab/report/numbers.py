"""How a number is written on figures and pages: few significant digits, powers of ten spelled as such.

Rounding is for reading only; whoever computes takes the number from the run's tables.
"""

from __future__ import annotations

import math

ABSENT = "–"
_POWER = 5  # from 10⁵ on, powers of ten
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float | None, digits: int = 4) -> str:
    """`value` to `digits` significant digits, whole numbers below 10⁵ exactly; an en dash for null and NaN.

    >>> format_number(0.70312), format_number(-53184.2), format_number(1e12), format_number(2.5e-7)
    ('0.7031', '−53180', '10¹²', '2.5×10⁻⁷')
    >>> format_number(None), format_number(4096), format_number(float("inf"))
    ('–', '4096', '∞')
    """
    if value is None or math.isnan(value):
        return ABSENT
    sign = "−" if value < 0 else ""
    size = abs(value)
    if math.isinf(size):
        return f"{sign}∞"
    if size < 10**_POWER and float(size).is_integer():
        return f"{sign}{size:.0f}"
    mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
    power = int(exponent)
    if digits <= power < _POWER:
        return f"{sign}{round(size, digits - 1 - power):.0f}"
    if -4 < power < digits:
        return f"{sign}{size:.{digits}g}"
    mantissa = mantissa.rstrip("0").rstrip(".")
    factor = "" if mantissa == "1" else f"{mantissa}×"
    return f"{sign}{factor}10{str(power).translate(_SUPERSCRIPTS)}"


def format_interval(value: float | None, low: float | None, high: float | None, digits: int = 4) -> str:
    """`value [low, high]`, with up to three more digits where the ends would look alike.

    Without the brackets where neither end is known, or where both are the value itself.

    >>> format_interval(0.7, 0.68, 0.72), format_interval(0.7, None, None), format_interval(None, None, None)
    ('0.7 [0.68, 0.72]', '0.7', '–')
    >>> format_interval(0.99023, 0.99012, 0.99034, digits=3), format_interval(0.0, 0.0, 0.0)
    ('0.9902 [0.9901, 0.9903]', '0')
    """
    for tried in range(digits, digits + 4):
        shown, *ends = (format_number(one, tried) for one in (value, low, high))
        if ends[0] != ends[1]:
            return f"{shown} [{ends[0]}, {ends[1]}]"
        if ends == [ABSENT, ABSENT] or low == high == value:
            break
    return format_number(value, digits)
