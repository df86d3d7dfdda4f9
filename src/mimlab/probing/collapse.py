"""What counts as a collapse: one definition, for the probe's callbacks and for pretraining.

A series collapses where its value is below a share of the largest that it had, which was itself large enough to have
something to lose. That is told once, and the series is then counted from where it fell to: again where it falls by that
share again, or after it had recovered. For attention the series is a layer's NMI, mean over heads (theory, section 7).

What is not seen: heads that come to share few keys out of uniform attention, since their NMI rises then
(mean_row_entropy falls). A drop that is no collapse is seen, too: an alarm says where to look.
"""

import math
from collections.abc import Hashable

FALL = 0.5
"""An alarm where a layer's NMI is below this share of the largest it had. In the trial that this project began with (32
px, 4 layers) masked training ended with every layer at .87 of its value before, or above; contrastive training that
started there took five of the six later layers of two runs to .45 and less, and the sixth to .65."""
DIVERSE = 0.05
"""A layer is watched once its NMI has reached this. Contrastive and supervised networks from the usual start stayed at
.01 to .04 there: below, attention is nearly uniform, and has nothing to lose."""
COLLAPSED = 0.05
"""Outputs have collapsed where their deviation, from 0 (all alike) to 1 (spread evenly over the sphere), is below this
share of the largest it had, and so below this itself. That it must have fallen leaves fresh networks in peace, whose
CLS outputs differ little between images before anything was learned."""


class Falls:
    """What series were at most so far, and where they fall; values come in the order of steps."""

    def __init__(self) -> None:
        self._largest: dict[Hashable, float] = {}

    def of(self, series: Hashable, value: float, share: float = FALL, least: float = DIVERSE) -> float | None:
        """Take the next value of a series; return what it fell from, or None where this is no fall.

        It is one where the value, at least 0, is below `share` (in [0, 1), 0 never) of the largest so far, which was
        at least `least`. Values that are not numbers are passed over.

        >>> falls = Falls()
        >>> [falls.of("layer 0", value) for value in (0.01, 0.4, 0.3, 0.1, 0.08)]
        [None, None, None, 0.4, None]
        """
        if math.isnan(value):
            return None
        largest = self._largest.get(series, value)
        fallen = largest >= least and value < share * largest
        self._largest[series] = value if fallen else max(largest, value)
        return largest if fallen else None
