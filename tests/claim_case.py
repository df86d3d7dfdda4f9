"""A claim's three cases: evidence where it must hold, where it must fail, and where it cannot tell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimlab.claims.claim import Claim

Records = list[Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    claim: str
    verdict: str
    why: str
    evidence: Callable[[], Records]


def cases(
    claim: str, *, holds: tuple[str, Any], fails: tuple[str, Any], inconclusive: tuple[str, Any]
) -> list[Case]:
    named = {"holds": holds, "fails": fails, "inconclusive": inconclusive}
    return [Case(claim, verdict, why, evidence) for verdict, (why, evidence) in named.items()]


def name_of(case: Case) -> str:
    return f"{case.claim}-{case.verdict}"


def check(case: Case) -> None:
    """The evidence has the verdict that it was chosen for."""
    found = [record for record in case.evidence() if record["claim"] == case.claim]
    assert len(found) == 1, "the claim does not speak of this evidence"
    (record,) = found
    seen = f"{record['value']} in [{record['low']}, {record['high']}], threshold {record['threshold']}"
    assert record["verdict"] == case.verdict, f"{seen}: {record['evidence']}; expected as {case.why}"


def check_all(cases: Sequence[Case], claims: Iterable[Claim[Any]]) -> None:
    """Every claim has its three cases, and no other claim has any."""
    names = [claim.name for claim in claims]
    for name in names:
        assert [case.verdict for case in cases if case.claim == name] == ["holds", "fails", "inconclusive"], (
            name
        )
    assert {case.claim for case in cases} == set(names)
