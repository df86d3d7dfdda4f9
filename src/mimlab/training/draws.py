"""Every random number of a training run, as a function of a seed and a place: nothing to save, nothing to restore.

A place is the number of a forward pass and a purpose, `generator(seed, number, "crops")`; a run that goes on in the
middle draws what it would have drawn. Numbers are drawn on the CPU and then moved, so that a GPU gets the same ones.
PyTorch's global generator is neither read nor advanced.

What would go wrong silently: one place for two purposes, which would then share their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch


def generator(seed: int, *place: int | str) -> torch.Generator:
    """A CPU generator that depends on the seed and on every part of the place.

    Close seeds and numbers give unrelated draws, since the state comes from a hash (BLAKE2b).

    >>> torch.rand(2, generator=generator(0, 7, "crops")).equal(torch.rand(2, generator=generator(0, 7, "crops")))
    True
    >>> torch.rand(2, generator=generator(0, 7, "crops")).equal(torch.rand(2, generator=generator(0, 8, "crops")))
    False
    """
    digest = blake2b(repr((int(seed), *place)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


@contextmanager
def seeded(seed: int, *place: int | str) -> Iterator[None]:
    """PyTorch's global CPU generator at a known state, and afterwards as it was: for code that knows no other."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(seed, *place).get_state())
        yield
