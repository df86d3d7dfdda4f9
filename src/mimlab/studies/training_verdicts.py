"""Pretraining judged: verdicts, figures and sections of the page, from the tables of `studies.trained`.

The same from runs made just now and from tables that an earlier reproduction left in `studies/recorded`: those are
judged anew, and labelled with when, where and from which code they were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mimlab.claims import judge_training
from mimlab.claims.training import TRAINING_CLAIMS, TrainingEvidence
from mimlab.runs.tables import read_json, read_table, write_table
from mimlab.studies.outcomes import Outcome, Setting
from mimlab.studies.trained import SCHEMAS, Tables
from mimlab.studies.training_runs import PHOTOGRAPHS, WORLDS, TrainingRun

if TYPE_CHECKING:
    from mimlab.report import Section

JOB = "pretraining"
NETWORKS = "training"
"""The folder of tables and, where they were made now, runs."""
RECORDED = Path(__file__).parent / "recorded"
RECORD = "record.json"
COMMANDS = {
    False: "mimlab reproduce --with-training --out runs/reproduce",
    True: "mimlab reproduce --with-training=full --out runs/reproduce",
}
"""By whether all runs are made."""
COMPARISONS = tuple(
    claim.name
    for claim in TRAINING_CLAIMS
    if claim.name.endswith(("of masked pretraining", "NMI", "diversity"))
)
"""Claims that compare objectives."""
CONTENT = "FP exceeds PP"
DEPTH, ORDER, SHARES = (f"figures/training-{name}.png" for name in ("depth", "order", "shares"))
SHOWN = {**dict.fromkeys(COMPARISONS, DEPTH), "layers in order": ORDER, CONTENT: SHARES}
"""The figure that shows a claim's numbers, where there is one."""
ON_PHOTOGRAPHS = "networks on photographs"


def recorded() -> tuple[Tables, dict[str, Any]] | None:
    """The tables that were kept of the last full reproduction, and where they are from; None where there are none."""
    if not (RECORDED / RECORD).is_file():
        return None
    return {name: read_table(RECORDED / f"{name}.parquet") for name in SCHEMAS}, read_json(RECORDED / RECORD)


def pretraining(tables: Tables, folder: Path, record: Mapping[str, Any] | None = None) -> Outcome:
    """Tables into `folder`/training, figures, verdicts and sections. record: of tables that were kept."""
    (folder / NETWORKS).mkdir(exist_ok=True)
    for name, table in tables.items():
        write_table(folder / NETWORKS / f"{name}.parquet", table)
    names = set(tables["looks"]["run"].unique().to_pylist())
    compared = [run for run in PHOTOGRAPHS if run.name in names]
    judged = [run for run in (PHOTOGRAPHS[0], *WORLDS) if run.name in names]
    _draw(tables, compared, judged, folder)
    said = "" if record is None else _provenance(record)
    return Outcome(JOB, _judged(tables, names, said), sections=_sections(tables, compared, judged, said))


def not_recorded() -> Outcome:
    """What a reproduction says where nothing was trained and nothing kept."""
    from mimlab.report import Section

    verdicts = judge_training(TrainingEvidence((), (), (), ()))
    expected = {verdict.claim.name: "inconclusive" for verdict in verdicts}
    setting = Setting(ON_PHOTOGRAPHS, "no networks were trained", expected, COMMANDS[False])
    records = setting.records(verdicts, None)
    sentence = "Networks were not trained: that takes about half an hour on two cores."
    return Outcome(JOB, records, sections=[Section("Pretraining", sentence, command=COMMANDS[False])])


def _provenance(record: Mapping[str, Any]) -> str:
    return f"recorded on {record['date'][:10]} at commit {record['commit'][:12]}, not run now: "


