"""What a pretraining run may be asked for: defaults, refusals, flags and TOML, presets."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mimlab.cli.flags import flags
from mimlab.runs import InputError, build, read_toml, to_mapping, write_toml
from mimlab.training.config import (
    DataConfig,
    NetworkConfig,
    ObjectiveConfig,
    PretrainConfig,
    TrainingConfig,
    WatchingConfig,
)
from mimlab.training.presets import OBJECTIVES, PRESETS, with_preset

NAMES = ("simmim", "mae", "simclr", "moco-v3", "dino", "supervised")


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("simmim", {"mask_ratio": 0.6}),
        ("mae", {"mask_ratio": 0.75}),
        ("simclr", {"temperature": 0.2}),
        ("moco-v3", {"temperature": 0.2, "momentum": 0.99}),
        ("dino", {"temperature": 0.1, "momentum": 0.996}),
        ("supervised", {}),
    ],
)
def test_published_values_are_filled_in_and_others_stay_out(name, filled):
    written = to_mapping(ObjectiveConfig(name))
    assert written == {"name": name, "mask": "random", "norm_pixels": False} | filled


def test_a_pair_has_the_keys_of_both():
    pair = ObjectiveConfig("simmim", second="simclr")
    assert (pair.weight, pair.mask_ratio, pair.temperature, pair.momentum) == (0.5, 0.6, 0.2, None)
    assert pair.names == ("simmim", "simclr")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"name": "simclr", "mask_ratio": 0.5}, "objective.mask_ratio is for simmim, mae, not for simclr"),
        ({"name": "simmim", "temperature": 0.1}, "objective.temperature is for"),
        ({"name": "simclr", "momentum": 0.9}, "objective.momentum is for moco-v3, dino"),
        ({"name": "simmim", "weight": 0.5}, "objective.weight is for a second objective"),
        ({"name": "dino", "norm_pixels": True}, "objective.norm_pixels: dino masks nothing"),
        ({"name": "supervised", "mask": "block"}, "objective.mask: supervised masks nothing"),
        ({"name": "simclr", "second": "simmim"}, "simclr with second = simmim is no pair"),
        ({"name": "mae", "second": "dino"}, "is no pair"),
        ({"mask_ratio": 1.0}, "must lie between 0 and 1"),
        ({"second": "simclr", "weight": 0.0}, "must lie between 0 and 1"),
        ({"name": "simclr", "temperature": 0.0}, "objective.temperature = 0.0 must be positive"),
        ({"name": "moco-v3", "momentum": 1.0}, "must be at least 0 and below 1"),
    ],
)
def test_what_an_objective_cannot_use_is_refused(asked, said):
    with pytest.raises(InputError, match=re.escape(said)):
        ObjectiveConfig(**asked)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: NetworkConfig(patch_size=5), "patch_size = 5 must divide image_size = 32"),
        (lambda: NetworkConfig(heads=5), "heads = 5 must divide width = 96"),
        (lambda: NetworkConfig(width=6, heads=3), "must be a multiple of 4 for positions = sincos"),
        (lambda: NetworkConfig(patch_size=32), "leaves one patch"),
        (lambda: NetworkConfig(depth=0), "network.depth = 0"),
        (lambda: DataConfig(batch_size=1), "data.batch_size = 1 must be at least 2"),
        (lambda: DataConfig(crop=(100, 50)), "data.crop = 100 50"),
        (lambda: DataConfig(scale=(0.0, 1.0)), "data.scale = 0.0 1.0"),
        (lambda: TrainingConfig(steps=5, epochs=1.0), "steps = 5 and epochs = 1.0 do not go together"),
        (lambda: TrainingConfig(steps=0), "training.steps = 0"),
        (lambda: TrainingConfig(blr=0.0), "training.blr = 0.0 must be positive"),
        (lambda: TrainingConfig(max_minutes=0.0), "training.max_minutes"),
        (lambda: TrainingConfig(weight_decay=-0.1), "training.weight_decay = -0.1 must be at least 0"),
        (lambda: TrainingConfig(warmup=1.0), "training.warmup = 1.0"),
        (
            lambda: TrainingConfig(warmup=0.1, warmup_epochs=2.0),
            "warmup = 0.1 and warmup_epochs = 2.0 do not go",
        ),
        (
            lambda: DataConfig(images=Path("a"), held_out=Path("a/b")),
            "held_out = a/b and images = a share files",
        ),
        (lambda: DataConfig(images=Path("a/b/.."), held_out=Path("a")), "share files"),
        (lambda: DataConfig(images=Path("a/b"), held_out=Path("a")), "share files"),
        (lambda: TrainingConfig(betas=(0.9, 1.0)), "training.betas = 0.9 1.0"),
        (lambda: WatchingConfig(interval=0), "watching.interval = 0"),
        (lambda: WatchingConfig(checkpoints=1), "watching.checkpoints = 1"),
        (lambda: WatchingConfig(evaluations=1), "watching.evaluations = 1"),
        (lambda: PretrainConfig(seed=-1), "seed = -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(made, said):
    with pytest.raises(InputError, match=re.escape(said)):
        made()


def test_toml_brings_a_configuration_back(tmp_path):
    config = PretrainConfig(
        ObjectiveConfig("mae", norm_pixels=True, start=tmp_path / "run"),
        NetworkConfig(positions="learned"),
        DataConfig(images=tmp_path, crop=(50, 60)),
        TrainingConfig(epochs=3, warmup_epochs=1, betas=(0.9, 0.99)),
        WatchingConfig(crops=8),
        seed=3,
    )
    write_toml(tmp_path / "config.toml", config)
    assert build(PretrainConfig, read_toml(tmp_path / "config.toml")) == config


def test_flags_are_called_as_users_of_mae_know_them():
    names = {flag.name for flag in flags(PretrainConfig)}
    assert {"--objective", "--mask-ratio", "--blr", "--batch-size", "--accum-iter", "--seed"} <= names
    assert {"--epochs", "--warmup-epochs", "--weight-decay", "--steps", "--max-minutes", "--images"} <= names
    assert all(flag.help for flag in flags(PretrainConfig))


def test_one_step_sees_the_images_of_all_passes_and_processes():
    config = PretrainConfig(data=DataConfig(batch_size=8), training=TrainingConfig(accum_iter=3, devices=2))
    assert config.images_per_step == 48


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (7, 3), (100, 50), (1000, 50)])
def test_looks_come_at_powers_of_two_then_regularly_and_at_both_ends(steps, interval):
    due = [step for step in range(steps + 1) if WatchingConfig(interval=interval).due(step, steps)]
    regular = {step for step in range(0, steps + 1) if step % interval == 0}
    powers = {2**n for n in range(12) if 2**n < min(interval, steps + 1)}
    assert set(due) == regular | powers | {0, steps}


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("steps", [1, 2, 750])
def test_checkpoints_hold_both_ends_and_are_no_more_than_asked(count, steps):
    found = WatchingConfig(checkpoints=count).checkpoint_steps(steps)
    assert found[0] == 0 and found[-1] == steps and len(found) <= count
    assert list(found) == sorted(set(found))


@pytest.mark.parametrize("count", [2, 4, 8, 30])
def test_evaluated_are_the_first_checkpoint_and_the_last_ones(count):
    watching = WatchingConfig(evaluations=count)
    kept, found = watching.checkpoint_steps(750), watching.evaluated_steps(750)
    assert found[0] == 0 and found[1:] == kept[-(len(found) - 1) :] and len(found) == min(count, len(kept))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("objective", NAMES)
def test_every_preset_is_a_configuration_of_every_objective(name, objective):
    given = {"objective": {"name": objective}, "data": {"images": "photos"}}
    config = build(PretrainConfig, with_preset(name, given))
    assert config.objective.name == objective and config.images_per_step >= 64
    assert set(OBJECTIVES[name]) == set(NAMES)


def test_published_sizes_of_a_step():
    given = {"objective": {"name": "mae"}, "data": {"images": "photos"}}
    config = build(PretrainConfig, with_preset("imagenet", given))
    assert (config.images_per_step, config.training.epochs, config.training.blr) == (4096, 800, 1.5e-4)
    assert config.objective.norm_pixels


def test_what_is_given_goes_over_a_preset():
    given = {"objective": {"name": "simclr"}, "training": {"blr": 0.1}, "network": {"depth": 2}}
    config = build(PretrainConfig, with_preset("laptop", given))
    assert (config.training.blr, config.training.steps, config.network.depth) == (0.1, 300, 2)
    assert config.data.batch_size == 128


@pytest.mark.parametrize(("preset", "given"), [("laptop", {"epochs": 2.0}), ("imagenet", {"steps": 9})])
def test_steps_and_epochs_take_each_others_place(preset, given):
    whole = with_preset(preset, {"training": given, "data": {"images": "photos"}})
    training = build(PretrainConfig, whole).training
    assert {"steps": training.steps, "epochs": training.epochs} == {"steps": None, "epochs": None} | given


def test_a_share_of_warm_up_takes_the_place_of_epochs_of_it():
    given = {"training": {"warmup": 0.2}, "data": {"images": "photos"}}
    training = build(PretrainConfig, with_preset("imagenet", given)).training
    assert (training.warmup, training.warmup_epochs) == (0.2, None)
    given["training"] = {}
    training = build(PretrainConfig, with_preset("imagenet", given)).training
    assert (training.warmup, training.warmup_epochs) == (None, 20)


def test_a_configuration_read_back_is_not_changed_by_the_preset():
    config = build(PretrainConfig, with_preset("laptop", {"objective": {"name": "mae"}, "seed": 4}))
    config = replace(
        config, training=replace(config.training, steps=None, epochs=2.0, warmup=0.3, warmup_epochs=None)
    )
    assert build(PretrainConfig, with_preset("laptop", to_mapping(config))) == config


def test_unknown_presets_and_imagenet_without_images_are_refused():
    with pytest.raises(InputError, match="give one of laptop, workstation, imagenet"):
        with_preset("desktop", {})
    with pytest.raises(InputError, match="give --images DIR"):
        with_preset("imagenet", {})
