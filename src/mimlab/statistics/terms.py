"""The summands that the statistics share: -p log p, the divergence p log(p/q), and an effective rank.

Logarithms are natural and 0 log 0 = 0. Every function takes NumPy arrays, PyTorch tensors, or arrays of any
other library that follows the array-API standard, and returns the same kind. They are exact; the arguments
must be probabilities (for `effective_rank_of`, singular values): negative numbers are not detected.
"""

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of any library; the libraries have no type in common."""


def namespace(array: Array) -> ModuleType:
    """The module whose functions work on `array`: its array-API namespace, torch for a tensor, or NumPy."""
    if hasattr(array, "__array_namespace__"):
        module: ModuleType = array.__array_namespace__()
        return module
    if type(array).__module__.partition(".")[0] == "torch":
        return sys.modules["torch"]
    return np


def surprise(p: Array) -> Array:
    """-p log p of every element, in nats; 0 where p = 0.

    >>> surprise(np.array([0.0, 0.5, 1.0])).round(4).tolist()
    [0.0, 0.3466, 0.0]
    """
    xp = namespace(p)
    # 0 - x rather than -x: a probability of 1 gives 0, not -0.
    return 0.0 - p * xp.log(xp.where(p > 0, p, 1.0))


def divergence(p: Array, q: Array) -> Array:
    """p log(p/q) of every element, in nats; 0 where p = 0. Over two distributions the sum is KL(p ‖ q).

    >>> divergence(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.25, 0.25])).round(4).tolist()
    [0.0, 0.3466, 0.0]
    """
    xp = namespace(p)
    ratio = p / xp.where(q > 0, q, 1.0)
    return p * xp.log(xp.where(ratio > 0, ratio, 1.0))


def effective_rank_of(values: Array, multiplicities: Array | float = 1.0) -> Array:
    """exp of the entropy of singular values normalised to sum 1 (Roy & Vetterli 2007), over the last axis.

    Value k counts `multiplicities[k]` times, which need not be whole and may be 10^12. Range: from 1 to the
    number of values.

    >>> float(effective_rank_of(np.array([3.0, 3.0, 0.0])).round(4))
    2.0
    >>> float(effective_rank_of(np.array([3.0, 7.0]), np.array([8.0, 0.0])).round(4))
    8.0
    """
    xp = namespace(values)
    p = values / xp.sum(multiplicities * values, axis=-1, keepdims=True)
    return xp.exp(xp.sum(multiplicities * surprise(p), axis=-1))
