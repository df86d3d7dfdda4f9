"""From a picture to the pixels a model was trained on, where no library's own preprocessing is at hand.

The published evaluations of vision transformers agree: resize the shorter side, crop the middle, divide by
255, subtract the mean of each channel and divide by its deviation. Exact for a model only with that model's
own numbers; the wrong mean, or no normalisation, gives attention that looks sound and is another model's.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and deviation of red, green and blue, of pixels in [0, 1]."""

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """A picture's pixels as a model wants them: call it with an RGB image, get a float32 tensor (3, *size).

    size: height and width in pixels. shorter: the shorter side is resized to so many pixels, proportions
    kept, and the middle is cropped; None: the whole picture is resized to `size`, distorted. resample: a
    filter of Pillow's.

    >>> preprocess = Preprocessing(size=(32, 48), mean=IMAGENET[0], std=IMAGENET[1], shorter=56)
    >>> preprocess(Image.new("RGB", (640, 480))).shape
    torch.Size([3, 32, 48])
    """

    size: tuple[int, int]
    mean: Channels
    std: Channels
    shorter: int | None = None
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __post_init__(self) -> None:
        if self.shorter is not None and self.shorter < max(self.size):
            raise ValueError(f"shorter = {self.shorter} leaves less than the crop of {self.size}")

    def __call__(self, image: Image.Image) -> torch.Tensor:
        height, width = self.size
        if self.shorter is None:
            image = image.resize((width, height), self.resample)
        else:
            ratio = self.shorter / min(image.size)
            across, down = (max(self.shorter, int(side * ratio)) for side in image.size)
            left, top = round((across - width) / 2), round((down - height) / 2)
            image = image.resize((across, down), self.resample).crop((left, top, left + width, top + height))
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))


def published(side: int) -> Preprocessing:
    """How MAE, MoCo v3, DINO, DINOv2 and DeiT were evaluated: bicubic, the middle 7/8, ImageNet's colours.

    MoCo v3's evaluation alone resized bilinearly; the difference is below a grey level or two on photographs.

    >>> published(224).shorter
    256
    """
    return Preprocessing((side, side), *IMAGENET, shorter=round(side * 256 / 224))
