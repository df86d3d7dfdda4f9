"""The information gap of a photograph as one number: the median over its local patches."""

from statistics import median

import numpy as np
import pytest
from skimage.io import imsave

from mimlab import World
from mimlab.studies import trained


def test_median_gap_counts_patches(tmp_path):
    pixels = np.full((224, 224, 3), 20, dtype=np.uint8)
    pixels[32:96, 32:160] = 250
    pixels[160:208, 160:208] = 120
    imsave(tmp_path / "two.png", pixels, check_contrast=False)
    found = World(image=str(tmp_path / "two.png")).statistics()
    assert len(found.local_runs) > 1
    gaps = []
    for size, count in found.local_runs:
        for _ in range(size * count):
            gaps.append((2 * np.log(found.global_size) - np.log(size)) / np.log(found.patches) - 1)
    assert trained.median_gap(str(tmp_path / "two.png")) == pytest.approx(median(gaps))
    imsave(tmp_path / "one.png", np.full((224, 224, 3), 20, dtype=np.uint8), check_contrast=False)
    assert trained.median_gap(str(tmp_path / "one.png")) is None
