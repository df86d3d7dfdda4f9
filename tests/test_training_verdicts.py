"""Pretraining over seeds judged: what a reproduction says of its tables, settings, figures and sections."""

from collections import defaultdict

import pyarrow as pa
import pytest

from mimlab.claims.training import TRAINING_CLAIMS
from mimlab.runs import InputError
from mimlab.runs.tables import read_table, write_json, write_table
from mimlab.studies import trained, training_verdicts
from mimlab.studies.training_runs import PHOTOGRAPHS, RUNS, WORLDS
from mimlab.studies.training_verdicts import not_recorded, pretraining, recorded

from .tables_over_seeds import mean_at, tables_of

RECORD = {"date": "2030-01-02T03:04:05+00:00", "commit": "0123456789abcdef"}

DEFAULT = [run for run in PHOTOGRAPHS if not run.full]


def judged(folder, runs, record=None):
    (folder / "figures").mkdir()
    return pretraining(tables_of(runs), folder, record)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return folder, judged(folder, RUNS, RECORD)


def test_each_setting_has_its_claims_and_comes_out_as_expected(full):
    _, outcome = full
    found = defaultdict(list)
    for record in outcome.verdicts:
        found[record["world"]].append(record["claim"])
        assert record["verdict"] == record["expected"], (record["world"], record["claim"], record["evidence"])
    every = [claim.name for claim in TRAINING_CLAIMS]
    assert found == {
        "networks on photographs": every,
        "more objectives": [
            *(
                "NMI of masked pretraining",
                "diversity of masked pretraining",
                "distance of masked pretraining",
            ),
            *("contrastive training lowers NMI", "contrastive training lowers diversity"),
        ],
        **{run.name: ["FP exceeds PP"] for run in WORLDS},
    }
    shares = {r["world"]: r["expected"] for r in outcome.verdicts if r["claim"] == "FP exceeds PP"}
    assert shares["networks on photographs"] == shares["world-shifted"] == "fails"
    assert shares["world"] == shares["world-vit"] == "holds"


def test_a_verdict_reads_the_run_it_is_labelled_with(tmp_path):
    """One world's shares turned round turn its verdict and no other."""
    tables = tables_of()
    rows = tables["shares"].to_pylist()
    for row in rows:
        if row["run"] == "world-depth":
            row["component"] = {"FP": "PP", "PP": "FP"}.get(row["component"], row["component"])
    tables["shares"] = pa.Table.from_pylist(rows, schema=trained.SCHEMAS["shares"])
    (tmp_path / "figures").mkdir()
    records = pretraining(tables, tmp_path).verdicts
    odd = [r["world"] for r in records if r["verdict"] != r["expected"]]
    assert odd == ["world-depth"]


def test_what_was_recorded_is_labelled_with_when_and_from_which_code(full, tmp_path):
    said = "recorded on 2030-01-02 at commit 0123456789ab, not run now: "
    assert all(record["label"].startswith(said) for record in full[1].verdicts)
    assert all("Recorded on 2030-01-02" in section.sentence for section in full[1].sections)
    now = judged(tmp_path, DEFAULT)
    assert {record["world"] for record in now.verdicts} == {"networks on photographs"}
    assert not any("ecorded" in record["label"] for record in now.verdicts)
    assert not any("ecorded" in section.sentence for section in now.sections)
    assert {record["command"] for record in now.verdicts} == {section.command for section in now.sections}
    assert {section.command for section in full[1].sections} == {
        "mimlab reproduce --with-training=full --out runs/reproduce"
    }


def test_tables_are_left_beside_the_page(full):
    for name, table in tables_of().items():
        assert read_table(full[0] / "training" / f"{name}.parquet").equals(table)


def test_figures_are_there_and_show_the_claim_they_stand_by(full):
    folder, outcome = full
    shown = {record["claim"]: record["figure"] for record in outcome.verdicts}
    assert shown["NMI of masked pretraining"] == "figures/training-depth.png"
    assert shown["layers in order"] == "figures/training-order.png"
    assert shown["FP exceeds PP"] == "figures/training-shares.png"
    assert shown["locality goes with the gap"] is None
    drawn = {figure for section in outcome.sections for figure in section.figures}
    assert drawn == set(shown.values()) - {None}
    assert all((folder / figure).stat().st_size > 0 for figure in drawn)


def test_the_table_of_objectives_holds_means_at_the_end(full):
    (table,) = [section.rows for section in full[1].sections if section.rows]
    assert [row["run"] for row in table] == [run.name for run in PHOTOGRAPHS]
    looks, evaluations = (tables_of()[name].to_pylist() for name in ("looks", "evaluations"))
    for row in table:
        for name in ("nmi", "positional_nmi", "diversity", "distance_ratio"):
            expected = mean_at(looks, "value", 64, run=row["run"], statistic=name)
            assert row[name.replace("_", " ")] == pytest.approx(expected, abs=5.1e-5)
        assert row["kNN"] == pytest.approx(mean_at(evaluations, "knn", 64, run=row["run"]), abs=5.1e-4)


def test_without_networks_nothing_is_claimed():
    outcome = not_recorded()
    assert [record["claim"] for record in outcome.verdicts] == [claim.name for claim in TRAINING_CLAIMS]
    for record in outcome.verdicts:
        assert record["verdict"] == record["expected"] == "inconclusive"
        assert record["value"] is None and record["figure"] is None
        assert record["evidence"].startswith("needs runs of ")
        assert record["command"] == "mimlab reproduce --with-training --out runs/reproduce"
    (section,) = outcome.sections
    assert section.sentence.startswith("Networks were not trained") and not section.figures


def test_recorded_tables_come_back_as_they_were_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(training_verdicts, "RECORDED", tmp_path)
    assert recorded() is None
    kept = tables_of(DEFAULT)
    for name, table in kept.items():
        write_table(tmp_path / f"{name}.parquet", table)
    write_json(tmp_path / "record.json", RECORD)
    tables, record = recorded()
    assert record == RECORD and tables == kept
    (tmp_path / "looks.parquet").unlink()
    with pytest.raises(InputError, match=r"looks\.parquet"):
        recorded()


def test_layers_in_order_are_told_from_layers_out_of_order(tmp_path):
    """The synthetic layers come one after the other; reversed, the claim fails."""
    tables = tables_of(DEFAULT)
    rows = [row | {"layer": 3 - row["layer"]} for row in tables["looks"].to_pylist()]
    tables["looks"] = pa.Table.from_pylist(rows, schema=trained.SCHEMAS["looks"])
    (tmp_path / "figures").mkdir()
    (record,) = [r for r in pretraining(tables, tmp_path).verdicts if r["claim"] == "layers in order"]
    assert record["verdict"] == "fails" and record["high"] < 0
