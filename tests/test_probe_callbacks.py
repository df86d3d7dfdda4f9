"""Statistics in a training log are those of a direct capture, and training does not notice that it is watched."""

import copy
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

import mimlab
from mimlab.probing import callbacks
from mimlab.probing.callbacks import attention_log
from mimlab.probing.collapse import DIVERSE, FALL

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:Warning"),  # Lightning's advice on speed
    pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning"),  # Lightning's own use of PyTorch
]

STEPS, EVERY = 5, 2
PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
STATISTICS = ("nmi", "diversity", "head_diversity")


def vit():
    """A tiny ViT with dropout, so that random numbers matter."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = ViTConfig(**size, image_size=16, patch_size=4, num_labels=3, hidden_dropout_prob=0.3)
    model = ViTForImageClassification(config)
    for name, weight in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            weight.data *= 30  # or every head is uniform
    return model.train()


def images(count):
    x = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return [{"pixel_values": pixels, "labels": i % 3} for i, pixels in enumerate(x)]


def direct(model, statistics=STATISTICS):
    """What a log must hold, from the arrays of a capture of a copy in eval mode."""
    twin = copy.deepcopy(model).eval()
    with torch.no_grad(), mimlab.capture(twin, statistics) as found:
        twin(PIXELS)
    expected = {}
    for name in statistics:
        by_layer = np.moveaxis(found[name], 1, 0).reshape(len(found.layers), -1).mean(1)
        expected[f"attention/{name}"] = by_layer.mean()
        expected.update({f"attention/{name}/layer_{i}": value for i, value in enumerate(by_layer)})
    return pytest.approx(expected, rel=1e-12, abs=1e-15)


def of_probe(entry):
    return {name: value for name, value in entry.items() if name.startswith("attention/")}


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(some, others):
    return len(some) == len(others) and all(map(torch.equal, some, others))


# The helper


def test_log_is_the_mean_of_a_capture():
    model = vit()
    assert attention_log(model, PIXELS, STATISTICS) == direct(model)
    assert attention_log(model, {"pixel_values": PIXELS.double()}, STATISTICS) == direct(model)
    forward = lambda model, batch: model(pixel_values=batch[0])  # noqa: E731
    assert attention_log(model, [PIXELS, 1], STATISTICS, forward=forward) == direct(model)
    one = attention_log(model, PIXELS, "nmi", layers=[1])
    whole = attention_log(model, PIXELS, "nmi")
    assert list(one) == ["attention/nmi", "attention/nmi/layer_1"]
    assert one["attention/nmi"] == pytest.approx(whole["attention/nmi/layer_1"], rel=1e-6)
    assert one["attention/nmi"] != pytest.approx(whole["attention/nmi"], rel=1e-3)


def test_one_bad_head_shows():
    model = vit()
    model.vit.layers[1].attention.q_proj.weight.data[8:] = torch.nan  # the second of two heads
    log = attention_log(model, PIXELS, "nmi")
    assert np.isnan([log["attention/nmi"], log["attention/nmi/layer_1"]]).all()
    assert log["attention/nmi/layer_0"] > 0


def test_model_is_left_as_it_was():
    model = vit()
    model.vit.layers[0].eval()
    modes = [part.training for part in model.modules()]
    model(PIXELS).logits.sum().backward()
    gradients = [weight.grad for weight in model.parameters()]
    kept = [gradient.clone() for gradient in gradients]
    state = torch.get_rng_state()

    def drawing(model, batch):
        assert not any(part.training for part in model.modules())
        torch.rand(3)
        assert not model(batch).logits.requires_grad

    attention_log(model, PIXELS, forward=drawing)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in model.modules()] == modes
    assert all(
        weight.grad is gradient for weight, gradient in zip(model.parameters(), gradients, strict=True)
    )
    assert same(gradients, kept)
    with pytest.raises(ZeroDivisionError):
        attention_log(model, PIXELS, forward=lambda model, batch: 1 / 0)
    assert [part.training for part in model.modules()] == modes


def test_gradients_survive_a_log_under_autocast():
    model = vit()
    expected = direct(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_log(model, PIXELS, STATISTICS) == expected
        model(PIXELS).logits.float().sum().backward()
    assert model.vit.layers[0].attention.q_proj.weight.grad is not None


def test_process_of_a_distributed_model_needs_no_other():
    model = vit()
    log = attention_log(nn.DataParallel(model), PIXELS, STATISTICS)
    assert log == direct(model)


# Lightning


def fit(tmp_path, watched, library="lightning.pytorch", **options):
    """Weights after a training run, the weights at every step, and what a logger was given."""
    pl = pytest.importorskip(library)
    snapshots, written = {}, []

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = vit()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return self.net(batch["pixel_values"], labels=batch["labels"]).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    class Keep(pl.Callback):
        def on_train_start(self, trainer, module):
            snapshots[trainer.global_step] = copy.deepcopy(module.net)

        def on_train_batch_end(self, trainer, module, *_):
            snapshots[trainer.global_step] = copy.deepcopy(module.net)

    class Logger(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step):
            written.append((step, metrics))

    torch.manual_seed(5)
    module = Module()
    loader = torch.utils.data.DataLoader(images(8), batch_size=2, shuffle=True)
    probe = [callbacks.LightningProbe(PIXELS, every=EVERY, statistics=STATISTICS)] if watched else []
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=Logger(),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[Keep(), *probe],
        **options,
    )
    trainer.fit(module, loader)
    return weights(module), snapshots, [(s, of_probe(m)) for s, m in written if of_probe(m)]


def test_lightning_logs_what_a_capture_gives_and_trains_alike(tmp_path):
    plain, _, nothing = fit(tmp_path, watched=False)
    trained, snapshots, logs = fit(tmp_path, watched=True)
    assert not nothing and [step for step, _ in logs] == [0, 2, 4]
    for step, log in logs:
        assert log == direct(snapshots[step])
    assert logs[0][1] != logs[1][1]
    assert same(trained, plain) and not same(trained, weights(snapshots[0]))


def test_lightning_measures_once_a_step_of_several_batches(tmp_path):
    _, _, logs = fit(tmp_path, watched=True, accumulate_grad_batches=2)
    assert [step for step, _ in logs] == [0, 2, 4]


def test_lightning_under_its_other_name(tmp_path, monkeypatch):
    monkeypatch.delitem(vars(callbacks), "LightningProbe", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    other = pytest.importorskip("pytorch_lightning")
    assert issubclass(callbacks.LightningProbe, other.Callback)
    _, snapshots, logs = fit(tmp_path, watched=True, library="pytorch_lightning")
    assert [log for _, log in logs] == [direct(snapshots[step]) for step in (0, 2, 4)]
    vars(callbacks).pop("LightningProbe")


def test_lightning_without_a_logger_is_refused():
    probe = callbacks.LightningProbe(PIXELS)
    with pytest.raises(mimlab.InputError, match="logger="):
        probe.setup(SimpleNamespace(is_global_zero=True, loggers=[]), vit(), "fit")


def test_other_processes_measure_nothing():
    calls = []
    batch = {"pixel_values": PIXELS}
    probe = callbacks.LightningProbe(batch, every=1, forward=lambda *_: calls.append(1))
    other = SimpleNamespace(is_global_zero=False, global_step=1, loggers=[])
    probe.setup(other, vit(), "fit")
    probe.on_train_start(other, vit())
    probe.on_train_batch_end(other, vit(), None, batch, 0)
    trainer = SimpleNamespace(log=calls.append, model=vit())
    probe = callbacks.TrainerProbe(batch, trainer, every=1, forward=lambda *_: calls.append(1))
    state = SimpleNamespace(is_world_process_zero=False, global_step=1)
    probe.on_train_begin(None, state, None)
    probe.on_step_end(None, state, None)
    assert not calls


# transformers


def train(tmp_path, watched):
    model, snapshots = vit(), {}

    class Keep(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **_):
            snapshots[0] = copy.deepcopy(model)

        def on_step_end(self, args, state, control, model, **_):
            snapshots[state.global_step] = copy.deepcopy(model)

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=5,
    )
    trainer = Trainer(model, arguments, train_dataset=images(8), callbacks=[Keep()])
    if watched:
        batch = {"pixel_values": PIXELS}
        trainer.add_callback(callbacks.TrainerProbe(batch, trainer, every=EVERY, statistics=STATISTICS))
    trainer.train()
    return weights(model), snapshots, trainer.state.log_history


def test_transformers_logs_what_a_capture_gives_and_trains_alike(tmp_path):
    plain, _, history = train(tmp_path, watched=False)
    trained, snapshots, watched = train(tmp_path, watched=True)
    logs = [(entry["step"], of_probe(entry)) for entry in watched if of_probe(entry)]
    assert [step for step, _ in logs] == [0, 2, 4]
    for step, log in logs:
        assert log == direct(snapshots[step])
    assert logs[0][1] != logs[1][1]
    assert same(trained, plain) and not same(trained, weights(snapshots[0]))
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in (history, watched)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


# Settings


def test_alarm_sounds_once_for_a_fall(recwarn):
    model = vit()
    queries = model.vit.layers[1].attention.q_proj.weight
    probe, silent = (callbacks.LightningProbe(PIXELS, statistics="nmi", alarm=alarm) for alarm in (FALL, 0))
    assert callbacks.LightningProbe(PIXELS).alarm == FALL
    assert probe._measure(model, 0)["attention/nmi/layer_1"] > DIVERSE
    silent._measure(model, 0)
    queries.data *= 0.01
    with pytest.warns(UserWarning, match=r"nmi/layer_1 is .* at step 100 and was .*alarm=0"):
        probe._measure(model, 100)
    probe._measure(model, 200)
    silent._measure(model, 100)
    fresh = callbacks.LightningProbe(PIXELS, statistics="nmi")
    assert 0 < fresh._measure(model, 0)["attention/nmi/layer_1"] < DIVERSE
    queries.data *= 0
    fresh._measure(model, 100)  # nearly uniform attention has nothing to lose
    assert not recwarn


def test_steps_that_are_due():
    probe = callbacks.LightningProbe(PIXELS, every=5)
    assert [step for step in (1, 2, 4, 5, 5, 6, 9, 11, 12, 14, 20) if probe._due(step)] == [5, 11, 20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every = 0"),
        ({"every": 1.5}, "every = 1.5"),
        ({"alarm": 1.0}, "alarm = 1.0"),
        ({"statistics": "nonsense"}, "nonsense"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(mimlab.InputError, match=message):
        callbacks.LightningProbe(PIXELS, **options)


def test_trainer_must_be_given():
    with pytest.raises(mimlab.InputError, match="add_callback"):
        callbacks.TrainerProbe(PIXELS)


# Libraries


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(
        callbacks._BASES, "LightningProbe", (callbacks._LightningProbe, "Callback", ("no_lib",))
    )
    monkeypatch.delitem(vars(callbacks), "LightningProbe", raising=False)
    with pytest.raises(mimlab.InputError, match="LightningProbe needs no_lib"):
        _ = callbacks.LightningProbe
    with pytest.raises(AttributeError, match="nonsense"):
        _ = callbacks.nonsense


def test_probe_can_be_sent_to_another_process():
    probe = pickle.loads(pickle.dumps(callbacks.LightningProbe(PIXELS, every=7)))
    assert probe.every == 7 and type(probe) is callbacks.LightningProbe


def test_no_training_library_is_imported_before_it_is_asked_for():
    code = "import mimlab.probing.callbacks, sys; print({'lightning', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
