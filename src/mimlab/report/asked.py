"""A photograph to click on: where the attention from any of its patches goes, through training."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from mimlab.report.page import Section
from mimlab.report.widgets import Widget, short, shown, slider

_QUALITY = 85  # of the JPEG under the attention


def photograph_section(
    heading: str,
    sentence: str,
    pixels: ArrayLike,
    labels: ArrayLike,
    attention: pa.Table,
    gaps: Mapping[int, float],
    command: str,
) -> Section:
    """The photograph as a part of a page.

    Parameters
    ----------
    pixels
        (height, width, 3) in [0, 1], a whole number of square patches.
    labels
        (rows, columns): the area of each patch; 0 is the global one.
    attention
        `query`, `query_area`, `time`, `area` (null: the query itself) and `attention` (of one patch), by query, time
        and area. There must be a query in area 0 and one in a local area of each size that occurs; areas of one size
        are interchangeable.
    gaps
        Δ_p of a local patch by the size of its area.
    command
        The command that follows these queries again.

    Raises ValueError where a class of queries is missing.
    """
    areas = np.asarray(labels)
    sizes = np.bincount(areas.ravel()).tolist()
    classes = [_class(rows, len(sizes)) for rows in _by(attention.to_pylist(), "query")]
    kinds = {_kind(one["area"], sizes): place for place, one in enumerate(classes)}
    missing = {_kind(area, sizes) for area in range(len(sizes))} - set(kinds)
    if missing:
        raise ValueError(f"no query in an area of {min(size for _, size in missing)} patches")
    data = {
        "image": _jpeg(np.asarray(pixels)),
        "rows": areas.shape[0],
        "columns": areas.shape[1],
        "areas": areas.ravel().tolist(),
        "sizes": sizes,
        "gaps": {str(size): gap for size, gap in gaps.items()},
        "class_of": [kinds[_kind(area, sizes)] for area in range(len(sizes))],
        "time": short(dict.fromkeys(attention["time"].to_pylist())),
        "classes": classes,
    }
    return Section(
        heading,
        sentence,
        widget=Widget(
            "photograph",
            _controls(areas.size),
            data,
            "Asking a patch needs JavaScript; below, attention is drawn over photographs for a few patches.",
        ),
        command=command,
    )


def _kind(area: int, sizes: list[int]) -> tuple[bool, int]:
    return area == 0, sizes[area]


def _by(records: list[dict[str, Any]], key: str) -> list[list[dict[str, Any]]]:
    return [list(group) for _, group in groupby(records, key=lambda record: record[key])]


def _class(records: list[dict[str, Any]], areas: int) -> dict[str, Any]:
    """Attention of one query for itself, and for a patch of each area (null where there is no other), by time."""
    itself, others = [], []
    for moment in _by(records, "time"):
        weights = {record["area"]: record["attention"] for record in moment}
        itself.append(weights[None])
        others.append(short(weights.get(area) for area in range(areas)))
    return {"area": records[0]["query_area"], "itself": short(itself), "others": others}


def _jpeg(pixels: np.ndarray) -> str:
    """The photograph in grey, so that colour is attention."""
    from PIL import Image

    file = BytesIO()
    image = Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).convert("L")
    image.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + b64encode(file.getvalue()).decode("ascii")


def _controls(patches: int) -> str:
    kind = "photograph"
    terms = [
        ("itself", "Attention on the patch itself", ""),
        ("own", "on the rest of its area", ""),
        ("global", "on the largest area", ""),
        ("other", "on all other areas", ""),
    ]
    return (
        '<p class="faint">Click a patch, or move with the arrow keys.</p>\n'
        f'<canvas tabindex="0" role="application" aria-label="Photograph of {patches} patches; the arrow keys move the '
        f'patch that asks" aria-describedby="{kind}.said"></canvas>\n'
        '<div class="scale"><span>0</span><span class="ramp"></span><span data-shown="largest"></span></div>\n'
        f'<div class="controls">{slider(kind, "moment", "Time")}</div>\n'
        f'<p class="said" role="status" id="{kind}.said" data-shown="said"></p>\n'
        f"{shown(terms)}"
    )
