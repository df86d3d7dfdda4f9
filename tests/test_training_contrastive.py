"""SimCLR, MoCo v3 and DINO against their papers' formulas in plain loops, and who follows whom."""

import math

import pytest
import torch

from mimlab.runs import build
from mimlab.training import views
from mimlab.training.config import PretrainConfig
from mimlab.training.crops import Batch
from mimlab.training.draws import generator
from mimlab.training.networks import build_encoder
from mimlab.training.objectives import build_objective
from mimlab.training.objectives.base import momentum_at
from mimlab.training.objectives.contrastive import info_nce, nt_xent
from mimlab.training.objectives.distillation import DINO, distilled

SMALL = {"image_size": 16, "width": 24, "depth": 2, "heads": 2}
CONFIG = build(PretrainConfig, {"network": SMALL})


def built(**options):
    return build_objective(build(PretrainConfig, {"objective": options, "network": SMALL}))


def crops(batch=6):
    pixels = torch.rand(batch, 3, 24, 24, generator=generator(0, "crops"))
    return Batch(pixels, torch.zeros(batch, dtype=torch.long))


def vectors(*shape, place=0):
    return torch.randn(*shape, generator=generator(0, place, "vectors")).double()


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def softmax(values):
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_nt_xent_is_that_of_loops(temperature):
    one, other = vectors(5, 3), vectors(5, 3, place=1) + vectors(5, 3)
    z = [*one.tolist(), *other.tolist()]
    terms, hits = [], []
    for i in range(10):
        similar = {k: cosine(z[i], z[k]) / temperature for k in range(10) if k != i}
        partner = (i + 5) % 10
        terms.append(math.log(sum(map(math.exp, similar.values()))) - similar[partner])
        hits.append(max(similar, key=similar.get) == partner)
    loss, found = nt_xent(one, other, temperature)
    assert loss.item() == pytest.approx(sum(terms) / 10, rel=1e-12)
    assert found.tolist() == hits
    assert 0 < sum(hits) < 10


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_info_nce_is_that_of_loops(temperature):
    queries, keys = vectors(6, 3), vectors(6, 3, place=1) + vectors(6, 3)
    terms, hits = [], []
    for i, query in enumerate(queries.tolist()):
        similar = [cosine(query, key) / temperature for key in keys.tolist()]
        terms.append(-2 * temperature * math.log(softmax(similar)[i]))
        hits.append(similar.index(max(similar)) == i)
    loss, found = info_nce(queries, keys, temperature)
    assert loss.item() == pytest.approx(sum(terms) / 6, rel=1e-12)
    assert found.tolist() == hits
    assert 0 < sum(hits) < 6


def test_similarities_are_not_rounded_under_autocast():
    queries, keys = vectors(6, 3).float(), vectors(6, 3, place=1).float()
    for loss in (nt_xent, info_nce):
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(queries, keys, 0.2)[0]
        assert torch.equal(found, loss(queries, keys, 0.2)[0])


