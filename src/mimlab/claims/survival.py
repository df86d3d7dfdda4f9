"""How far from where they were established claims hold: along each axis of a sweep, the first value at which they fail.

An axis of numbers is followed from the base upwards and downwards; one of words has no order, so each of its values is
a path of one step. At each value the seeds vote: a verdict is what more than half of them say, else "inconclusive".
Where the claim does not speak of the run, or there is no run, the vote is "silent".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mimlab.runs.axes import label

SILENT = "silent"
SURVIVAL_SCHEMA = pa.schema(
    [
        ("claim", pa.string()),
        ("axis", pa.string()),
        ("side", pa.string()),
        ("base", pa.string()),
        ("at_base", pa.string()),
        ("until", pa.string()),
        ("fails_at", pa.string()),
        ("inconclusive_at", pa.string()),
        ("silent_at", pa.string()),
        ("seeds", pa.int64()),
        ("verdicts", pa.string()),
    ]
)


def vote(verdicts: Sequence[str | None]) -> str:
    """What more than half of the verdicts say; None counts as "silent", and no majority as "inconclusive".

    >>> vote(["holds", "fails", "fails"]), vote(["holds", "fails"]), vote([None])
    ('fails', 'inconclusive', 'silent')
    """
    counts = Counter(verdict or SILENT for verdict in verdicts)
    first, number = counts.most_common(1)[0] if counts else (SILENT, 1)
    return first if 2 * number > sum(counts.values()) else "inconclusive"


def survival(
    claims: Iterable[str],
    axes: Mapping[str, Sequence[Any]],
    base: Mapping[str, Any],
    at_base: Sequence[Mapping[str, str | None]],
    moved: Mapping[str, Sequence[tuple[Any, Mapping[str, str | None]]]],
) -> list[dict[str, Any]]:
    """A record per claim, axis and side of the base, as SURVIVAL_SCHEMA has it.

    ``axes``: of each key its values. ``base``: of each key the value where all began. ``at_base``: of each seed there,
    the verdicts by claim; ``moved``: of each key pairs of a value and the verdicts of one seed there. A claim that
    speaks nowhere on a path has no record for it.
    """
    records = []
    for claim in claims:
        start = [verdicts.get(claim) for verdicts in at_base]
        for key, values in axes.items():
            found = [(value, verdicts.get(claim)) for value, verdicts in moved[key]]
            for side, path in _paths(values, base[key]):
                steps = [(value, [one for at, one in found if at == value]) for value in path]
                if any(one is not None for one in [*start, *(one for _, votes in steps for one in votes)]):
                    records.append({"claim": claim, "axis": key, **_followed(side, base[key], start, steps)})
    return records


def _paths(values: Sequence[Any], base: Any) -> list[tuple[str, list[Any]]]:
    """The values in the order in which they are met from the base, by side."""
    others = [value for value in values if value != base]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in [*others, base]):
        return [("each", [value]) for value in others]
    sides = {
        "above": sorted(value for value in others if value > base),
        "below": sorted((value for value in others if value < base), reverse=True),
    }
    return [(side, path) for side, path in sides.items() if path]


def _followed(
    side: str, base: Any, start: Sequence[str | None], steps: Sequence[tuple[Any, Sequence[str | None]]]
) -> dict[str, Any]:
    votes = [(base, start), *steps]
    decided = [(value, vote(verdicts)) for value, verdicts in votes]

    def first(verdict: str) -> str | None:
        return next((label(value) for value, said in decided if said == verdict), None)

    return {
        "side": side,
        "base": None if base is None else label(base),
        "at_base": decided[0][1],
        "until": label(steps[-1][0]),
        "fails_at": first("fails"),
        "inconclusive_at": first("inconclusive"),
        "silent_at": first(SILENT),
        "seeds": len(start),
        "verdicts": "; ".join(f"{label(value)} {_counted(verdicts)}" for value, verdicts in votes),
    }


def _counted(verdicts: Sequence[str | None]) -> str:
    """The verdict, with its share of the votes where they differ."""
    said = vote(verdicts)
    number = sum((one or SILENT) == said for one in verdicts)
    return said if number == len(verdicts) else f"{said} ({number} of {len(verdicts)})"
