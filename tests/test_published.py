"""The paper's comparison end to end: tiny models in the files that MAE, MoCo v3, DINO and DeiT publish."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from mimlab.claims.networks import DIVERSITIES, NETWORK_CLAIMS  # noqa: E402
from mimlab.cli import application  # noqa: E402
from mimlab.cli.session import run as type_in  # noqa: E402
from mimlab.dynamics.config import Dynamics, SimulationConfig  # noqa: E402
from mimlab.runs import InputError  # noqa: E402
from mimlab.runs.tables import read_json, read_table  # noqa: E402
from mimlab.statistics import attention  # noqa: E402
from mimlab.studies import probe_at_work, reproduction, world_jobs  # noqa: E402
from mimlab.studies.one_layer import one_layer  # noqa: E402
from mimlab.studies.outcomes import Outcome  # noqa: E402
from mimlab.studies.published import METHODS, compare_published, find_published, published_command  # noqa: E402
from mimlab.studies.single import simulate_config  # noqa: E402
from mimlab.world.world import World  # noqa: E402

from . import test_probe_checkpoints as checkpoints  # noqa: E402

NAMES = ["MAE", "MoCo v3", "DINO", "DeiT"]
FILES = [
    "mae_pretrain_vit_base.pth",
    "vit-b-300ep.pth.tar",
    "dino_vitbase16_pretrain.pth",
    "deit_base_patch16_224-b5f2ef4d.pth",
]


@pytest.fixture
def original(monkeypatch):
    """Makes models with weights as they are drawn before training, of one head of the published 64 channels."""
    monkeypatch.setattr(checkpoints, "WIDTH", 64)
    monkeypatch.setattr(checkpoints, "HEADS", 1)

    def build(seed, focus=1.0):
        model = checkpoints.Original()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data.fill_(float(name.endswith("weight")))
            else:
                factor = focus if "attn.qkv" in name else 1.0
                parameter.data = 0.02 * factor * torch.randn(parameter.shape, generator=generator)
        return model.state_dict()

    return build


def write_published(folder, states):
    """The four files, each as its project writes it."""
    mae, moco, dino, deit = states
    arguments = argparse.Namespace(arch="vit_base")
    decoder = {"decoder_embed.weight": torch.ones(8, 64), "mask_token": torch.ones(1, 1, 8)}
    payloads = [
        {"model": mae | decoder},
        {
            "arch": "vit_base",
            "epoch": 300,
            "state_dict": checkpoints.prefixed(moco, "module.base_encoder.")
            | checkpoints.prefixed(moco, "module.momentum_encoder."),
        },
        dino,
        {"model": deit | {"head.weight": torch.ones(10, 64)}, "args": arguments},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for file, payload in zip(FILES, payloads, strict=True):
        torch.save(payload, folder / file)


def write_images(folder, count=4):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = rng.integers(0, 255, size=(5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((60, 48), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def few_pictures(monkeypatch):
    """The probe's own run directory without its figures, which other tests look at."""
    monkeypatch.setattr("mimlab.studies.probe._draw", lambda *given: [])


def home(tmp_path):
    (tmp_path / "out/figures").mkdir(parents=True)
    return tmp_path / "out"


def test_command_on_fresh_weights_in_the_published_formats(original, tmp_path, monkeypatch, capsys):
    """Nothing was learned, so nothing may be concluded; what could not be read is listed."""
    write_published(tmp_path / "weights/more", [original(seed) for seed in range(4)])
    images = write_images(tmp_path / "photos")
    (images / "broken.png").write_bytes(b"\x89PNG no more")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(reproduction, "jobs", lambda: [])
    monkeypatch.setattr(world_jobs, "survey", lambda records, folder: Outcome("survey"))
    monkeypatch.setattr(reproduction, "_pretraining", lambda *_: Outcome("pretraining"))
    out = tmp_path / "out"
    typed = [
        "reproduce",
        "--published",
        str(tmp_path / "weights"),
        "--images",
        str(images),
        "--out",
        str(out),
    ]
    assert type_in(application("reproduce"), typed) == 0
    summary = read_json(out / "summary.json")
    names = [claim.name for claim in NETWORK_CLAIMS]
    claims = [record for record in summary["claims"] if record["claim"] in names]
    assert [record["claim"] for record in claims] == names
    for record in claims:
        assert (record["verdict"], record["expected"]) == ("inconclusive", "holds")
        assert record["low"] < 0 < record["high"]
        assert "4 images" in record["evidence"] and "with random weights" in record["evidence"]
        assert f"--published {tmp_path / 'weights'} --images {images}" in record["command"]
        assert (out / record["figure"]).stat().st_size > 0
    assert "0 of 3 as expected" in capsys.readouterr().out
    judged = {(one["statistic"], one["layer"]): one["verdict"] for one in summary["published"]}
    assert judged == {(name, layer): "inconclusive" for name in DIVERSITIES for layer in range(2)}
    page = (out / "report.html").read_text()
    for title in ("Diversity", "NMI", "Spread"):
        assert f"Published models by depth: {title}</h2>" in page
    assert "needs the weights" not in page
    probed = read_json(out / "published/summary.json")
    assert [model["name"] for model in probed["models"]] == [
        str(tmp_path / "weights/more" / f) for f in FILES
    ]
    assert [file for file, _ in probed["skipped"]] == ["broken.png"]
    assert (out / "published/report.html").exists() and not (out / "published/parts").exists()
    models = set(read_table(out / "published/probe.parquet")["model"].to_pylist())
    assert len(models) == 8 and sum(name.endswith("(random weights)") for name in models) == 4


