"""The probe over images, in memory: its tables against captures and plain NumPy on the same pixels."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image
from scipy.stats import t as student
from torch import nn
from transformers import SwinConfig, SwinModel, ViTConfig, ViTModel

import mimlab
from mimlab.probing.images import open_image
from mimlab.probing.models import load_model
from mimlab.probing.permuted import logit_shares
from mimlab.probing.preprocessing import HALF, Preprocessing
from mimlab.report.probe_tables import with_random_weights
from mimlab.studies.probe_parts import PartsInFolder, layers_of
from mimlab.world.photograph import BUNDLED

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
IMAGES = 7  # batches of 3, 3 and 1


def vit(seed: int = 0, **options: object) -> ViTModel:
    """Two layers of four heads on 4 x 4 patches, with weights so large that attention is not near uniform."""
    torch.manual_seed(seed)
    model = ViTModel(
        ViTConfig(**SIZE | {"image_size": 32, "patch_size": 8} | options), add_pooling_layer=False
    )
    for name, parameter in model.named_parameters():
        if "weight" in name and parameter.ndim == 2:
            parameter.data.mul_(12)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of noise, and a model."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "images").mkdir()
    noise = np.random.default_rng(1)
    for number in range(IMAGES):
        pixels = noise.integers(0, 256, (36, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    vit().save_pretrained(folder / "vit")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return mimlab.probe(
        str(folder / "vit"), folder / "images", "all", batch_size=3, shares=True, permutations=3
    )


@pytest.fixture(scope="module")
def pixels(folder):
    preprocess = load_model(str(folder / "vit")).preprocess
    return torch.stack([preprocess(open_image(path)) for path in sorted((folder / "images").iterdir())])


@pytest.fixture(scope="module")
def captured(folder, pixels):
    """All statistics of all images, in the same batches."""
    model = vit()
    with torch.inference_mode(), mimlab.capture(model, "all") as capture:
        for batch in pixels.split(3):
            model(batch)
    return capture


def rows(table: pa.Table, model: object, **chosen: object) -> pa.Table:
    """The rows of a model that have the values given."""
    table = table.filter(pc.field("model") == str(model))
    for name, value in chosen.items():
        table = table.filter(pc.field(name).is_null() if value is None else pc.field(name) == value)
    return table


def test_every_value_is_that_of_a_capture_of_the_same_pixels(found, captured, folder):
    for name in captured.statistics:
        here = rows(found.table, folder / "vit", statistic=name)
        values = here["value"].to_numpy()
        expected = captured[name]
        if name == "head_diversity":
            expected = expected[..., None]
        parts = np.split(expected, [1, 2] if name.startswith("positional_") else [3, 6])
        assert np.array_equal(values, np.concatenate([part.swapaxes(0, 1).ravel() for part in parts])), name
    entropy = rows(found.table, folder / "vit", statistic="entropy", layer=1, head=2)
    assert entropy["image"].to_pylist() == [f"{number}.png" for number in range(IMAGES)]
    assert np.ptp(entropy["value"].to_numpy()) > 0.01
    assert set(entropy["module"].to_pylist()) == {captured.layers[1]}


def interval(values: np.ndarray) -> tuple[float, float, float]:
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


@pytest.mark.parametrize("name", ["distance", "spread", "head_diversity", "positional_nmi"])
def test_intervals_are_students_over_images(found, captured, folder, name):
    """And over full batches for the positional statistics; a layer's own row is the mean over heads in each image."""
    values = captured[name][:2] if name.startswith("positional_") else captured[name]
    values = values[..., None] if name == "head_diversity" else values
    for layer in range(2):
        by_head = {None: values[:, layer].mean(1)}
        if name != "head_diversity":
            by_head |= {head: values[:, layer, head] for head in range(4)}
        table = rows(found.layers, folder / "vit", statistic=name, layer=layer)
        assert sorted(map(str, table["head"].to_pylist())) == sorted(map(str, by_head))
        for head, own in by_head.items():
            (row,) = rows(table, folder / "vit", head=head).to_pylist()
            assert [row["mean"], row["low"], row["high"]] == pytest.approx(interval(own), rel=1e-9, abs=1e-12)
            assert row["images"] == (6 if name.startswith("positional_") else IMAGES)


def test_offsets_are_means_over_all_images(found, captured, folder):
    table = rows(found.offsets, folder / "vit")
    values = np.full((2, 4, 7, 7), np.nan)
    layer, head, dy, dx = (table[name].to_numpy() for name in ("layer", "head", "dy", "dx"))
    values[layer, head, dy + 3, dx + 3] = table["value"].to_numpy()
    np.testing.assert_allclose(values, captured.offsets, rtol=1e-12)
    np.testing.assert_allclose(values.sum((2, 3)), 1, rtol=1e-6)


