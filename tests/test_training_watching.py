"""Watching: what is measured on the fixed batch is what the model does, nothing is disturbed, a collapse is told."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from transformers import ViTConfig, ViTModel

import mimlab
from mimlab import statistics
from mimlab.probing.catalogue import CORE
from mimlab.probing.collapse import Falls
from mimlab.probing.shares import COMPONENTS, shares_of
from mimlab.runs import InputError
from mimlab.training.watching import (
    OUTPUTS,
    SCHEMA,
    SHARES_SCHEMA,
    STATISTICS,
    Alarm,
    Watching,
    deviation,
    effective_rank,
    find_alarms,
)

SIDE, LAYERS, HEADS, IMAGES = 16, 2, 2, 6
PATCHES = (SIDE // 4) ** 2


class Objective(torch.nn.Module):
    """A small encoder whose queries and keys are large enough for its attention to be diverse."""

    def __init__(self, seed=0, sharp=30.0, **sizes):
        super().__init__()
        torch.manual_seed(seed)
        chosen = {"hidden_size": 16, "intermediate_size": 32, "image_size": SIDE, "patch_size": 4} | sizes
        config = ViTConfig(num_hidden_layers=LAYERS, num_attention_heads=HEADS, **chosen)
        self.encoder = ViTModel(config, add_pooling_layer=False)
        with torch.no_grad():
            for name, weights in self.encoder.named_parameters():
                if any(part in name for part in ("q_proj", "k_proj", "query", "key")):
                    weights *= sharp
                if "position" in name:
                    weights += torch.randn(weights.shape)


@pytest.fixture
def batch():
    return torch.randn(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def value(table, statistic, layer=None, head=None):
    chosen = table.filter(pc.field("statistic") == statistic)
    for key, wanted in (("layer", layer), ("head", head)):
        if wanted is not None:
            chosen = chosen.filter(pc.field(key) == wanted)
    (one,) = chosen["value"].to_pylist()
    return one


def maps_of(encoder, batch):
    """(layers, images, heads, patches, patches) by the model's own eager attention."""
    encoder.set_attn_implementation("eager")
    with torch.no_grad():
        given = encoder.eval()(pixel_values=batch, output_attentions=True)
    encoder.set_attn_implementation("sdpa")
    patches = torch.stack(given.attentions)[..., 1:, 1:].double()
    return (patches / patches.sum(-1, keepdim=True)).numpy(), given.last_hidden_state.double().numpy()


def test_rows_are_means_over_the_batch_and_those_of_the_mean_map(batch):
    objective = Objective()
    watching = Watching(batch)
    table = watching.observe(objective, 7)
    assert table.schema == SCHEMA
    assert set(table["step"].to_pylist()) == {7}
    assert len(table) == LAYERS * HEADS * len(STATISTICS) + len(OUTPUTS)
    maps, _ = maps_of(objective.encoder, batch)
    for layer in range(LAYERS):
        for head in range(HEADS):
            one = maps[layer, :, head]
            for name in ("nmi", "entropy", "diversity", "spread", "information"):
                formula = getattr(statistics, name)
                assert value(table, name, layer, head) == pytest.approx(formula(one).mean(), abs=1e-5)
                positional = value(table, f"positional_{name}", layer, head)
                assert positional == pytest.approx(float(formula(one.mean(0))), abs=1e-5)
    assert value(table, "nmi", 0, 0) > 0.05  # not all of it is rounding
    record = {"grid": [4, 4], "prefix": 1, "patch_size": [4.0, 4.0], "windows": 1, "heads": HEADS}
    names = table.filter(pc.is_valid(pc.field("layer")))["module"].unique().to_pylist()
    assert watching.layers == [{"layer": n, "module": names[n], **record} for n in range(LAYERS)]


def test_outputs_are_those_of_cls_and_of_the_mean_patch(batch):
    objective = Objective()
    table = Watching(batch).observe(objective, 0)
    _, hidden = maps_of(objective.encoder, batch)
    for name, vectors in (("cls", hidden[:, 0]), ("mean", hidden[:, 1:].mean(1))):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        share = np.sqrt(unit.var(0).mean()) * math.sqrt(unit.shape[1])  # 1/sqrt(dim) where spread
        singular = np.linalg.svd(unit, compute_uv=False)
        p = singular / singular.sum()
        assert value(table, f"{name}_deviation") == pytest.approx(share, rel=1e-5)
        assert value(table, f"{name}_rank") == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_deviation_and_rank_of_known_vectors():
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(4000, 8, generator=generator)
    assert deviation(spread) == pytest.approx(1, abs=1e-2)
    assert effective_rank(spread) == pytest.approx(8, rel=1e-3)
    assert deviation(1e3 * spread) == pytest.approx(deviation(spread))  # lengths do not count
    alike = torch.ones(50, 8) + 1e-4 * spread[:50]
    assert deviation(alike) < 1e-3
    assert effective_rank(alike) < 1.01
    assert math.isnan(effective_rank(torch.full((3, 3), math.nan)))