def test_focused_attention_of_one_model_holds_and_of_another_fails(original, tmp_path, few_pictures):
    """Large queries and keys make attention depend on the patch: that model is the more diverse in both layers."""
    images = [write_images(tmp_path / "photos")]
    for focus, expected in (((150, 1, 1, 1), "holds"), ((1, 1, 150, 1), "fails")):
        folder = tmp_path / expected
        write_published(folder, [original(seed, factor) for seed, factor in enumerate(focus)])
        place = folder / "out"
        (place / "figures").mkdir(parents=True)
        outcome = compare_published(find_published([str(folder)]), images, "c", place)
        assert {record["claim"]: record["verdict"] for record in outcome.verdicts} == {
            claim.name: expected for claim in NETWORK_CLAIMS
        }
        _, *by_depth = outcome.sections
        assert len(by_depth) == len(DIVERSITIES)
        for section in by_depth:
            assert [(row["depth"], row["verdict"]) for row in section.rows] == [(1, expected), (2, expected)]
            assert list(section.rows[0])[1:5] == NAMES
            top = "MAE" if expected == "holds" else "DINO"
            for row in section.rows:
                assert row[top] > 5 * row["random weights"] > 0


def test_some_weights_are_compared_and_the_others_are_asked_for(original, tmp_path, few_pictures):
    write_published(tmp_path / "weights", [original(seed, 150 if seed == 0 else 1) for seed in range(4)])
    for file in (FILES[1], FILES[3]):
        (tmp_path / "weights" / file).unlink()
    images = [write_images(tmp_path / "photos")]
    outcome = compare_published(find_published([str(tmp_path / "weights")]), images, "c", home(tmp_path))
    for record in outcome.verdicts:
        assert (record["verdict"], record["expected"]) == ("inconclusive", "inconclusive")
        assert record["evidence"] == "needs the weights of MoCo v3, DeiT"
    methods, *by_depth = outcome.sections
    asked = [text.startswith("needs the weights: ") for _, text in methods.details]
    assert asked == [False, True, False, True]
    assert [row["verdict"] for section in by_depth for row in section.rows] == ["holds"] * 6
    assert list(by_depth[0].rows[0])[1:3] == ["MAE", "DINO"]


def test_one_model_alone_has_nothing_beside_it(original, tmp_path, few_pictures):
    write_published(tmp_path / "weights", [original(seed) for seed in range(4)])
    images = [write_images(tmp_path / "photos", 2)]
    found = {"DINO": str(tmp_path / "weights" / FILES[2])}
    outcome = compare_published(found, images, "c", home(tmp_path))
    assert {record["evidence"] for record in outcome.verdicts} == {"needs the weights of MAE, MoCo v3, DeiT"}
    for section in outcome.sections[1:]:
        assert {row["least difference"] for row in section.rows} == {"needs the weights of MAE"}


def test_without_weights_each_claim_says_where_they_are(tmp_path):
    outcome = compare_published({}, None, "c", tmp_path)
    assert {record["evidence"] for record in outcome.verdicts} == {
        "needs the weights of MAE, MoCo v3, DINO, DeiT"
    }
    (section,) = outcome.sections
    for (term, text), method, file in zip(section.details, METHODS, FILES, strict=True):
        assert term.startswith(method.name)
        assert text.startswith(f"needs the weights: {file}, from project facebookresearch/")
        assert method.name.split()[0].lower() in text
    assert not list(tmp_path.iterdir())


# Which file is which


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["b/mae.pth", "moco.pth", "dino.pth", "deit.pth"], NAMES),
        (["facebook/dino-vitb16", "facebook/vit-mae-base"], ["MAE", "DINO"]),
        (["mae/vit-b-300ep.pth.tar"], ["MoCo v3"]),  # the file's own name, not its folder's
        (["owner/moco-v3-vit-b", "timm/vit_base_patch16_224.mae"], ["MAE", "MoCo v3"]),
    ],
)
def test_methods_are_told_by_names(names, found):
    assert list(find_published(names)) == found
    assert set(find_published(names).values()) == set(names)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["checkpoint.pth"], "does not tell.*mae, moco, dino and deit"),
        (["dinov2_vitb14_pretrain.pth"], "does not tell"),
        (["mae_to_dino.pth"], "does not tell"),
        (["mae.pth", "other/mae.pth"], "mae.pth and other/mae.pth are both MAE"),
    ],
)
def test_names_that_tell_nothing_are_refused(names, match):
    with pytest.raises(InputError, match=match):
        find_published(names)


