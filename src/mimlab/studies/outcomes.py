"""What a job of ``mimlab reproduce`` leaves for its page and summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimlab.claims import Verdict

if TYPE_CHECKING:
    from mimlab.report import Section

AGAIN = "mimlab reproduce --out runs/reproduce"


@dataclass(frozen=True)
class Outcome:
    """What a job leaves: verdict records, figures (relative to the page, with their description in the file), the
    statuses of its runs, records for other jobs, and sections of the page."""

    job: str
    verdicts: Sequence[dict[str, Any]] = ()
    figures: dict[str, list[str]] = field(default_factory=dict)
    statuses: Sequence[str] = ()
    records: Sequence[dict[str, Any]] = ()
    sections: Sequence[Section] = ()


Job = Callable[[Path], Outcome]


@dataclass(frozen=True)
class Setting:
    """Where verdicts were reached: short name of the world, what it is, the verdicts expected there besides "holds",
    and the command that runs it again."""

    world: str
    label: str
    expected: Mapping[str, str]
    command: str = AGAIN

    def records(
        self, verdicts: Iterable[Verdict | dict[str, Any]], figure: str | None
    ) -> list[dict[str, Any]]:
        """Verdicts as plain data, with their setting and the figure that shows them."""
        plain = [v.as_dict() if isinstance(v, Verdict) else v for v in verdicts]
        return [
            v
            | {
                "world": self.world,
                "label": self.label,
                "expected": self.expected.get(v["claim"], "holds"),
                "command": self.command,
                "figure": figure,
            }
            for v in plain
        ]
