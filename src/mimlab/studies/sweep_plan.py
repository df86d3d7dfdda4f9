"""What a sweep is to run: a configuration, axes and a design make points, each known by the hash of its own
configuration, so that a point that was run is recognised, whatever sweep it is part of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import product
from math import prod
from typing import Any

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import InputError, build, check, merge, to_mapping
from mimlab.runs.axes import Axis, read_axis
from mimlab.runs.checks import whole_number

DESIGNS = ("grid", "random", "one-at-a-time")
MOST_POINTS = 1_000_000
SEED = "seed"  # one-at-a-time crosses this axis with all others


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep: the value on every axis and, for one-at-a-time, the axis that left the base.

    ``config`` is the whole configuration as a mapping; where it is refused, ``error`` says why.
    """

    number: int
    values: Mapping[str, Any]
    axis: str | None
    hash: str
    config: Mapping[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Plan:
    """A configuration as it was given, the axes, and how they are combined.

    Parameters
    ----------
    mapping
        A configuration as TOML has it; what the axes give it need not have.
    axes
        At least one; no two of a key, or of a table and a key in it.
    design
        "grid" (every combination), "random" (``points`` draws, uniform in each range, or of the values of a list) or
        "one-at-a-time" (the configuration itself, then each axis alone; an axis over ``seed`` is crossed with all).
    points
        Number of points of the random design, and of it alone.

    Raises InputError for a design that cannot be made, and where not one of its points can be run.
    """

    mapping: Mapping[str, Any]
    axes: tuple[Axis, ...]
    design: str = "grid"
    number: int | None = None

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise InputError(
                f"sweep: design = {self.design!r} is not known; give one of {', '.join(DESIGNS)}"
            )
        if not self.axes:
            raise InputError("sweep: there is no axis; give at least one, such as --over world.clusters=1,2")
        for i, axis in enumerate(self.axes):
            for other in (one for j, one in enumerate(self.axes) if j != i):
                if f"{axis.key}.".startswith(f"{other.key}."):
                    raise InputError(f"sweep: two axes set {axis.key}; put its values into one")
        if (self.number is None) == (self.design == "random"):
            needs = (
                "needs --points" if self.number is None else "takes no --points; those are for random alone"
            )
            raise InputError(f"sweep: the design {self.design} {needs}")
        if self.number is not None:
            object.__setattr__(self, "number", whole_number("sweep: points", self.number))
        if self.size > MOST_POINTS:
            raise InputError(f"sweep: {self.size} points are too many; at most {MOST_POINTS}")

    @classmethod
    def read(
        cls, mapping: Mapping[str, Any], over: Sequence[str], design: str = "grid", number: int | None = None
    ) -> Plan:
        """The plan of axes as they are typed. Raises InputError for whatever cannot be done as asked."""
        mapping = check(SimulationConfig, mapping)
        return cls(mapping, tuple(read_axis(text, SimulationConfig) for text in over), design, number)

    @property
    def size(self) -> int:
        """Number of points."""
        if self.number is not None:
            return self.number
        sizes = {axis.key: len(axis.values) for axis in self.axes}
        if self.design == "grid":
            return prod(sizes.values())
        seeds = sizes.pop(SEED, 1)
        return seeds * (1 + sum(sizes.values()))

    @property
    def facts(self) -> dict[str, Any]:
        """Axes and design as plain data."""
        axes = [{"key": a.key, "spacing": a.spacing, "values": list(a.values)} for a in self.axes]
        return {"design": self.design, "points": self.size, "axes": axes}

    @cached_property
    def base(self) -> dict[str, Any]:
        """The value of every axis in the configuration itself, its defaults included; None where it has none."""
        filled = self._filled or self.mapping
        return {axis.key: _at(filled, axis.key) for axis in self.axes}

    @cached_property
    def config_toml(self) -> dict[str, Any]:
        """The configuration with every default, or as given where it is none without the axes, or where a default
        would stand in the way of an axis (latents by values beside low and high)."""
        if self._filled is not None:
            first = next(point for point in self.points if point.error is None)
            with suppress(InputError):
                if (
                    hash_of(to_mapping(build(SimulationConfig, self._laid(self._filled, first.values))))
                    == first.hash
                ):
                    return self._filled
        given: dict[str, Any] = plain(self.mapping)
        return given

    @cached_property
    def _filled(self) -> dict[str, Any] | None:
        """The configuration with every default; None where it is none without the axes."""
        try:
            return to_mapping(build(SimulationConfig, self.mapping))
        except InputError:
            return None

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All points, in order: that of the last axis changes fastest."""
        found = tuple(
            self._point(number, values, axis) for number, (values, axis) in enumerate(self._designed())
        )
        if all(point.error is not None for point in found):
            raise InputError(f"sweep: not one of {len(found)} points can be run; the first: {found[0].error}")
        return found

    def _designed(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        """What each point sets, and the axis that has left the base."""
        keys = [axis.key for axis in self.axes]
        if self.design == "grid":
            for values in product(*(axis.values for axis in self.axes)):
                yield dict(zip(keys, values, strict=True)), None
        elif self.design == "random":
            generator = np.random.default_rng(whole_number(SEED, self.mapping.get(SEED, 0), least=0))
            for _ in range(self.size):
                yield {axis.key: _drawn(axis, generator) for axis in self.axes}, None
        else:
            build(SimulationConfig, self.mapping)  # the base itself must be one
            seeds = next((axis.values for axis in self.axes if axis.key == SEED), None)
            for setting in [{}] if seeds is None else [{SEED: seed} for seed in seeds]:
                yield setting, None
                for axis in self.axes:
                    if axis.key != SEED:
                        for value in axis.values:
                            yield {**setting, axis.key: value}, axis.key

    def _point(self, number: int, values: Mapping[str, Any], axis: str | None) -> Point:
        mapping = self._laid(self.mapping, values)
        try:
            config, error = to_mapping(build(SimulationConfig, mapping)), None
        except InputError as refused:
            config, error = plain(mapping), str(refused)
        return Point(number, values, axis, hash_of(config), config, error)

    def _laid(self, mapping: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
        """A mapping with the values of a point on top."""
        for axis in self.axes:
            if axis.key in values:
                mapping = merge(mapping, axis.at(values[axis.key]))
        return mapping


def hash_of(config: Mapping[str, Any]) -> str:
    """The name of a configuration: of its canonical JSON (keys sorted, no blanks) the SHA-256, 16 hexadecimal digits.

    >>> hash_of({"seed": 0, "world": {"patches": 10}}) == hash_of({"world": {"patches": 10}, "seed": 0})
    True
    """
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()[:16]


def _drawn(axis: Axis, generator: np.random.Generator) -> Any:
    """A value of an axis, uniform in its range (of a logarithmic one in the logarithm), or one of its list."""
    share = float(generator.random())
    if axis.spacing == "list":
        return axis.values[int(share * len(axis.values))]
    low, high = axis.values[0], axis.values[-1]
    if all(isinstance(value, int) for value in axis.values):
        low, high = (low - 0.5, high + 0.5) if axis.spacing == "linear" else (low, high)
    value = low * (high / low) ** share if axis.spacing == "log" else low + (high - low) * share
    return value if isinstance(axis.values[0], float) else round(value)


def _at(mapping: Mapping[str, Any], key: str) -> Any:
    """The value at a key with dots; None where there is none."""
    value: Any = mapping
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return tuple(value) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A checked mapping as TOML and JSON have it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
