"""The photographs that a run without a folder trains on, and those it never sees: a named list, no download.

They lie in the wheels of two dependencies, scikit-image and matplotlib. The hold-out is by photograph: crops of one
photograph share its light, colours and textures, so that a network tested on other crops of the photographs it knows
would be tested on what it has seen. For the same reason no scene stands on both sides, and none is in twice: the
second half of the stereo pair is left out. scikit-learn brings two more (flower, china); it is no dependency, so
they are not in.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mimlab.runs.errors import InputError


@dataclass(frozen=True)
class Photograph:
    """One photograph: its name, the package that brings it, its file there, and what it shows."""

    name: str
    package: str
    file: str
    shows: str

    @property
    def path(self) -> Path:
        """Where it is. Raises InputError where the installed package is without it."""
        spec = find_spec(self.package)
        path = Path((spec.submodule_search_locations or [""])[0], self.file) if spec else None
        if path is None or not path.is_file():
            raise InputError(
                f"photograph {self.name}: the installed {self.package} has no file {self.file}; install the version "
                "named in constraints.txt, or give a folder of your own: --images DIR."
            )
        return path


def _skimage(name: str, file: str, shows: str) -> Photograph:
    return Photograph(name, "skimage", f"data/{file}", shows)


TRAINING = (
    _skimage("astronaut", "astronaut.png", "a portrait among many objects"),
    _skimage("brick", "brick.png", "a wall"),
    _skimage("clock", "clock_motion.png", "a clock blurred by motion on an empty wall"),
    _skimage("coins", "coins.png", "coins on a dark ground"),
    _skimage("grass", "grass.png", "one texture, fine"),
    _skimage("gravel", "gravel.png", "one texture, coarse"),
    _skimage("hubble", "hubble_deep_field.jpg", "galaxies on a black sky"),
    _skimage("immunohistochemistry", "ihc.png", "stained tissue through a microscope"),
    _skimage("moon", "moon.png", "a plain with a few craters"),
    _skimage("motorcycle", "motorcycle_left.png", "a crowded workshop"),
    _skimage("retina", "retina.jpg", "the inside of an eye"),
    _skimage("rocket", "rocket.jpg", "a launch pad before a night sky"),
    Photograph("hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "a portrait before a flag"),
)
"""What is trained on; a photograph's place here is its label."""

HELD_OUT = (
    _skimage("camera", "camera.png", "a man before a lawn and the sky"),
    _skimage("chelsea", "chelsea.png", "a cat's face"),
    _skimage("coffee", "coffee.png", "a cup on a table"),
)
"""What is never trained on: people and a street in grey, fur, and things of one colour each."""

LEFT_OUT = {
    "cell.png": "a phase image computed from a hologram",
    "microaneurysms.png": "a crop of 102 pixels, of an eye as retina.jpg is",
    "motorcycle_right.png": "the same scene as motorcycle_left.png: half of a stereo pair",
    "page.png": "ink on paper: hardly a scene, and 191 pixels high",
    "text.png": "ink on paper: hardly a scene, and 172 pixels high",
}
"""What else a camera, scanner or microscope took in these wheels, and why it is left out. The rest is drawn."""
