"""The training loop: what a step does, how a run ends, and that one which was killed is one which was not."""

import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mimlab.probing.models import load_model
from mimlab.runs import InputError
from mimlab.training.checkpoints import Journal, checkpoint_folder, checkpoint_steps, load_encoder, load_state
from mimlab.training.config import TrainingConfig, WatchingConfig
from mimlab.training.draws import generator
from mimlab.training.log import TIMES
from mimlab.training.loop import launch, pretrain
from mimlab.training.schedule import learning_rate, parameter_groups, total_steps

from .training_standins import STEPS, Noise, Reconstruction, killed_at, small, tiny_encoder, trained


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def log_of(folder: Path) -> list[dict[str, float]]:
    """The log without what depends on the machine."""
    records = Journal(folder / "log.jsonl").records()
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def same(one: object, other: object) -> bool:
    """Equal to the last bit, tensors inside."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def weights_of(folder: Path) -> dict[str, object]:
    state = load_state(folder)
    return {"objective": dict(state["objective"]), "optimizer": state["optimizer"]}


def test_a_run_learns_and_leaves_log_checkpoints_and_state(tmp_path):
    outcome, objective = trained(tmp_path, small(60, blr=0.5))
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert (outcome.status, outcome.step, outcome.steps, len(losses)) == ("finished", 60, 60, 60)
    assert losses[-1] < 0.8 * losses[0]
    assert checkpoint_steps(tmp_path) == [0, 1, 8, 60]
    again = tiny_encoder()
    load_encoder(again, tmp_path)
    assert same(dict(again.state_dict()), dict(objective.encoder.state_dict()))
    assert load_state(tmp_path)["step"] == 60


def test_every_line_of_the_log_has_what_is_needed(tmp_path):
    config = small()
    trained(tmp_path, config)
    for step, record in enumerate(Journal(tmp_path / "log.jsonl").records(), 1):
        assert list(record)[:3] == ["step", "epoch", "loss"] and record["step"] == step
        assert {"lr", "masked", "grad_norm", *TIMES} <= record.keys()
        assert record["epoch"] == step * 4 / Noise.images
        assert record["lr"] == learning_rate(config, step, Noise.images)
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_line_is_the_mean_over_its_steps(tmp_path):
    trained(tmp_path / "each", small())
    sparse = replace(small(), watching=WatchingConfig(interval=5, checkpoints=4, log_interval=5))
    trained(tmp_path / "fifth", sparse)
    each, fifth = log_of(tmp_path / "each"), log_of(tmp_path / "fifth")
    assert [record["step"] for record in fifth] == [5, 10, 12]
    assert fifth[0]["loss"] == math.fsum(record["loss"] for record in each[:5]) / 5
    assert fifth[2]["loss"] == math.fsum(record["loss"] for record in each[10:]) / 2


def test_a_step_is_adamw_on_the_clipped_mean_gradient(tmp_path):
    """Two batches accumulated, against autograd and PyTorch's optimizer by hand."""
    config = small(1, accum_iter=2, clip=0.1)
    _, objective = trained(tmp_path, config)
    expected = Reconstruction()
    optimizer = torch.optim.AdamW(
        parameter_groups(expected, 0.05), lr=learning_rate(config, 1, Noise.images), betas=(0.9, 0.95)
    )
    with torch.random.fork_rng():
        for number, batch in enumerate(Noise().batches(iter(range(2)))):
            torch.manual_seed(generator(0, number, "global").initial_seed())
            (expected.loss(batch, generator(0, number, "loss"))["loss"] / 2).backward()
    norm = torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
    assert norm > 0.1
    optimizer.step()
    for (name, value), known in zip(objective.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(value, known, atol=1e-7), name


def test_matrices_decay_and_nothing_else(tmp_path):
    objective = Reconstruction()
    decaying, free = parameter_groups(objective, 0.05)
    names = {id(value): name for name, value in objective.named_parameters()}
    decays = {names[id(value)] for value in decaying["params"]}
    spared = {names[id(value)] for value in free["params"]}
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert "head.weight" in decays and "encoder.embeddings.patch_embeddings.projection.weight" in decays
    tokens = {f"encoder.embeddings.{name}" for name in ("cls_token", "mask_token", "position_embeddings")}
    assert tokens <= spared and "norm.weight" in spared and "head.bias" in spared
    assert decays | spared == set(names.values()) and not decays & spared


def test_what_is_frozen_is_not_trained():
    objective = Reconstruction()
    objective.encoder.embeddings.position_embeddings.requires_grad_(False)
    held = [value for group in parameter_groups(objective, 0.05) for value in group["params"]]
    assert all(value is not objective.encoder.embeddings.position_embeddings for value in held)


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing():
    config = small(100, blr=0.5)
    rates = [learning_rate(config, step, 8) for step in range(1, 101)]
    peak = 0.5 * 4 / 256
    assert max(rates) == rates[9] == rates[10] == pytest.approx(peak)
    assert rates[4] == pytest.approx(peak / 2)
    assert sorted(rates[10:], reverse=True) == rates[10:] and len(set(rates[10:])) == 90
    assert 0 < rates[-1] < 0.001 * peak


@pytest.mark.parametrize(("share", "epochs"), [(0.0, None), (None, 0.0)])
def test_a_run_without_warm_up_starts_at_its_peak(share, epochs):
    config = small(10, warmup=share, warmup_epochs=epochs)
    assert learning_rate(config, 1, 8) == pytest.approx(0.05 * 4 / 256)


def test_epochs_are_passes_over_the_images():
    config = small(steps=None, epochs=10, warmup_epochs=2, accum_iter=2)
    assert total_steps(config, 8) == 10
    rates = [learning_rate(config, step, 8) for step in (1, 2, 3)]
    assert rates[0] == pytest.approx(rates[1] / 2) and rates[1] == pytest.approx(rates[2])
    assert total_steps(config, 9) == 12


def test_the_same_seed_gives_the_same_run_whatever_the_global_state(tmp_path):
    torch.manual_seed(1)
    trained(tmp_path / "one")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    trained(tmp_path / "two")
    assert torch.equal(torch.get_rng_state(), before)
    trained(tmp_path / "other", small(seed=1))
    assert log_of(tmp_path / "one") == log_of(tmp_path / "two") != log_of(tmp_path / "other")
    assert same(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"))


def test_looking_changes_nothing(tmp_path):
    seen = []

    def look(step, objective):
        objective.eval()
        torch.manual_seed(step)
        assert not torch.is_grad_enabled()
        seen.append(step)

    trained(tmp_path / "unseen")
    trained(tmp_path / "seen", on_step=look)
    assert seen == [0, 1, 2, 3, 4, 5, 10, 12]
    assert log_of(tmp_path / "seen") == log_of(tmp_path / "unseen")
    assert same(weights_of(tmp_path / "seen"), weights_of(tmp_path / "unseen"))


def test_killed_at_any_moment_and_resumed_is_never_killed(tmp_path):
    """SIGKILL in a process of its own, at a step drawn at random."""
    killed_at(tmp_path / "whole")
    moment = random.Random(4).randrange(1, STEPS)
    script = Path(__file__).parent / "training_standins.py"
    process = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "killed"), str(moment)], capture_output=True, text=True
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert load_state(tmp_path / "killed")["step"] == moment
    killed_at(tmp_path / "killed")
    assert same(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole")), moment
    for name in ("log.jsonl", "looks.jsonl"):
        one, other = (Journal(tmp_path / run / name).records() for run in ("killed", "whole"))
        assert [{k: v for k, v in record.items() if k not in TIMES} for record in one] == [
            {k: v for k, v in record.items() if k not in TIMES} for record in other
        ]
    for step in checkpoint_steps(tmp_path / "whole"):
        one, other = (
            (checkpoint_folder(tmp_path / run, step) / "model.safetensors").read_bytes()
            for run in ("killed", "whole")
        )
        assert one == other


class Interrupted(Exception):
    pass


def stops_at(number):
    class Stopping(Noise):
        def batches(self, numbers):
            for one in numbers:
                if one == number:
                    raise Interrupted
                yield from super().batches(iter([one]))

    return Stopping()


@pytest.mark.parametrize("save_seconds", [0, 1e9], ids=["each step", "never"])
def test_lines_after_the_state_are_written_anew(tmp_path, save_seconds):
    config = replace(small(), watching=WatchingConfig(interval=5, checkpoints=4, log_interval=5))
    trained(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", config, stops_at(7), save_seconds=save_seconds)
    assert load_state(tmp_path / "run")["step"] == (7 if save_seconds == 0 else 0)
    with open(tmp_path / "run/log.jsonl", "a") as file:
        file.write('{"step": 1')  # torn
    trained(tmp_path / "run", config)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


def test_time_is_up_and_the_run_goes_on(tmp_path):
    trained(tmp_path / "whole")
    outcome, _ = trained(tmp_path / "run", small(max_minutes=1e-9))
    assert outcome.status == "stopped: 1e-09 minutes were over after step 1 of 12" and outcome.step == 1
    assert checkpoint_steps(tmp_path / "run") == [0, 1]
    outcome, _ = trained(tmp_path / "run", small(max_minutes=60))
    assert outcome.status == "finished"
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


@pytest.mark.parametrize("every", [1, 4])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, every):
    config = replace(small(), watching=WatchingConfig(interval=50, checkpoints=4, log_interval=every))
    outcome, objective = trained(tmp_path, config, Noise(bad=6), save_seconds=0)
    assert outcome.status.startswith("failed: loss is nan from step 7 on")
    assert "learning rate" in outcome.status and "--blr" in outcome.status
    assert outcome.step == 3 and checkpoint_steps(tmp_path) == [
        0,
        1,
        3,
    ]  # of those before step 7 nothing is known
    assert all(value.isfinite().all() for value in objective.state_dict().values())
    for step in checkpoint_steps(tmp_path):
        held = load_file(checkpoint_folder(tmp_path, step) / "model.safetensors")
        assert all(value.isfinite().all() for value in held.values())
    assert log_of(tmp_path)[-1] == {
        "step": 7,
        "loss": None,
        "lr": log_of(tmp_path)[-1]["lr"],
        "grad_norm": None,
    }
    json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)


