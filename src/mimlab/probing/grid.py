"""Where the tokens of a running model stand: found from the convolution its image went through."""

import math
from collections.abc import Callable, Sequence

import torch

from mimlab.probing.attention import Tensor
from mimlab.probing.layout import Layout
from mimlab.runs.errors import InputError


class GridFinder:
    """Follows an image to its tokens; with a layout given, checks what is seen against it.

    The image is what the first convolution of a forward pass takes; the grid of patches is what the last one before
    the first attention gives (a stem may have several). A patch is the image's size over the grid's.

    Words that are looked up are a source of tokens, too. Tokens of an attention come from the nearest source: that
    of the innermost module around both, and the latest where there are several.
    """

    def __init__(self, given: Layout | None) -> None:
        self._given = given
        self._image: tuple[int, ...] | None = None
        self._grid: tuple[int, int] | None = None
        self.restart()

    def restart(self) -> None:
        """A new forward pass begins. What is known stays until its first convolution."""
        self._fresh = True
        self._settled = False
        self._prefix: int | None = None
        self._sources: list[tuple[str, int | None]] = []  # modules; and how many words, None for an image

    def settle(self) -> None:
        """Attention has begun: later convolutions make no patches."""
        self._settled = True

    def convolved(self, source: Tensor, output: Tensor, caller: str) -> None:
        """A convolution was carried out: before the first attention it may be the one that makes patches."""
        self._sources.append((caller, None))
        if source.dim() == 4 and not self._settled:
            if self._fresh:
                self._image = tuple(source.shape)
                self._fresh = False
            self._grid = (int(output.shape[-2]), int(output.shape[-1]))

    def picked(self, source: Tensor, pick: Callable[[Tensor], Tensor], caller: str) -> None:
        """Tokens were picked by an index; raises InputError if that changed their order or left some out."""
        patches = math.prod(self._grid) if self._grid else None
        if self._settled or source.dim() != 3 or source.shape[1] != patches:
            return
        order = torch.arange(patches, device=source.device)[None, :, None]
        places = pick(order.expand(source.shape))  # what was done to the tokens, done to their numbers
        rows = places.numel() // places.shape[-1]
        if rows % patches or not bool((places.reshape(-1, patches, places.shape[-1]) == order).all()):
            raise InputError(
                f'module "{caller}" masked or shuffled the patches: {rows // len(source)} of {patches} were kept, and '
                "their places in the image are lost; run it unmasked and in order (a transformers ViTMAE: "
                "mask_ratio=0 and ordered noise=; an original MAE: without random_masking)"
            )

    def looked_up(self, words: int, caller: str) -> None:
        """So many words were looked up."""
        self._sources.append((caller, words))

    def _are_words(self, caller: str, side: int) -> bool:
        """Whether the nearest source of so many tokens is a row of words."""
        parts = caller.split(".")
        for length in range(len(parts), -1, -1):
            around = "".join(f"{part}." for part in parts[:length])
            found = [n for name, n in self._sources if f"{name}.".startswith(around) and n in (None, side)]
            if found:
                return found[-1] is not None
        return False

    def joined(self, shapes: Sequence[Sequence[int]], dim: int, caller: str) -> None:
        """Tokens were put together; raises InputError unless the patches come last, for all that can be told."""
        if self._settled or self._given is not None or self._grid is None or dim not in (1, -2):
            return
        rows, columns = self._grid
        lengths = [shape[1] for shape in shapes if len(shape) == 3]
        if lengths and lengths[-1] > 0 and max(lengths[:-1], default=0) >= rows * columns:
            raise InputError(
                f'module "{caller}" puts {" + ".join(map(str, lengths))} tokens together, and the image has {rows} x '
                f"{columns} patches: they seem to stand before other tokens; leave those out, or, where the patches "
                "do come last, say so with layout=Layout(grid=(rows, columns), prefix=tokens before the patches)"
            )

    def layout_of(
        self, caller: str, shape: Sequence[int], window: int | None, entered: Sequence[int]
    ) -> Layout:
        """The layout of a table of attention; raises InputError where it cannot be one between these tokens.

        shape: of the table, or of the queries. window: tokens of the caller's windows, if it has any. entered: the
        shape of what the caller was given.
        """
        side = shape[-2]
        if self._given is not None:
            if side != self._given.tokens:
                raise InputError(
                    f'attention in "{caller}" is between {side} tokens, but the layout has {self._given.tokens}: '
                    f"{self._given.prefix} before a grid of {self._given.grid[0]} x {self._given.grid[1]} patches; "
                    "give the layout that the model has"
                )
            return self._given
        if self._image is None or self._grid is None:
            raise InputError(
                f'where the {side} tokens of "{caller}" stand is not known, since no convolution made patches of an '
                "image; give layout=Layout(grid=(rows, columns), prefix=tokens before the patches)"
            )
        if self._are_words(caller, side):
            raise InputError(
                f'"{caller}" attends between {side} x {side} tokens of text, of words looked up by their ids, and not '
                "between the patches of the image; leave the layer out with layers=, or say where its tokens stand "
                "with layout="
            )
        images, _, height, width = self._image
        patch = (height / self._grid[0], width / self._grid[1])
        prefix = side - math.prod(self._grid)
        of_tokens = (
            len(entered) != 3 or side in entered[:2]
        )  # else over channels, or over tokens of its own making
        if (prefix >= 0 and side != window and self._prefix in (None, prefix) and of_tokens) or prefix == 0:
            self._prefix = prefix
            return Layout(self._grid, prefix, patch)
        leading = math.prod(shape[:-3]) if len(shape) > 3 else entered[0] if entered else 0
        if window == side and math.isqrt(window) ** 2 == window and leading % images == 0:
            windows = leading // images
            merged = math.sqrt(
                math.prod(self._grid) / (windows * window)
            )  # each stage has patches of twice the side
            if merged.is_integer():
                grown = (patch[0] * merged, patch[1] * merged)
                return Layout((math.isqrt(window),) * 2, 0, grown, windows)
            raise InputError(
                f'"{caller}" attends within {windows} windows of {side} tokens, which cannot be cut from a grid of '
                f"{self._grid[0]} x {self._grid[1]} patches: windows were padded; give images that they divide"
            )
        raise InputError(
            f'"{caller}" takes a softmax over a table of {side} x {side}, but the image has {self._grid[0]} x '
            f"{self._grid[1]} = {math.prod(self._grid)} patches: this is no attention between all patches (masked "
            "tokens, pooled stages, text, or attention over channels); leave the layer out with layers=, or say "
            "where its tokens stand with layout="
        )

    def maps_of(
        self, shape: Sequence[int], layout: Layout, heads: int | None, entered: Sequence[int]
    ) -> tuple[int, int]:
        """Images (windows counted one by one) and heads of a table, from its leading axes; as `layout_of`."""
        leading = shape[:-2]
        total = math.prod(leading)
        if heads is not None:
            return total // heads, heads
        if len(leading) >= 2:
            return total // leading[-1], leading[-1]
        # One leading axis holds both, image by image: what the caller was given tells how many images there are.
        images = (self._image[0] if self._image else total) * layout.windows
        if len(entered) == 3 and layout.tokens in entered[:2]:
            images = entered[0] if entered[1] == layout.tokens else entered[1]
        return (images, total // images) if total % images == 0 else (total, 1)
