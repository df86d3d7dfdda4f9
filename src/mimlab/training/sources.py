"""Where a run's images come from, by its configuration: photographs, a folder, or a rendered world."""

from __future__ import annotations

from pathlib import Path

from mimlab.probing.images import find_images
from mimlab.training.config import PretrainConfig
from mimlab.training.crops import Crops, FolderCrops, Source, folder_labels
from mimlab.training.photographs import HELD_OUT, TRAINING
from mimlab.training.rendered import RenderedWorld
from mimlab.training.views import source_side
from mimlab.world.world import World


def training_source(config: PretrainConfig, purpose: str = "training") -> Source:
    """What a run trains on: the world or the folder it names, or the dependencies' photographs for training.

    Crops are as large as the objective's views ask for (`mimlab.training.views`). With another purpose, other crops
    of the same images. Raises InputError as the sources do.
    """
    data = config.data
    if data.world is not None:
        return _rendered(config, data.world, data.batch_size, purpose)
    side = source_side(config.network.image_size)
    if data.images is None:
        paths = [photograph.path for photograph in TRAINING]
        return Crops(paths, side, data.crop, data.batch_size, config.seed, purpose)
    if not set(config.objective.names) & {"simclr", "moco-v3", "dino"}:
        side = config.network.image_size
    return FolderCrops(data.images, side, data.scale, data.batch_size, config.seed, purpose, data.workers)


def held_out_source(config: PretrainConfig, batch_size: int | None = None) -> Source:
    """What a run never trains on, the same crops for every seed: the second folder, or photographs held out; of a
    rendered world other images, whose features are those that were trained on.

    batch_size: as in training unless given.
    """
    data, side = config.data, source_side(config.network.image_size)
    size = batch_size or data.batch_size
    if data.world is not None:
        return _rendered(config, data.world, size, "held out", 0)
    if data.held_out is None:
        return Crops([photograph.path for photograph in HELD_OUT], side, data.crop, size, 0, "held out")
    return FolderCrops(data.held_out, config.network.image_size, data.scale, size, 0, "held out")


def class_count(config: PretrainConfig) -> int:
    """How many labels the training images have, without opening any."""
    if config.data.world is not None:
        return config.data.world.clusters
    if config.data.images is None:
        return len(TRAINING)
    return max(folder_labels(Path(config.data.images), find_images(Path(config.data.images)))) + 1


def _rendered(
    config: PretrainConfig, world: World, batch_size: int, purpose: str, draws_seed: int | None = None
) -> RenderedWorld:
    sizes = config.network.grid, config.network.patch_size, batch_size
    return RenderedWorld(world, *sizes, config.seed, purpose, config.data.areas, draws_seed)