def test_weights_that_blew_up_are_not_kept_as_a_checkpoint(tmp_path):
    """A step so large that the next loss is no number, with a checkpoint right after it."""
    config = replace(small(steps=8), watching=WatchingConfig(interval=50, checkpoints=3))
    trained(tmp_path / "whole", config)
    config = replace(config, training=replace(config.training, blr=1e30, clip=0.0, warmup=0.0))
    outcome, _ = trained(tmp_path / "run", config)
    assert outcome.status.startswith("failed: ") and outcome.step == 0
    assert checkpoint_steps(tmp_path / "whole") == [0, 1, 8] and checkpoint_steps(tmp_path / "run") == [0]
    whole, left = (
        load_file(checkpoint_folder(tmp_path / name, 0) / "model.safetensors") for name in ("whole", "run")
    )
    assert all(left[name].equal(value) for name, value in whole.items())


def test_an_infinite_gradient_stops_the_run_before_the_next_step(tmp_path):
    class Steep(Reconstruction):
        def loss(self, batch, draws):
            losses = super().loss(batch, draws)
            return losses | {
                "loss": losses["loss"] + (self.head.bias - self.head.bias.detach()).abs().sqrt().sum()
            }

    outcome = pretrain(Steep(), Noise(), small(), tmp_path)
    assert outcome.status.startswith("failed: grad_norm is") and "from step 1 on" in outcome.status


