"""Masks and patches: exact numbers, every patch alike, and the same draws for the same generator."""

import random

import pytest
import torch

from mimlab.training.draws import generator
from mimlab.training.masks import (
    block_masks,
    image_of,
    masked_count,
    ordered_noise,
    patches_of,
    random_masks,
)


@pytest.mark.parametrize("draw", [random_masks, block_masks])
def test_every_image_has_its_number_of_masked_patches(draw):
    for count in (1, 5, 38, 63):
        masks = draw(50, 8, count, generator(0, count))
        assert masks.shape == (50, 64)
        assert masks.dtype == torch.bool
        assert (masks.sum(1) == count).all()


@pytest.mark.parametrize("draw", [random_masks, block_masks])
def test_masks_come_from_the_generator_alone(draw):
    state, plain = torch.get_rng_state(), random.getstate()
    one, same, other = (draw(9, 8, 38, generator(0, step)) for step in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(mask.tolist()) for mask in one}) == 9
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == plain


def test_random_masks_treat_patches_alike():
    share = random_masks(4000, 4, 6, generator(0)).float().mean(0)
    assert (share - 6 / 16).abs().max() < 4 * (6 / 16 * 10 / 16 / 4000) ** 0.5


def neighbours_alike(masks):
    """Share of neighbouring patches of which both are masked or neither."""
    square = masks.reshape(-1, 8, 8)
    return (square[:, 1:] == square[:, :-1]).float().mean().item()


def test_blocks_are_coarser_than_random_masks():
    alike = [neighbours_alike(draw(500, 8, 26, generator(3))) for draw in (random_masks, block_masks)]
    assert abs(alike[0] - (26 * 25 + 38 * 37) / (64 * 63)) < 0.01  # what exchangeable patches give
    assert alike[1] > 0.7


def test_blocks_reach_every_patch():
    share = block_masks(1000, 6, 18, generator(0)).float().mean(0)
    assert share.min() > 0.15
    assert share.max() < 0.85


def test_a_masked_and_a_visible_patch_always_remain():
    assert [masked_count(16, ratio) for ratio in (0.001, 0.5, 0.75, 0.999)] == [1, 8, 12, 15]


def test_ordered_noise_sorts_the_visible_first_and_all_in_order():
    masks = random_masks(5, 4, 6, generator(0))
    for mask, order in zip(masks, ordered_noise(masks).argsort(-1), strict=True):
        expected = [p for p in range(16) if not mask[p]] + [p for p in range(16) if mask[p]]
        assert order.tolist() == expected
    assert all(len(set(row)) == 16 for row in ordered_noise(masks).tolist())  # ties may be sorted either way


def test_the_last_block_loses_patches_on_any_side():
    """One patch of a block of five or more: in the middle of the grid on average, rows and columns alike."""
    patches = block_masks(2000, 8, 1, generator(0)).nonzero()[:, 1]
    assert abs((patches // 8).float().mean() - 3.5) < 0.25
    assert abs((patches % 8).float().mean() - 3.5) < 0.25


def test_patches_are_those_of_loops():
    pixels = torch.rand(2, 3, 6, 6, generator=generator(0))
    patches = patches_of(pixels, 2)
    assert patches.shape == (2, 9, 12)
    for row in range(3):
        for column in range(3):
            values = [
                pixels[:, colour, 2 * row + y, 2 * column + x]
                for y in range(2)
                for x in range(2)
                for colour in range(3)
            ]
            assert torch.equal(patches[:, 3 * row + column], torch.stack(values, -1))
    assert torch.equal(image_of(patches, 2), pixels)