def test_training_goes_on_as_if_nobody_had_looked(batch):
    def trained(look):
        objective = Objective(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
        objective.encoder.layers[0].eval()  # a part that is frozen stays so
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
        watching = Watching(batch)
        torch.manual_seed(5)
        for step in range(3):
            optimizer.zero_grad()
            objective.encoder(
                pixel_values=torch.randn(4, 3, SIDE, SIDE)
            ).last_hidden_state.square().mean().backward()
            if look:
                watching.observe(objective, step)
                watching.query_maps(objective, step, query=5)
                watching.shares(objective, step, images=2, permutations=2)
            optimizer.step()
        assert objective.training and not objective.encoder.layers[0].training
        return torch.cat([one.detach().ravel() for one in objective.parameters()]), torch.rand(3)

    for seen, unseen in zip(trained(True), trained(False), strict=True):
        assert torch.equal(seen, unseen)


def test_dropout_is_off_and_the_batch_is_fixed(batch):
    objective = Objective(hidden_dropout_prob=0.5).train()
    watching = Watching(batch)
    first = watching.observe(objective, 1)
    batch.zero_()  # the caller's tensor is not the watched one
    assert watching.observe(objective, 1).equals(first)


def test_a_query_s_map_is_the_mean_over_heads(batch):
    objective = Objective()
    found = Watching(batch).query_maps(objective, 3, query=9, image=2)
    maps, _ = maps_of(objective.encoder, batch)
    assert found.column_names == ["step", "layer", "query", "patch", "value"]
    values = found["value"].to_numpy().reshape(LAYERS, PATCHES)
    np.testing.assert_allclose(values, maps[:, 2, :, 9].mean(1), atol=1e-6)
    assert found["patch"].to_pylist()[: PATCHES + 1] == [*range(PATCHES), 0]


def logits_by_hand(encoder, image, order):
    """Logits (samples, heads, patches, patches) of the first layer on permuted copies of an image (3, s, s), from the
    weights of the encoder: patches are moved, projected, and each query meets each key, in plain loops."""
    weights = {name: value.double().numpy() for name, value in encoder.state_dict().items()}

    def of(end):
        (found,) = [
            value for name, value in weights.items() if name.endswith(end) and "layers.1." not in name
        ]
        return found

    kernel = of("projection.weight").reshape(16, -1)
    norm, width = (of("layernorm_before.weight"), of("layernorm_before.bias")), 16 // HEADS
    items = [
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].double().numpy().ravel()
        for row in range(SIDE // 4)
        for column in range(SIDE // 4)
    ]
    logits = np.zeros((len(order), HEADS, PATCHES, PATCHES))
    for sample, places in enumerate(order):
        queries, keys = np.zeros((2, PATCHES, 16))
        for item, place in enumerate(places):
            token = kernel @ items[item] + of("projection.bias") + of("position_embeddings")[0, place + 1]
            x = (token - token.mean()) / np.sqrt(token.var() + encoder.config.layer_norm_eps)
            x = x * norm[0] + norm[1]
            queries[place] = of("q_proj.weight") @ x + of("q_proj.bias")
            keys[place] = of("k_proj.weight") @ x + of("k_proj.bias")
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            for query in range(PATCHES):
                for key in range(PATCHES):
                    logits[sample, head, query, key] = (
                        queries[query, part] @ keys[key, part] / math.sqrt(width)
                    )
    return logits


def test_shares_are_those_of_logits_computed_by_hand(batch):
    objective = Objective(hidden_dropout_prob=0.5).train()
    table = Watching(batch).shares(objective, 5, images=3, permutations=4)
    assert table.schema == SHARES_SCHEMA and set(table["step"].to_pylist()) == {5}
    assert len(table) == LAYERS * HEADS * len(COMPONENTS)
    by_image = []
    for number in range(3):
        draws = np.random.default_rng((0, number))
        order = np.array([draws.permutation(PATCHES) for _ in range(4)])
        logits = logits_by_hand(objective.encoder, batch[number], order)
        by_image.append([shares_of(logits[:, head], order, drop_self=True) for head in range(HEADS)])
    for row in table.filter(pc.field("layer") == 0).to_pylist():
        values = [one[row["head"]][row["component"]] for one in by_image]
        width = 4.302653 * np.std(values, ddof=1) / math.sqrt(3)  # Student's t with 2 degrees of freedom
        mean = np.mean(values)
        assert row["share"] == pytest.approx(mean, abs=1e-5)
        assert (row["low"], row["high"]) == pytest.approx((mean - width, mean + width), abs=1e-4)
    assert {"PP", "FP"} <= {
        row["component"] for row in table.to_pylist() if row["layer"] == 0 and row["share"] > 0.05
    }


@pytest.mark.parametrize("shape", [(1, 3, SIDE, SIDE), (3, SIDE, SIDE)])
def test_one_image_is_no_batch(shape):
    with pytest.raises(InputError, match="at least two images"):
        Watching(torch.zeros(shape))


def series(statistic, values, layer=0, heads=1):
    records = [
        {"step": step, "layer": layer, "module": "m", "head": head, "statistic": statistic, "value": one}
        for step, one in enumerate(values)
        for head in range(heads)
    ]
    return pa.Table.from_pylist(records, schema=SCHEMA)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.1, 0.3, 0.4, 0.25, 0.21], []),  # a dip is none
        ([0.0, 0.4, 0.19, 0.18, 0.1, 0.08], [(2, 0.19, 0.4), (5, 0.08, 0.19)]),  # again where it halves again
        ([0.0, 0.4, 0.19, 0.5, 0.2], [(2, 0.19, 0.4), (4, 0.2, 0.5)]),  # it may recover
        ([0.03, 0.001, 0.04, 0.0], []),  # nearly uniform has nothing to lose
        ([0.2, math.nan, 0.05], [(2, 0.05, 0.2)]),
        ([0.4, 0.5, 0.45, 0.0], [(3, 0.0, 0.5)]),
    ],
)
def test_a_fall_of_nmi_is_told_once(values, expected):
    found = find_alarms(series("nmi", values, layer=3, heads=2))
    assert found == [Alarm(step, 3, "nmi", one, was) for step, one, was in expected]
    assert find_alarms(series("diversity", values, layer=3)) == []


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([0.9, 0.5, 0.06], []),
        ([0.9, 0.5, 0.04, 0.04, 0.03], [2]),
        ([0.01, 0.02, 0.6, 0.01], [3]),  # a fresh network's outputs may be alike
        ([0.0, 0.0, 0.0], []),
    ],
)
def test_outputs_that_become_alike_are_told(values, steps):
    found = find_alarms(series("mean_deviation", values, layer=None))
    assert [alarm.step for alarm in found] == steps
    assert all("mean outputs" in str(alarm) for alarm in found)


