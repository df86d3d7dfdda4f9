"""Did it learn anything? Frozen features asked which photograph a crop is from, and reconstruction against two guesses.

*Which photograph.* Crops of one half of each photograph are known, crops of the other half are asked for: no pixel is
in both. They are grey and standardised, so that mean colour, brightness and contrast, which random weights already
read, tell nothing. Two readers of frozen features: the nearest neighbours, and a linear map.

*Reconstruction.* The loss over masked patches, beside that of the mean colour of what is visible and of the visible
patch that lies nearest. On close crops the former is a strong guess, and a loss without it says little.

What would mislead: accuracies for other photographs, crops or numbers of them beside each other; features of CLS for
a network whose objective leaves CLS alone (masked ones do), which is why patches are averaged by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mimlab.probing.callbacks import undisturbed
from mimlab.runs.errors import InputError
from mimlab.training.masks import image_of, patches_of
from mimlab.training.views import to_unit

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Of the neighbours' votes (Wu et al. 2018, as DINO has them)."""
PENALTY = 1e-3
LUMA = (0.299, 0.587, 0.114)
"""Of ITU-R BT.601."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Crops (n, 3, s, s) and which photograph each is from, (n,) int64."""

    pixels: Tensor
    labels: Tensor


def crops_of_halves(
    photographs: Sequence[Tensor],
    side: int,
    count: int,
    generator: torch.Generator,
    window: tuple[int, int] = (48, 128),
) -> tuple[Labelled, Labelled]:
    """`count` known crops of each photograph, from its left or upper half, and as many to ask for, from the other.

    photographs: (3, h, w) uint8, cut in two across the longer side. window: least and largest side of the squares that
    are cut, in pixels, resized to `side`; what a half has no room for is not drawn. In [0, 1], float32.

    Raises InputError for a photograph with too little room.
    """
    parts: list[list[Tensor]] = [[], []]
    for photograph in photographs:
        wide = photograph if photograph.shape[2] >= photograph.shape[1] else photograph.transpose(1, 2)
        middle = wide.shape[2] // 2
        room = min(wide.shape[1], middle)
        if room < window[0]:
            raise InputError(
                f"a photograph of {photograph.shape[2]} x {photograph.shape[1]} pixels has no room in each half for "
                f"windows of {window[0]}; give larger photographs or smaller windows"
            )
        for part, half in zip(parts, (wide[..., :middle], wide[..., -middle:]), strict=True):
            if wide is not photograph:
                half = half.transpose(1, 2)
            part += [_window(half, (window[0], min(window[1], room)), side, generator) for _ in range(count)]
    labels = torch.arange(len(photographs)).repeat_interleave(count)
    known, asked = (Labelled(torch.stack(part), labels) for part in parts)
    return known, asked


def _window(picture: Tensor, sides: tuple[int, int], side: int, generator: torch.Generator) -> Tensor:
    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    cut = drawn(*sides)
    top, left = (drawn(0, length - cut) for length in picture.shape[1:])
    square = picture[None, :, top : top + cut, left : left + cut].float() / 255
    resized = nn.functional.interpolate(square, (side, side), mode="bilinear", antialias=True)
    return resized[0]


def grey_standardised(pixels: Tensor) -> Tensor:
    """Each crop (n, 3, s, s) as its luma, of mean 0 and standard deviation 1, in all three channels."""
    grey = (pixels * pixels.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    centred = grey - grey.mean((2, 3), keepdim=True)
    deviation = centred.square().mean((2, 3), keepdim=True).sqrt()
    return (centred / deviation.clamp_min(1e-6)).expand_as(pixels)


def features(encoder: Any, pixels: Tensor, pooling: str = "mean", batch_size: int = 256) -> Tensor:
    """Outputs of a frozen encoder, (n, dim) float64 on the CPU: "mean" over patches, or "cls".

    encoder: takes pixel_values and gives last_hidden_state with CLS first. It is left undisturbed.
    """
    like = next(encoder.parameters())
    found = []
    with undisturbed(encoder, like.device):
        for part in pixels.split(batch_size):
            hidden = encoder(pixel_values=part.to(like.device, like.dtype)).last_hidden_state
            found.append((hidden[:, 0] if pooling == "cls" else hidden[:, 1:].mean(1)).double().cpu())
    return torch.cat(found)


def nearest_neighbours(
    known: Tensor, labels: Tensor, asked: Tensor, k: int = NEIGHBOURS, temperature: float = TEMPERATURE
) -> Tensor:
    """Label (m,) that the k most similar of the known vectors (n, dim) give each vector asked for (m, dim).

    Similar by cosine; neighbour i votes with weight exp(cos_i / temperature).
    """
    unit, other = (nn.functional.normalize(one.double(), dim=-1) for one in (known, asked))
    similarity, place = (other @ unit.T).topk(min(k, len(known)), dim=-1)
    votes = torch.zeros(len(asked), int(labels.max()) + 1, dtype=torch.float64)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # the largest is 1: nothing overflows
    return votes.scatter_add_(1, labels[place], weight).argmax(1)


def linear_probe(known: Tensor, labels: Tensor, asked: Tensor, penalty: float = PENALTY) -> Tensor:
    """Label (m,) by the linear map of least squares onto one-hot labels, with a ridge; in closed form.

    Every dimension is standardised by the known vectors; the offset has no penalty. `penalty` is a share: the ridge is
    penalty times the number of known vectors, as for their mean squared error.
    """
    known, asked = known.double(), asked.double()
    mean, deviation = known.mean(0), known.std(0, correction=0)
    scale = torch.where(
        deviation > 1e-9 * deviation.max(), deviation, torch.inf
    )  # what is constant says nothing
    x, other = (known - mean) / scale, (asked - mean) / scale
    y = nn.functional.one_hot(labels).double()
    gram = x.T @ x / len(x) + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ (y - y.mean(0)) / len(x))
    return (other @ weights + y.mean(0)).argmax(1)