def test_another_configuration_is_refused_key_by_key(tmp_path):
    trained(tmp_path, small(max_minutes=1e-9))
    with pytest.raises(InputError) as refused:
        trained(tmp_path, small(blr=0.1, accum_iter=2))
    text = str(refused.value)
    assert "training.blr = 0.05 there, 0.1 here" in text and "training.accum_iter = 1 there, 2 here" in text
    assert text.count(" there, ") == 2


def test_autocast_holds_in_the_loss_and_weights_stay_whole(tmp_path):
    seen = []

    class Seeing(Reconstruction):
        def loss(self, batch, draws):
            seen.append(self.head(torch.zeros(1, 16)).dtype)
            return super().loss(batch, draws)

    objective = Seeing()
    outcome = pretrain(objective, Noise(), small(2, precision="bfloat16"), tmp_path)
    assert outcome.status == "finished" and set(seen) == {torch.bfloat16}
    assert all(value.dtype != torch.bfloat16 for value in objective.state_dict().values())


def test_progress_tells_step_loss_speed_and_time_left(tmp_path):
    said = []
    trained(tmp_path, progress=lambda fraction, text: said.append((fraction, text)))
    assert [fraction for fraction, _ in said] == [step / STEPS for step in range(1, STEPS + 1)]
    assert said[5][1].startswith("step 6 of 12, loss ")
    assert "images/s" in said[5][1] and said[5][1].endswith("0:00 left")


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (TrainingConfig(accelerator="cuda", devices=64), "training: "),
        (TrainingConfig(accelerator="cpu", strategy="nonsense"), "nonsense"),
        (TrainingConfig(accelerator="cpu", devices=2, strategy="ddp_spawn"), "launch"),
    ],
    ids=["no such devices", "no such strategy", "processes that cannot start from a script"],
)
def test_devices_that_cannot_be_had_are_refused(training, said):
    with pytest.raises(InputError, match=said):
        launch(training)


def test_the_encoder_of_a_checkpoint_is_a_model_by_name(tmp_path):
    _, objective = trained(tmp_path)
    named = load_model(str(checkpoint_folder(tmp_path, STEPS)))
    loaded, known = named.module.state_dict(), objective.encoder.state_dict()
    shared = loaded.keys() & known.keys()
    assert known.keys() - shared == {"embeddings.mask_token"}
    assert all(torch.equal(loaded[key], known[key]) for key in shared)
    assert named.preprocess(Image.new("RGB", (40, 30))).shape == (3, 8, 8)
