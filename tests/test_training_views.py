"""Views of a crop: where they lie, what they change, and that they come from the given generator alone."""

import pytest
import torch

from mimlab.training import views
from mimlab.training.draws import generator, seeded


@pytest.fixture
def ramp():
    """Crops whose red tells the column and whose green tells the row, in 24ths; their number in blue."""
    columns = torch.arange(24) / 24
    red, green = columns.expand(24, 24), columns[:, None].expand(24, 24)
    return torch.stack([torch.stack([red, green, torch.full_like(red, n / 400)]) for n in range(400)])


def colourful(batch=6, side=24):
    return torch.rand(batch, 3, side, side, generator=generator(0, "pixels"))


@pytest.mark.parametrize("view", [views.plain, views.strong])
def test_views_come_from_the_generator_alone(view):
    pixels, state = colourful(), torch.get_rng_state()
    before = pixels.clone()
    one, same, other = (view(pixels, 16, generator(0, step)) for step in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, before)
    assert one.shape == (6, 3, 16, 16)
    assert one.dtype == torch.float32
    assert 0 <= one.min() < one.max() <= 1


@pytest.mark.parametrize("view", [views.plain, views.strong])
def test_views_are_not_rounded_under_autocast(view):
    pixels = colourful()
    with torch.autocast("cpu", torch.bfloat16):
        found = view(pixels, 16, generator(0))
    assert torch.equal(found, view(pixels, 16, generator(0)))


def test_plain_views_are_cuts_at_every_place_half_of_them_mirrored(ramp):
    view = views.plain(ramp, 16, generator(0))
    assert torch.equal(view[:, 2, 0, 0], ramp[:, 2, 0, 0])  # each of its own crop
    columns, rows = (view[:, 0] * 24).round().long(), (view[:, 1] * 24).round().long()
    left, top = columns.amin((1, 2)), rows.amin((1, 2))
    mirrored = columns[:, 0, 0] > columns[:, 0, 1]
    steps = torch.arange(16)
    across = torch.where(mirrored[:, None], steps.flip(0), steps)
    assert torch.equal(columns, (left[:, None] + across)[:, None].expand(-1, 16, 16))
    assert torch.equal(rows, (top[:, None] + steps)[:, :, None].expand(-1, 16, 16))
    assert set(left.tolist()) == set(top.tolist()) == set(range(9))
    assert 160 < mirrored.sum() < 240


def test_a_plain_view_of_its_own_size_is_the_crop_or_its_mirror_image():
    pixels = colourful()
    for crop, view in zip(pixels, views.plain(pixels, 24, generator(1)), strict=True):
        assert torch.equal(view, crop) or torch.equal(view, crop.flip(-1))


def test_resized_crops_have_areas_and_aspects_in_range(ramp):
    view = views.resized_crop(ramp, 16, generator(0), (0.25, 0.5))
    columns, rows = view[:, 0] * 24, view[:, 1] * 24
    wide, high = (columns[:, 0, -1] - columns[:, 0, 0]) / 23, (rows[:, -1, 0] - rows[:, 0, 0]) / 23
    area, aspect = wide.abs() * high, wide.abs() / high
    assert 0.249 < area.min() < 0.26
    assert 0.49 < area.max() < 0.501
    assert 0.749 < aspect.min() < 0.77
    assert 1.31 < aspect.max() < 1.334
    assert 160 < (wide < 0).sum() < 240
    assert columns.amin() < 0.3  # windows reach the edges
    assert columns.amax() > 22.7
    assert columns.diff(dim=2).std(dim=(1, 2)).max() < 1e-3  # and are not bent


def test_strong_views_turn_a_fifth_grey_and_leave_a_fifth_of_the_colours():
    flat = torch.tensor([0.6, 0.4, 0.3]).reshape(1, 3, 1, 1).expand(2000, 3, 6, 6)
    view = views.strong(flat, 4, generator(0))
    grey = (view - view.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-4
    same = torch.isclose(view, flat[:, :, :4, :4], atol=1e-4).flatten(1).all(1)
    assert 0.16 < grey.float().mean() < 0.24
    assert 0.12 < same.float().mean() < 0.20  # 0.2 unchanged × 0.8 not turned grey


def test_jitter_without_range_changes_nothing():
    pixels = colourful()
    assert torch.allclose(views.colour_jitter(pixels, (0, 0, 0, 0), generator(0)), pixels, atol=1e-5)


def test_jitter_keeps_to_its_range():
    flat = torch.full((500, 3, 4, 4), 0.5)
    view = views.colour_jitter(flat, (0.4, 0, 0, 0), generator(0))
    ratio = view[:, 0, 0, 0] / 0.5
    assert 0.6 <= ratio.min() < 0.61
    assert 1.39 < ratio.max() <= 1.4001


def test_large_views_are_blurred():
    pixels = colourful(20, 120)
    rough = views.strong(pixels, 96, generator(0), (1.0, 1.0), (0, 0, 0, 0)).diff().abs().mean((1, 2, 3))
    assert (rough < 0.75 * rough.max()).sum() > 4


def test_standardised_pixels_come_back():
    pixels = colourful()
    standard = views.standardise(pixels)
    assert torch.allclose(views.to_unit(standard), pixels, atol=1e-6)
    assert torch.allclose(standard[:, 1], (pixels[:, 1] - 0.456) / 0.224, atol=1e-6)


def test_centre_is_the_middle():
    pixels = colourful()
    assert torch.equal(views.centre(pixels, 16), pixels[:, :, 4:20, 4:20])


def test_seeded_code_leaves_the_global_generator_as_it_was():
    state = torch.get_rng_state()
    with seeded(0, "here"):
        one = torch.rand(3)
    with seeded(0, "here"):
        same = torch.rand(3)
    assert torch.equal(one, same)
    assert torch.equal(torch.get_rng_state(), state)
