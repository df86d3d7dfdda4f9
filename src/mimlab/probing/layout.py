"""Which tokens are patches, and where: the grid, the prefix before it, and the size of a patch.

The layout comes from the model (the convolution that cuts the image into patches) or from the user, never
from the square root of the token count: a masked autoencoder's 49 visible tokens look like a 7 x 7 grid and
are none. A wrong layout gives wrong distances silently, so everything that can be checked is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimlab.runs.errors import InputError


@dataclass(frozen=True)
class Layout:
    """Tokens of one attention map: `prefix` tokens (CLS, registers), then the patches, row by row.

    grid: rows and columns of patches. patch_size: height and width of a patch in pixels. windows: windows of
    an image where attention stays within windows; `grid` is then one window's. Raises InputError where a
    number is not one it can be.

    >>> layout = Layout(grid=(14, 14), prefix=1, patch_size=(16, 16))
    >>> layout.patches, layout.tokens
    (196, 197)
    """

    grid: tuple[int, int]
    prefix: int = 0
    patch_size: tuple[float, float] = (1.0, 1.0)
    windows: int = 1

    def __post_init__(self) -> None:
        whole = (*self.grid, self.prefix, self.windows)
        if (
            len(self.grid) != 2
            or not all(isinstance(n, int) for n in whole)
            or min(*self.grid, self.windows) < 1
        ):
            raise InputError(
                f"grid = {self.grid} and windows = {self.windows} must be whole numbers >= 1: rows and columns"
            )
        if (
            self.prefix < 0
            or len(self.patch_size) != 2
            or not all(0 < side < np.inf for side in self.patch_size)
        ):
            raise InputError(
                f"prefix = {self.prefix} must be >= 0, and patch_size = {self.patch_size} two lengths in pixels"
            )

    @property
    def patches(self) -> int:
        """N, the patches of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Rows and columns of the attention map: the prefix and the patches."""
        return self.prefix + self.patches

    def positions(self) -> NDArray[np.float64]:
        """Centre of each patch in pixels, up to a shift: (patches, 2), vertical and horizontal, row by row."""
        rows, columns = np.indices(self.grid, dtype=np.float64).reshape(2, -1)
        return np.stack([rows * self.patch_size[0], columns * self.patch_size[1]], axis=1)

    def offset_distances(self) -> NDArray[np.float64]:
        """Length in pixels of each offset between two patches, (2 rows - 1, 2 columns - 1), zero in the middle."""
        rows, columns = (
            np.arange(1 - n, n) * side for n, side in zip(self.grid, self.patch_size, strict=True)
        )
        lengths: NDArray[np.float64] = np.hypot(rows[:, None], columns[None, :])
        return lengths

    def uniform_distance(self) -> float:
        """Distance of uniform attention in pixels: of two patches, a patch and itself included.

        >>> round(Layout(grid=(14, 14), patch_size=(16, 16)).uniform_distance(), 2)
        116.49
        """
        pairs = [n - np.abs(np.arange(1 - n, n)) for n in self.grid]  # how many pairs have an offset
        return float(pairs[0] @ self.offset_distances() @ pairs[1] / self.patches**2)