def test_alarms_of_several_layers_come_in_order_and_say_what_was_seen():
    table = pa.concat_tables(
        [
            series("nmi", [0.4, 0.4, 0.4, 0.1], layer=0),
            series("nmi", [0.4, 0.4, 0.1, 0.1], layer=1),
            series("cls_deviation", [0.8, 0.01, 0.01, 0.01], layer=None),
        ]
    )
    found = find_alarms(table)
    assert [(alarm.step, alarm.layer) for alarm in found] == [(1, None), (2, 1), (3, 0)]
    assert str(found[1]).startswith("step 2: NMI at depth 2 is 0.1 and was 0.4")
    assert "CLS outputs" in str(found[0]) and "0.01" in str(found[0])
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    assert find_alarms(shuffled) == found
    falls = Falls()
    looks = [find_alarms(table.filter(pc.field("step") == step), falls) for step in range(4)]
    assert [alarm for look in looks for alarm in look] == found and looks[0] == []


def test_a_network_driven_to_collapse_sounds_both_alarms_and_one_that_is_left_alone_none(batch):
    def watched(train):
        objective = Objective()
        watching = Watching(batch)
        optimizer = torch.optim.AdamW(objective.parameters(), lr=0.02, weight_decay=5.0)
        found = [watching.observe(objective, 0)]
        for step in range(1, 41):
            if train:
                optimizer.zero_grad()
                outputs = objective.encoder(pixel_values=batch).last_hidden_state
                (
                    outputs - outputs.mean((0, 1))
                ).square().mean().backward()  # all alike, and nothing against it
                optimizer.step()
            if step % 10 == 0:
                found.append(watching.observe(objective, step))
        return pa.concat_tables(found)

    alarms = find_alarms(watched(train=True))
    assert {"nmi", "cls_deviation"} <= {alarm.statistic for alarm in alarms}
    assert find_alarms(watched(train=False)) == []


def test_the_statistics_are_the_probe_s(batch):
    objective = Objective()
    table = Watching(batch).observe(objective, 0)
    objective.eval()
    with torch.no_grad(), mimlab.capture(objective.encoder) as capture:
        objective.encoder(pixel_values=batch)
    for name in CORE:
        for layer in range(LAYERS):
            np.testing.assert_allclose(
                [value(table, name, layer, head) for head in range(HEADS)], capture[name][:, layer].mean(0)
            )
