"""Student's interval of a mean: exact for independent normal values, approximate for the means of many others."""

from typing import Any

import numpy as np


def student_width(variance: Any, count: Any, error: float = 0.05) -> Any:
    """Half the interval of a mean of `count` values with this sample variance (ddof 1), missed with chance `error`.

    Takes numbers or arrays. Of fewer than two values there is no interval, and what is returned means nothing.

    >>> print(f"{student_width(4.0, 16):.4f}")
    1.0657
    """
    from scipy.special import stdtrit

    return stdtrit(np.maximum(count - 1, 1), 1 - error / 2) * np.sqrt(variance / count)