def test_shares_are_those_of_one_call_whatever_the_batches(found, pixels, folder):
    model = load_model(str(folder / "vit"))
    expected = logit_shares(model.module, pixels, model.layout, permutations=3, forward=model.forward)
    share = expected.filter(
        (pc.field("layer") == 1) & (pc.field("head") == 3) & (pc.field("component") == "PP")
    )
    (row,) = rows(found.shares, folder / "vit", layer=1, head=3, component="PP").to_pylist()
    assert [row["share"], row["low"], row["high"]] == pytest.approx(
        interval(share["share"].to_numpy()), rel=1e-3, abs=1e-6
    )


def test_random_weights_are_another_draw_of_the_same_architecture(found, folder):
    one, label = folder / "vit", with_random_weights(str(folder / "vit"))
    assert set(found.table["model"].to_pylist()) == {str(one), label}
    own, drawn = (
        rows(found.layers, name).drop_columns(["model", "mean", "low", "high"]) for name in (one, label)
    )
    assert own.equals(drawn)
    first, second = (
        rows(mimlab.probe(str(one), folder / "images", ["nmi"], seed=seed).layers, label)["mean"]
        for seed in (0, 1)
    )
    assert np.allclose(first, rows(found.layers, label, statistic="nmi")["mean"], rtol=1e-3)
    assert not np.allclose(first, second, rtol=1e-2)
    given = mimlab.probe(vit(), folder / "images", ["nmi"]).layers
    assert np.isfinite(rows(given, "ViTModel (random weights)")["mean"]).all()
    lone = mimlab.probe(Sized().eval(), folder / "images", ["nmi"], preprocess=Preprocessing((32, 32), *HALF))
    assert set(lone.table["model"].to_pylist()) == {"Sized"}
    assert "Sized: no baseline with random weights" in lone.summary["warnings"][0]
    alone = mimlab.probe(str(one), folder / "images", random_weights=False)
    assert set(alone.table["model"].to_pylist()) == {str(one)}


def test_layers_and_heads_keep_their_numbers(folder):
    found = mimlab.probe(vit(), folder / "images", ["nmi"], layers=[1], heads=[3, 1], random_weights=False)
    assert set(found.table["layer"].to_pylist()) == {1}
    assert found.table["head"].to_pylist()[:2] == [3, 1]
    assert found.layers["head"].to_pylist() == [3, 1, None]
    assert found.summary["models"][0]["layers"][0]["heads"] == 4


def test_summary_says_what_was_measured(found, folder):
    (model,) = found.summary["models"]
    assert model["name"] == str(folder / "vit")
    loaded = load_model(str(folder / "vit")).module
    assert model["parameters"] == sum(one.numel() for one in loaded.parameters())
    assert [(one["layer"], one["heads"], one["grid"], one["prefix"]) for one in model["layers"]] == [
        (0, 4, (4, 4), 1),
        (1, 4, (4, 4), 1),
    ]
    assert (found.summary["images"], found.skipped, found.summary["warnings"]) == (IMAGES, [], [])
    entropy = next(one for one in found.summary["baselines"] if one["statistic"] == "entropy")
    assert (entropy["uniform"], entropy["identity"]) == (pytest.approx(np.log(16)), 0)
    assert found.summary["images_per_second"] == pytest.approx(2 * IMAGES / found.summary["seconds"])


def test_weights_that_are_not_numbers_are_told_by_layer(folder):
    model = vit()
    model.layers[1].attention.q_proj.weight.data[0, 0] = float("nan")
    found = mimlab.probe(model, folder / "images", ["entropy", "nmi"])
    values = rows(found.layers, "ViTModel", head=None)["mean"].to_numpy().reshape(2, 2)
    assert np.isfinite(values[0]).all() and np.isnan(values[1]).any()
    parameters, layers = found.summary["warnings"]
    assert "1 of" in parameters and "layers.1.attention" in parameters
    assert "depth 2 are not numbers (NaN)" in layers


def test_windowed_attention_is_said(folder):
    torch.manual_seed(0)
    config = SwinConfig(
        image_size=32, patch_size=4, window_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2]
    )
    found = mimlab.probe(SwinModel(config, add_pooling_layer=False).eval(), folder / "images", "all")
    assert any("windows of 16 patches" in warning for warning in found.summary["warnings"])
    assert [one["windows"] for one in found.summary["models"][0]["layers"]] == [4, 1]
    assert found.offsets is None
    assert set(found.layers["head"].to_pylist()) == {0, 1, None}


