"""`compare` on runs of pretraining, alone and beside those of the probe: what is read from disk, joined, refused."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from mimlab.probing.catalogue import CORE, RANDOM_WEIGHTS
from mimlab.report.pretrain_tables import MAPS, PICTURE, SHARES, PretrainRun, as_probed
from mimlab.runs import InputError
from mimlab.runs.tables import read_json, read_table, write_json, write_table
from mimlab.studies.comparison import run_comparison

from .pretrain_runs import run_of, shares_table, statistics_table, summary


def written(folder, run):
    folder.mkdir()
    write_json(folder / "summary.json", run.summary)
    write_table(folder / "statistics.parquet", run.statistics)
    if run.maps is not None:
        write_table(folder / MAPS, run.maps)
        (folder / PICTURE).parent.mkdir()
        Image.fromarray(run.picture).save(folder / PICTURE)
    if run.shares is not None:
        write_table(folder / SHARES, run.shares)
    return folder


def test_runs_on_disk_are_compared(tmp_path):
    folders = [
        written(tmp_path / "one", run_of()),
        written(tmp_path / "two", run_of(sharp=0.1, objective="simclr")),
    ]
    told, layers = run_comparison(folders, tmp_path / "both", command="mimlab compare one two")
    assert [model["name"] for model in told["models"]] == ["one", "two"]
    assert told["warnings"] == [] and read_json(tmp_path / "both/summary.json") == json.loads(
        json.dumps(told)
    )
    joined = read_table(tmp_path / "both/statistics.parquet")
    assert joined.column_names[0] == "run" and len(joined) == 2 * len(statistics_table())
    assert read_table(tmp_path / "both/layers.parquet").equals(layers)
    assert layers["model"].unique().to_pylist() == [
        "one",
        f"one{RANDOM_WEIGHTS}",
        "two",
        f"two{RANDOM_WEIGHTS}",
    ]
    assert (tmp_path / "both/figures/attention_02.png").exists()
    assert "two" in (tmp_path / "both/report.html").read_text()
    shares = read_table(tmp_path / "both" / SHARES)
    assert shares.column_names[0] == "run" and len(shares) == 2 * len(shares_table())


def test_runs_that_measured_no_shares_are_compared_all_the_same(tmp_path):
    runs = [replace(run_of(), shares=None), run_of(sharp=0.1)]
    folders = [written(tmp_path / name, run) for name, run in zip(("old", "new"), runs, strict=True)]
    told, _ = run_comparison(folders, tmp_path / "both")
    assert told["warnings"] == ["Shares of logit variance are not shown of old, which did not measure them."]
    assert read_table(tmp_path / "both" / SHARES)["run"].unique().to_pylist() == ["new"]
    assert (tmp_path / "both/figures/shares.png").exists()
    run_comparison([folders[0], written(tmp_path / "older", runs[0])], tmp_path / "none")
    assert not (tmp_path / "none" / SHARES).exists()
    assert not (tmp_path / "none/figures/shares.png").exists()


def test_a_pretraining_run_stands_beside_a_probed_one_with_its_end(tmp_path):
    one = written(tmp_path / "one", run_of(alarms=["step 4: something fell"]))
    probed = tmp_path / "probed"
    probed.mkdir()
    run = run_of("vit", sharp=1.0)
    keys = {"models": [run.model], "images": 4, "source": "a folder", "skipped": [], "warnings": []}
    write_json(probed / "summary.json", keys | {"command": "mimlab probe vit", "versions": {"mimlab": "0"}})
    write_table(probed / "layers.parquet", as_probed(run))
    told, layers = run_comparison([one, probed], tmp_path / "both")
    assert layers["model"].unique().to_pylist() == [
        "one",
        f"one{RANDOM_WEIGHTS}",
        "vit",
        f"vit{RANDOM_WEIGHTS}",
    ]
    assert set(CORE) <= set(layers["statistic"].unique().to_pylist())
    assert "one: step 4: something fell" in told["warnings"]
    assert "different images" in told["warnings"][-1]
    assert not (tmp_path / "both/statistics.parquet").exists()


def test_a_run_in_which_nothing_was_watched_is_refused(tmp_path):
    one = written(tmp_path / "one", run_of())
    empty = PretrainRun("b", summary(), statistics_table().slice(0, 0))
    with pytest.raises(InputError, match="nothing was watched"):
        run_comparison([one, written(tmp_path / "two", empty)], tmp_path / "both")
    assert not (tmp_path / "both").exists()