@pytest.mark.parametrize("count", [2, 4])
def test_distillation_is_that_of_loops(count):
    student = [vectors(3, 5, place=v) for v in range(count)]
    teacher, centre = vectors(2, 3, 5, place=9), vectors(5, place=10)
    terms, entropies, mean = [], [], [0.0] * 5
    for t in range(2):
        for image in range(3):
            shifted = ((teacher[t, image] - centre) / 0.04).tolist()
            target = softmax(shifted)
            entropies.append(-sum(p * math.log(p) for p in target if p))
            mean = [m + p / 6 for m, p in zip(mean, target, strict=True)]
            for v in range(count):
                if v != t:
                    said = softmax((student[v][image] / 0.1).tolist())
                    terms.append(-sum(p * math.log(q) for p, q in zip(target, said, strict=True)))
    found = distilled(student, teacher, centre, 0.1)
    entropy = sum(entropies) / 6
    assert found["loss"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert found["teacher_entropy"].item() == pytest.approx(entropy, rel=1e-9)
    whole = -sum(m * math.log(m) for m in mean if m)
    assert found["teacher_divergence"].item() == pytest.approx(whole - entropy, rel=1e-9)


def test_distillation_pulls_the_student_alone():
    student = [vectors(3, 5, place=v).requires_grad_() for v in range(2)]
    teacher = vectors(2, 3, 5, place=9).requires_grad_()
    distilled(student, teacher, torch.zeros(5).double(), 0.1)["loss"].backward()
    assert teacher.grad is None
    assert all(one.grad.abs().max() > 0 for one in student)


def shown(objective, draws, scale=(0.15, 1.0)):
    side = objective.image_size
    return [views.standardise(views.strong(crops().pixels, side, draws, scale)) for _ in range(2)]


def test_simclr_is_its_loss_on_two_views():
    objective = built(name="simclr")
    found = objective.loss(crops(), generator(1))
    one, other = shown(objective, generator(1))
    hidden = objective.encoder(torch.cat([one, other])).last_hidden_state[:, 0]
    z = objective.projector(hidden)
    loss, hits = nt_xent(z[:6].double(), z[6:].double(), 0.2)
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert found["top1"].item() == pytest.approx(hits.double().mean().item())


def test_moco_is_its_loss_of_each_view_against_the_others_keys():
    objective = built(name="moco-v3")
    with torch.no_grad():  # so that queries and keys come of different weights
        for value in objective.slow_encoder.parameters():
            value.mul_(1.1)
    found = objective.loss(crops(), generator(1))["loss"].item()
    one, other = shown(objective, generator(1))

    def query(view):
        return objective.predictor(objective.projector(objective.encoder(view).last_hidden_state[:, 0]))

    def key(view):
        return objective.slow_projector(objective.slow_encoder(view).last_hidden_state[:, 0])

    expected = info_nce(query(one), key(other), 0.2)[0] + info_nce(query(other), key(one), 0.2)[0]
    assert found == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("name", "start"), [("moco-v3", 0.99), ("dino", 0.996)])
def test_the_slow_copy_follows_after_a_step_and_never_before(name, start):
    objective = built(name=name)
    slow = {key: value.clone() for key, value in objective.slow_encoder.state_dict().items()}
    for value in objective.encoder.parameters():
        value.data.add_(1)
    objective.loss(crops(), generator(0))["loss"].backward()
    now = objective.slow_encoder.state_dict()
    assert all(torch.equal(now[key], value) for key, value in slow.items())
    objective.after_step(0.25)
    momentum = 1 - (1 - start) * (1 + math.cos(math.pi / 4)) / 2
    fast, now = objective.encoder.state_dict(), objective.slow_encoder.state_dict()
    for key, value in slow.items():
        assert torch.allclose(now[key], momentum * value + (1 - momentum) * fast[key], atol=1e-6), key
    assert all(value.grad is None for value in objective.slow_encoder.parameters())


def test_momentum_rises_to_one():
    rising = [momentum_at(0.9, progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert rising == sorted(rising)
    assert rising[2] == pytest.approx(0.95)


def test_the_centre_follows_the_teacher_at_the_end_of_a_step():
    objective = built(name="dino")
    with torch.no_grad():
        said = []
        for number in range(2):  # as with accumulation
            objective.loss(crops(), generator(number))
            said += [objective.teach(view) for view in shown(objective, generator(number), (0.4, 1.0))]
    assert not objective.centre.any()
    objective.after_step(0.5)
    assert torch.allclose(objective.centre, 0.1 * torch.cat(said).mean(0), atol=1e-7)
    centre = objective.centre.clone()
    objective.eval()
    objective.loss(crops(), generator(2))
    objective.after_step(0.5)
    assert torch.equal(objective.centre, centre)


def test_local_views_are_smaller_and_the_students_alone():
    sides: dict[str, list[int]] = {"student": [], "teacher": []}
    objective = DINO(build_encoder(CONFIG.network, 0), prototypes=8, local_views=2)
    objective.encoder.register_forward_pre_hook(lambda _, given: sides["student"].append(given[0].shape[-1]))
    objective.slow_encoder.register_forward_pre_hook(
        lambda _, given: sides["teacher"].append(given[0].shape[-1])
    )
    objective.loss(crops(), generator(0))["loss"].backward()
    assert sides == {"student": [16, 16, 8, 8], "teacher": [16, 16]}


@pytest.mark.parametrize("name", ["simclr", "moco-v3"])
def test_a_fixed_batch_is_told_apart(name):
    objective = built(name=name)
    parameters = [value for value in objective.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    for _ in range(25):
        found = objective.loss(crops(), generator(0))
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        objective.after_step(0.1)
        losses.append(found["loss"].item())
    assert losses[-1] < 0.7 * losses[0]
    assert found["top1"] > 0.8