def test_half_precision_is_close(folder):
    one, half = (
        mimlab.probe(vit(), folder / "images", ["distance"], dtype=dtype).layers["mean"].to_numpy()
        for dtype in ("float32", "bfloat16")
    )
    assert not np.array_equal(one, half)
    np.testing.assert_allclose(one, half, rtol=0.05)


def test_without_images_it_is_the_photographs_of_scikit_image():
    found = mimlab.probe(vit(), statistics=["nmi"])
    assert found.summary["source"] == "scikit-image's photographs"
    assert found.summary["images"] == len(BUNDLED)
    assert {"coffee.png", "rocket.jpg"} < set(found.table["image"].to_pylist())


class Sized(nn.Module):
    """Attention over the patches of whatever size an image has."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.attention = nn.Conv2d(3, 8, 8, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0]


def growing():
    """A preprocessing under which every image is larger than the one before."""
    sides = iter(range(16, 160, 8))

    def preprocess(image: Image.Image) -> torch.Tensor:
        side = next(sides)
        return Preprocessing((side, side), *HALF)(image)

    return preprocess


REFUSED = {
    "training": (lambda: (vit().train(), {}), "call model.eval() first"),
    "one name twice": (lambda: ([vit(), vit()], {}), "two models are called ViTModel"),
    "no attention": (lambda: (nn.Sequential(nn.Conv2d(3, 4, 8)).eval(), {}), "no self-attention"),
    "no model": (lambda: ([], {}), "at least one model"),
    "statistic": (lambda: (vit(), {"statistics": ["locality"]}), 'no statistic is called "locality"'),
    "head": (lambda: (vit(), {"heads": [4]}), "has heads 0 to 3"),
    "negative head": (lambda: (vit(), {"heads": [-1]}), "heads = [-1]"),
    "layer": (lambda: (vit(), {"layers": [2]}), "layer 2 was not seen"),
    "batch size": (lambda: (vit(), {"batch_size": 0}), "batch_size = 0"),
    "permutations": (lambda: (vit(), {"permutations": 1}), "permutations = 1"),
    "method": (lambda: (vit(), {"method": "fast"}), "method must be"),
    "type": (lambda: (vit(), {"dtype": "int8"}), "dtype must be"),
    "device": (lambda: (vit(), {"device": "abacus"}), "device = abacus"),
    "pixels of another size": (
        lambda: (vit(), {"preprocess": Preprocessing((40, 40), *HALF)}),
        "fails on an image of 40 x 40 pixels",
    ),
    "sizes that change": (
        lambda: (Sized().eval(), {"preprocess": growing(), "batch_size": 1}),
        "another grid of patches",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused(case, folder):
    given, words = REFUSED[case]
    model, options = given()
    with pytest.raises(mimlab.InputError) as caught:
        mimlab.probe(model, folder / "images", **options)
    assert words in str(caught.value)


def test_images_none_of_which_can_be_used_are_refused_with_reasons(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(mimlab.InputError, match=r"none of the 1 images can be used(.|\n)*a\.png"):
        mimlab.probe(vit(), tmp_path)


def test_an_image_given_again_counts_once(folder):
    images = folder / "images"
    found = mimlab.probe(
        vit(), [images / "0.png", images, images / "1.png"], ["nmi"], random_weights=False, method="tiles"
    )
    assert found.table["image"].unique().to_pylist() == [f"{number}.png" for number in range(IMAGES)]
    assert found.summary["images"] == IMAGES
    assert (
        "an image was given again 2 times, by another path or the same: each counts once"
        in (found.summary["warnings"])
    )


def test_parts_on_disk_are_what_was_kept(found, tmp_path):
    from mimlab.studies.probe_parts import MOMENTS_SCHEMA, Part

    row = {
        "layer": 0,
        "module": "a",
        "head": None,
        "statistic": "nmi",
        "count": 2,
        "mean": 0.1,
        "squares": 1e-17,
    }
    moments = pa.Table.from_pylist([row], schema=MOMENTS_SCHEMA)
    kept = PartsInFolder(tmp_path / "parts")
    kept.add(1, Part({"probe": found.table, "moments": moments}, 2, [("b.png", "bad")], 0.5))
    kept.add(1, Part({}, 0, []))
    stored = PartsInFolder(tmp_path / "parts")
    again = list(stored.of(1, "moments"))
    assert [(parts.done(0), parts.done(1)) for parts in (kept, stored)] == [(0, 2)] * 2
    assert next(stored.of(1, "probe")).tables["probe"].equals(found.table)
    assert again[0].tables["moments"].equals(moments)
    assert (again[0].images, again[0].skipped, again[0].seconds) == (2, [["b.png", "bad"]], 0.5)
    assert layers_of("m", again)["mean"].to_pylist() == [0.1]
