"""Tables of which there are several kinds: the one that `name` says, in TOML, as flags and back."""

from dataclasses import dataclass, field

import pytest

from mimlab.cli.flags import flags
from mimlab.runs import InputError, build, check, to_mapping
from mimlab.runs.flags import write_flags
from mimlab.runs.schema import walk


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0
    name: str = "circle"


@dataclass(frozen=True)
class Box:
    width: float = 1.0
    radius: float = 0.0
    name: str = "box"


@dataclass(frozen=True)
class Drawing:
    shape: Circle | Box = field(default_factory=Circle)
    lines: int = 2


@pytest.mark.parametrize(
    ("mapping", "made"),
    [
        ({}, Circle()),
        ({"shape": {"radius": 2}}, Circle(2.0)),
        ({"shape": {"name": "circle", "radius": 2}}, Circle(2.0)),
        ({"shape": {"name": "box"}}, Box()),
        ({"shape": {"name": "box", "width": 3, "radius": 0.5}}, Box(3.0, 0.5)),
    ],
)
def test_the_name_says_which_and_all_ways_lead_back(mapping, made):
    drawing = build(Drawing, mapping)
    assert drawing.shape == made
    assert build(Drawing, to_mapping(drawing)) == drawing
    words = write_flags(drawing)
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert ("--shape" in given) == isinstance(made, Box)
    numbers = {
        key.lstrip("-").removeprefix("shape-"): value for key, value in given.items() if key != "--shape"
    }
    typed = {name: float(value) for name, value in numbers.items()}
    assert build(Drawing, {"shape": {"name": given.get("--shape", "circle"), **typed}}) == drawing


def test_a_key_of_another_kind_is_refused_by_name():
    with pytest.raises(
        InputError, match=r"shape\.width is for shape = box, not for circle; leave it out, or give"
    ):
        build(Drawing, {"shape": {"width": 2.0}})
    with pytest.raises(InputError, match=r"there is no key shape\.height; the nearest is"):
        check(Drawing, {"shape": {"name": "box", "height": 2.0}})
    with pytest.raises(InputError, match=r"shape\.radius must be a finite number"):
        check(Drawing, {"shape": {"name": "box", "radius": "far"}})


def test_each_key_has_one_flag():
    paths = [str(key) for key in walk(Drawing)]
    assert paths == ["shape", "shape.radius", "shape.name", "shape.width", "lines"]
    assert [flag.name for flag in flags(Drawing)] == ["--radius", "--shape", "--width", "--lines"]
