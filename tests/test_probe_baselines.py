"""Baselines of published conventions against the conventions themselves, and where they are shown."""

import math

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

import mimlab
from mimlab.probing.catalogue import PUBLISHED, baselines
from mimlab.probing.conventions import CONVENTIONS
from mimlab.probing.layout import Layout
from mimlab.report.probe_page import draw_probe_figures, write_probe_page
from mimlab.report.probe_sections import glossary, layer_rows
from mimlab.report.probe_tables import warnings_of

from .test_studies_probe import vit

LAYOUT = Layout((14, 14), 1, (16, 16))


def weights(kind: str, layout: Layout) -> torch.Tensor:
    """Attention maps of some images, (images, 1, tokens, tokens)."""
    if kind == "uniform":
        return torch.full((1, 1, layout.tokens, layout.tokens), 1 / layout.tokens)
    if kind == "identity":
        return torch.eye(layout.tokens)[None, None]
    logits = torch.randn(8, 1, layout.tokens, layout.tokens, generator=torch.Generator().manual_seed(0))
    return logits.softmax(-1)


@pytest.mark.parametrize("layout", [LAYOUT, Layout((12, 12), 5, (4.0, 4.0))], ids=str)
@pytest.mark.parametrize(("kind", "near"), [("uniform", 1e-6), ("identity", 1e-4), ("random", 0.08)])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_they_are_what_the_published_formula_gives(name, kind, near, layout):
    maps = weights(kind, layout)
    running = CONVENTIONS[name](layout, images=len(maps), heads=1)
    running.update(maps, slice(0, len(maps)), slice(0, layout.tokens))
    (said,) = baselines(layout, [name])
    assert said[kind] == pytest.approx(running.finish().mean().item(), rel=near, abs=1e-6)


@pytest.mark.parametrize("layout", [Layout((4, 6)), Layout((4, 4), 0, (8, 4)), Layout((1, 1))], ids=str)
def test_distances_have_none_where_the_formula_refuses_the_layout(layout):
    for name in PUBLISHED:
        values = [PUBLISHED[name].uniform(layout), PUBLISHED[name].random(layout)]
        distance = name.startswith("distance") or layout.patches == 1
        if distance and name != "nmi:cl-vs-mim":
            assert np.isnan(values).all(), name
        elif layout.patches > 1:
            assert np.isfinite(values).all(), name


def test_tables_and_glossary_show_them():
    found = mimlab.probe(vit(), statistics=["probing-vits"], random_weights=False, method="tiles")
    (model,) = found.summary["models"]
    assert [one["statistic"] for one in found.summary["baselines"]] == ["distance:probing-vits"]
    below = {row["depth"]: row["distance:probing-vits"] for row in layer_rows(model, found.layers)}
    expected = found.summary["baselines"][0]
    assert float(below["uniform"]) == pytest.approx(expected["uniform"], rel=0.01)
    assert below["identity"] == "0"
    ((_, told),) = glossary([model], found.layers).details
    assert "Uniform " in told and "–" not in told


def test_one_head_has_no_diversity_between_heads_and_that_is_no_warning():
    found = mimlab.probe(vit(num_attention_heads=1), statistics=["head_diversity", "nmi"], method="tiles")
    between = found.layers.filter(pc.field("statistic") == "head_diversity")["mean"].to_pylist()
    assert between and all(math.isnan(value) for value in between)
    assert not warnings_of(found.summary["models"], found.layers)


def test_a_page_explains_grey_only_where_there_is_any(tmp_path):
    for drawn in (False, True):
        found = mimlab.probe(vit(), statistics=["nmi"], random_weights=drawn, method="tiles")
        (tmp_path / "figures").mkdir(exist_ok=True)
        figures = draw_probe_figures(tmp_path, found.summary, found.layers)
        page = write_probe_page(tmp_path, found.summary, found.layers, figures).read_text()
        assert ("Grey: the same architecture" in page) == drawn
