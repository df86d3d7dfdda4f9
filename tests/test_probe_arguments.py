"""Arguments of another kind than they should be: in messages, with what is allowed, and never raw errors."""

import numpy as np
import pytest
import torch
from PIL import Image

import mimlab
from mimlab.probing.layout import Layout

from .test_studies_probe import vit

PIXELS = torch.zeros(1, 3, 32, 32)
NO_CHOICE = "at least one; leave it out for all"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"layers": []}, ["layers = []", "places in the forward pass", NO_CHOICE]),
        ({"layers": 0}, ["layers = 0 ", NO_CHOICE]),
        ({"layers": "blocks.0"}, ["layers = 'blocks.0' must be a list"]),
        ({"layers": [True]}, ["layers = [True]"]),
        ({"heads": 0}, ["heads = 0 must be a list of numbers from 0", NO_CHOICE]),
        ({"heads": []}, ["heads = []", NO_CHOICE]),
        ({"heads": ["first"]}, ["heads = ['first']", NO_CHOICE]),
        ({"heads": [0.5]}, ["heads = [0.5]"]),
        ({"statistics": None}, ["statistics = None must be a list of names", '"core"']),
        ({"statistics": []}, ["statistics = []", "at least one"]),
        ({"statistics": [["nmi"]]}, ["no statistic is called", "known are core, all"]),
        ({"layout": (4, 6)}, ["layout = (4, 6) must be a Layout", "leave it out"]),
    ],
    ids=str,
)
def test_capture_refuses_it_when_the_context_opens(options, parts):
    with pytest.raises(mimlab.InputError) as caught, mimlab.capture(vit(), **options):
        pytest.fail("the context was opened")
    assert all(part in str(caught.value) for part in parts), caught.value


def test_capture_takes_modules_alone():
    with pytest.raises(mimlab.InputError, match=r"model = 'vit' .*torch\.nn\.Module.*mimlab\.probe"):
        mimlab.capture("vit").__enter__()


def test_capture_takes_numbers_of_numpy():
    model = vit()
    with torch.no_grad(), mimlab.capture(model, "nmi", np.arange(1), np.arange(1, 3)) as capture:
        model(PIXELS)
    assert capture["nmi"].shape == (1, 1, 2)
    assert capture.table["head"].to_pylist() == [1, 2]


def test_a_batch_of_no_images_is_refused():
    model = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    none = torch.zeros(0, 4, 8)
    layout = Layout((2, 2))
    with (
        pytest.raises(mimlab.InputError, match="batch of 0 images; give at least one"),
        torch.no_grad(),
        mimlab.capture(model, layout=layout),
    ):
        model(none, none, none)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (3, {}, "model = 3 must be a name, a torch.nn.Module, a NamedModel, or a list"),
        (None, {}, "model = None must be"),
        (vit, {"images": 3}, "images must be a list (a path, ...), not 3"),
        (vit, {"images": []}, "images: the list is empty; give folders or files"),
        (vit, {"heads": 0}, "heads must be a list (a whole number, ...), not 0"),
        (vit, {"heads": []}, "heads = [] must be numbers of heads, from 0; leave it out"),
        (vit, {"layers": 1}, "layers must be a list"),
        (vit, {"statistics": None}, "statistics must be a list"),
        (vit, {"statistics": []}, "statistics: give at least one"),
        (vit, {"preprocess": 3}, "preprocess = 3 must be a function"),
    ],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_probe_refuses_it(model, options, words):
    with pytest.raises(mimlab.InputError) as caught:
        mimlab.probe(model() if callable(model) else model, **options)
    assert words in str(caught.value)


def test_probe_loads_a_model_once(tmp_path, monkeypatch):
    """Not for the trial, the weights drawn anew and the measuring each."""
    from mimlab.probing import models

    load, loaded = models.load_model, []
    monkeypatch.setattr(models, "load_model", lambda name: loaded.append(name) or load(name))
    vit().save_pretrained(tmp_path / "vit")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    name = str(tmp_path / "vit")
    found = mimlab.probe(name, [tmp_path / "a.png"], ["nmi"], method="tiles")
    assert len(found.layers["model"].unique()) == 2
    assert loaded == [name]