def test_folders_are_searched_for_the_published_names(tmp_path):
    (tmp_path / "a").mkdir()
    for file in (
        "a/mae_pretrain_vit_base.pth",
        "mae_pretrain_vit_base_full.pth",
        "mae_pretrain_vit_large.pth",
    ):
        (tmp_path / file).touch()
    assert find_published([str(tmp_path)]) == {"MAE": str(tmp_path / "a/mae_pretrain_vit_base.pth")}
    with pytest.raises(InputError, match="both MAE"):
        find_published([str(tmp_path), "mae.pth"])
    (tmp_path / "mae_pretrain_vit_base.pth").touch()
    with pytest.raises(InputError, match="both MAE"):
        find_published([str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds none of mae_pretrain_vit_base.pth, vit-b-300ep"):
        find_published([str(tmp_path / "empty")])


def test_a_directory_of_transformers_is_a_model(tmp_path):
    (tmp_path / "vit-mae").mkdir()
    (tmp_path / "vit-mae/config.json").write_text("{}")
    assert find_published([str(tmp_path / "vit-mae")]) == {"MAE": str(tmp_path / "vit-mae")}


def test_command_line_is_refused_before_anything_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduction, "run_jobs", None)
    out = str(tmp_path / "out")
    for typed, words in (
        (["--published", "checkpoint.pth"], "does not tell"),
        (["--images", "photos"], "--published"),
    ):
        assert type_in(application("reproduce"), ["reproduce", *typed, "--out", out]) == 2
        assert words in capsys.readouterr().err
    monkeypatch.setattr("mimlab.runs.checks.find_spec", lambda name: None)
    for name, typed, extra in (
        ("reproduce", ["--published", "mae.pth"], "probe"),
        ("reproduce", ["--with-training"], "train"),
        ("pretrain", [], "train"),
    ):
        assert type_in(application(name), [name, *typed, "--out", out]) == 2
        assert f"install mimlab[{extra}]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_command_can_be_typed_again():
    command = published_command(["my weights", "mae.pth"], [Path("a b")])
    assert command.endswith("--published 'my weights' mae.pth --images 'a b'")


# The simulator's layer


@pytest.fixture(scope="module")
def simulation():
    world = World(area_sizes=(4, 3, 3, 2, 2, 2))
    return simulate_config(SimulationConfig(world, dynamics=Dynamics(engine="mean-field", query="all")))


def test_probe_reads_off_the_layer_what_the_simulator_says(simulation):
    found = probe_at_work.measured_layer(simulation)
    assert len(found) == probe_at_work.TIMES and found[0]["time"] == 0 < found[-1]["nmi"]
    for one in found:
        assert one["nmi"] == pytest.approx(one["simulated_nmi"], abs=1e-6)
        assert one["entropy"] == pytest.approx(one["simulated_entropy"], abs=1e-5)


def test_layer_has_the_rows_of_the_simulation(simulation):
    """Rows that were run, as the simulation gives them; and of the whole map all statistics, by explicit formulas."""
    time = float(simulation.rows[0].path.times[-1])
    model, pixels = one_layer(simulation, time)
    content = model.patches(pixels).flatten(2).mT[0].detach()
    logits = model.Q.detach() @ torch.cat([content, torch.eye(16)], dim=1).T
    weights = logits.double().softmax(-1).numpy()
    for run in simulation.rows:
        expected = simulation.attention_map(run.row.query, time)
        np.testing.assert_allclose(weights[run.row.query], expected, atol=1e-6)
    labels = simulation.layout.partitions[0].all_labels()
    for a in range(16):  # queries of one class: the same weights, in another order
        for b in range(16):
            if np.sum(labels == labels[a]) == np.sum(labels == labels[b]):
                np.testing.assert_allclose(np.sort(weights[a]), np.sort(weights[b]), atol=1e-6)
                np.testing.assert_allclose(weights[a, a], weights[b, b], atol=1e-6)
    (last,) = [one for one in probe_at_work.measured_layer(simulation) if one["time"] == time]
    assert last["diversity"] == pytest.approx(float(attention.diversity(weights)), abs=1e-6)
    assert last["spread"] == pytest.approx(float(attention.spread(weights)), abs=1e-6)


@pytest.mark.parametrize(
    ("world", "query", "match"),
    [
        ({"area_sizes": (4, 3, 3, 2, 2, 2)}, "local", 'query = "all"'),
        ({"area_sizes": (4, 3, 3)}, "all", "a square of patches"),
    ],
)
def test_layers_that_cannot_be_built_are_refused(world, query, match):
    dynamics = Dynamics(engine="mean-field", query=query)
    run = simulate_config(SimulationConfig(World(**world), dynamics=dynamics))
    with pytest.raises(InputError, match=match):
        one_layer(run, 0.0)
    with pytest.raises(InputError, match=r"does not list|a square"):
        one_layer(run, 1e9)


def test_what_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    outcome = probe_at_work.probe_at_work(tmp_path)
    (record,) = outcome.verdicts
    assert (record["verdict"], record["expected"]) == ("inconclusive", "inconclusive")
    assert "install mimlab[probe]" in record["evidence"]
    (section,) = outcome.sections
    assert ("Install", "pip install 'mimlab[probe]'") in section.details
