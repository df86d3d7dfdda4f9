"""What is given to a probe: models by name, pretraining runs among them, and the images to measure them on.

A run of `mimlab pretrain` is its last checkpoint, called by the run's folder, with the preprocessing kept beside it.
Without images of the user's own it is measured on the crops that it held out and watched. These are small and
were held out by that run alone: a model beside it may have learned from the same photographs, and would see them
enlarged. So they serve runs that have the same crops, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from mimlab.probing import models
from mimlab.probing.images import every_image
from mimlab.probing.models import NamedModel
from mimlab.runs import InputError
from mimlab.runs.directory import MARK, distinct_names
from mimlab.runs.tables import read_json
from mimlab.studies.pretrain_looks import HELD_OUT
from mimlab.training.checkpoints import CHECKPOINTS, checkpoint_folder, checkpoint_steps

BUNDLED = "scikit-image's photographs"


@dataclass(frozen=True, eq=False)
class Given:
    """A model as it was given. load: gives it, the same each time. run: the pretraining run that it is of, if any;
    caution: what a reader must know of that run."""

    load: Callable[[], NamedModel]
    run: Path | None = None
    caution: str = ""


def models_given(
    names: Sequence[str], taken: Iterable[str] = (), heads: int | None = None
) -> dict[str, Given]:
    """Models by the names that `mimlab probe` takes, in order; loaded when they are asked for.

    taken: what other models are called. heads: of checkpoint files, see `load_model`. Which checkpoint of a run is
    the last is settled here: one that is written later, by a run that goes on, is not measured. Raises InputError
    for a run that is given twice.
    """
    load = lru_cache(1)(partial(models.load_model, heads=heads) if heads else models.load_model)
    runs = {name: folder for name in names if _is_run(folder := Path(name).expanduser())}
    twice = [str(run) for run, n in Counter(folder.resolve() for folder in runs.values()).items() if n > 1]
    if twice:
        raise InputError(f"models: {twice[0]} is given more than once; once is enough")
    others = [name for name in names if name not in runs]
    labels = dict(zip(runs, distinct_names(list(runs.values()), [*taken, *others]), strict=True))
    return {
        name: _of_run(load, runs[name], labels[name])
        if name in runs
        else Given(partial(load, name), _run_around(Path(name).expanduser()))
        for name in names
    }


def images_given(images: Sequence[Path] | None, given: Mapping[str, Given]) -> tuple[list[Path], str]:
    """Image files, one that was given twice twice, and where they are from.

    images: folders or files; None: the held-out crops of pretraining runs where there are any, else scikit-image's
    photographs. Raises InputError where there is no image, a run kept no crops, runs have different ones, or other
    models stand beside runs.
    """
    if images is not None:
        return every_image(images), ", ".join(map(str, images))
    runs = list(dict.fromkeys(one.run for one in given.values() if one.run is not None))
    if not runs:
        return every_image(None), BUNDLED
    crops = [_crops(run) for run in runs]
    others = [name for name, one in given.items() if one.run is None]
    if others:
        raise InputError(
            f"{others[0]} is no pretraining run, and the held-out crops of {runs[0]} are that run's own: say what all "
            f"models are measured on, with --images and a folder of yours, or --images {runs[0] / HELD_OUT}"
        )
    for run, found in zip(runs, crops, strict=True):
        if found != crops[0]:
            raise InputError(
                f"the held-out crops of {runs[0]} and {run} differ: say with --images what both are measured on, or "
                "lay what they measured themselves side by side with mimlab compare"
            )
    return every_image(runs[0] / HELD_OUT), f"the held-out crops of {', '.join(map(str, runs))}"


def _is_run(folder: Path) -> bool:
    return not (folder / "config.json").exists() and bool(checkpoint_steps(folder))


def _run_around(name: Path) -> Path | None:
    """The run that a checkpoint lies in; None for what is none, and where that run kept no crops."""
    checkpoint = name.resolve()
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == CHECKPOINTS and (run / HELD_OUT).is_dir() else None


def _of_run(load: Callable[[str], NamedModel], run: Path, label: str) -> Given:
    """The last checkpoint of a run, with a caution where the run has not finished."""
    step = checkpoint_steps(run)[-1]
    name = str(checkpoint_folder(run, step))
    status = (
        read_json(run / MARK).get("status") if (run / MARK).is_file() else "it goes on, or was interrupted"
    )
    caution = ""
    if status != "finished":
        caution = f"{label} has not finished ({status}): measured is its checkpoint after step {step}"
    return Given(lambda: load(name).called(label), run, caution)


def _crops(run: Path) -> dict[str, bytes]:
    """The held-out crops of a run by name, as they lie on disk."""
    found = {path.name: path.read_bytes() for path in (run / HELD_OUT).glob("*.png")}
    if not found:
        raise InputError(
            f"{run} holds no held-out crops ({HELD_OUT}/*.png): it was written by a version of mimlab that kept none. "
            "Say with --images what to measure it on, or train it again"
        )
    return found