def _judged(tables: Tables, names: set[str], said: str) -> list[dict[str, Any]]:
    """Verdict records: on photographs, and of a full reproduction on more objectives and on worlds."""
    looks, evaluations, shares, photographs = (
        tables[name].to_pylist() for name in ("looks", "evaluations", "shares", "photographs")
    )

    def judge(only: Sequence[str], setting: Setting, **runs: Any) -> list[dict[str, Any]]:
        evidence = TrainingEvidence(looks, evaluations, shares, photographs, **runs)
        verdicts = [one for one in judge_training(evidence) if one.claim.name in only]
        return [record for one in verdicts for record in setting.records([one], SHOWN.get(one.claim.name))]

    every = [claim.name for claim in TRAINING_CLAIMS]
    label = said + "simmim against simclr and supervised, crops of photographs, one run a seed"
    expected = {CONTENT: str(PHOTOGRAPHS[0].expected)}
    found = judge(every, Setting(ON_PHOTOGRAPHS, label, expected, COMMANDS[False]))
    if any(run.full for run in (*PHOTOGRAPHS, *WORLDS) if run.name in names):  # what is missing is then said
        label = (
            said + "simmim against simclr, moco-v3, dino and supervised; what starts from simmim is moco-v3"
        )
        found += judge(
            COMPARISONS,
            Setting("more objectives", label, {}, COMMANDS[True]),
            others=("simclr", "moco-v3", "dino", "supervised"),
            after="moco-v3-after-simmim",
        )
    for run in WORLDS:
        if run.name in names:
            setting = Setting(run.name, said + run.label, {CONTENT: str(run.expected)}, COMMANDS[True])
            found += judge((CONTENT,), setting, masked=run.name)
    return found


def _draw(
    tables: Tables, compared: Sequence[TrainingRun], judged: Sequence[TrainingRun], folder: Path
) -> None:
    from mimlab.report.seeds import draw_objectives, draw_order_of_layers, draw_shares_of_runs

    draw_objectives(tables["looks"], [run.name for run in compared], folder / DEPTH)
    draw_order_of_layers(tables["looks"], PHOTOGRAPHS[0].name, folder / ORDER)
    draw_shares_of_runs(tables["shares"], [run.name for run in judged], folder / SHARES)


def _sections(
    tables: Tables, compared: Sequence[TrainingRun], judged: Sequence[TrainingRun], said: str
) -> list[Section]:
    from mimlab.report import Section

    full = any(run.full for run in (*compared, *judged))
    lead = f"{said[:1].upper()}{said[1:-2]}. " if said else ""
    return [
        Section(
            "Objectives by depth",
            lead
            + "Small vision transformers trained on photographs, their attention measured on held-out ones: a dot a "
            "seed, lines means, rings random weights.",
            figures=[DEPTH],
            rows=[_row(tables, run) for run in compared],
            command=COMMANDS[full],
        ),
        Section(
            "Layers one after the other",
            lead + "NMI of each layer of the masked network as a share of its last value.",
            figures=[ORDER],
            command=COMMANDS[full],
        ),
        Section(
            "Position or content",
            lead
            + "What attention goes by: shares of logit variance under permuted patches, on photographs and on rendered "
            "worlds that keep the theory's assumptions or drop one each.",
            figures=[SHARES],
            details=[(run.name, run.label) for run in judged],
            command=COMMANDS[full],
        ),
    ]


def _row(tables: Tables, run: TrainingRun) -> dict[str, Any]:
    """Means over seeds at the end: statistics over layers, and what was learned."""
    looks = tables["looks"].filter(pc.field("run") == run.name)
    end = _last(looks)
    row: dict[str, Any] = {"run": run.name, "what": run.label}
    for name in ("nmi", "positional_nmi", "diversity", "distance_ratio"):
        values = end.filter(pc.field("statistic") == name)["value"].to_numpy()
        row[name.replace("_", " ")] = round(float(values.mean()), 4)
    evaluations = tables["evaluations"].filter(pc.field("run") == run.name)
    known = _last(evaluations)["knn"].to_numpy(zero_copy_only=False)
    row["kNN"] = round(float(known.mean()), 3)
    return row


def _last(table: pa.Table) -> pa.Table:
    return table.filter(pc.field("step") == pc.max(table["step"]).as_py())