def which_photograph(
    encoder: Any, known: Labelled, asked: Labelled, pooling: str = "mean", k: int = NEIGHBOURS
) -> dict[str, float]:
    """Share of crops whose photograph is told from frozen features of grey standardised crops: "knn", "linear".

    "chance" is one over the number of photographs. Deterministic. Compare with the network before training: random
    weights tell photographs apart too.
    """
    x, other = (features(encoder, grey_standardised(one.pixels), pooling) for one in (known, asked))
    found = {
        "knn": nearest_neighbours(x, known.labels, other, k),
        "linear": linear_probe(x, known.labels, other),
    }
    accuracies = {name: float((labels == asked.labels).double().mean()) for name, labels in found.items()}
    return accuracies | {"chance": 1 / len(known.labels.unique())}


def reconstruction_losses(
    target: Tensor, predicted: Tensor, masked: Tensor, grid: tuple[int, int]
) -> dict[str, float]:
    """Mean squared error over the masked patches of the "model" and of two guesses, "image_mean" and "nearest_patch".

    target, predicted: (B, N, D), what is to be reconstructed of each patch, D = pixels x 3 with the colours last.
    masked: (B, N), true where a patch was hidden; each image has patches of both kinds. grid: rows and columns of
    patches, N of them row by row.

    The image mean is the mean colour of the visible patches. Of several visible patches that are nearest (between
    centres) the mean is taken, whose loss is at most the mean of theirs.
    """
    hidden = masked.bool()
    truth = target.double()
    seen = (~hidden).double()
    colours = truth.unflatten(-1, (-1, 3))
    mean = (colours.mean(2) * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)  # (B, 3)
    image_mean = mean[:, None, None].expand_as(colours).flatten(-2)
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
    squared = (places[:, None] - places).square().sum(-1).to(truth.device)  # whole numbers: ties are exact
    far = squared.max() + 1
    apart = torch.where(hidden[:, None, :], far, squared)  # (B, N, N), to visible patches alone
    nearest = (apart == apart.amin(-1, keepdim=True)).double()
    nearest_patch = (nearest / nearest.sum(-1, keepdim=True)) @ truth
    guesses = {"model": predicted.double(), "image_mean": image_mean, "nearest_patch": nearest_patch}
    return {name: float((one - truth)[hidden].square().mean()) for name, one in guesses.items()}


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What a masked objective made of crops.

    losses: as of `reconstruction_losses`, in the units of the objective's own loss. crops, predicted: (B, 3, s, s) in
    [0, 1]; predicted holds every patch, also the visible ones. seen: (B, s, s), true where a pixel was visible.
    """

    losses: dict[str, float]
    crops: Tensor
    predicted: Tensor
    seen: Tensor


def reconstructed(objective: Any, pixel_values: Tensor, generator: torch.Generator) -> Reconstructed | None:
    """Mask crops as the objective does, and let it reconstruct them; None for one that masks nothing.

    pixel_values: (B, 3, s, s), as the encoder takes them. generator: of the masks. Of a pair the masked part is asked.
    Where patches are standardised one by one (norm_pixels), the picture is given each patch's own mean and deviation,
    which the network did not predict.
    """
    masked = next((one for one in objective.modules() if hasattr(one, "reconstruct")), None)
    if masked is None:
        return None
    like = next(objective.parameters())
    masks = masked.masks(len(pixel_values), generator).to(like.device)
    pixels = pixel_values.to(like.device, like.dtype)
    with undisturbed(objective, like.device):
        target, predicted = masked.reconstruct(pixels, masks)
    side = masked.patch_size
    grid = (pixels.shape[2] // side, pixels.shape[3] // side)
    losses = reconstruction_losses(target, predicted, masks, grid)
    made = predicted.float()
    if masked.norm_pixels:
        variance, mean = torch.var_mean(patches_of(pixels, side), -1, keepdim=True)
        made = made * (variance + 1e-6).sqrt() + mean
    visible = image_of((~masks).float()[..., None].expand_as(made), side)[:, 0].bool()
    crops, filled = (to_unit(one).clamp(0, 1).cpu() for one in (pixels.float(), image_of(made, side)))
    return Reconstructed(losses, crops, filled, visible.cpu())
