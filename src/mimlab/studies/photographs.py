"""The information gap of photographs, and what the theory then predicts (theory, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.dynamics.integrators import Progress
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs import InputError, RunDirectory, write_toml
from mimlab.studies.single import versions
from mimlab.world.gap import AreaStatistics, area_statistics, predicted_half_time, predicted_phi_global
from mimlab.world.photograph import PhotographAreas, load_photograph, segment

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}  # taken from a folder
MOST_DRAWN = 24  # photographs whose areas are drawn

Measured = tuple[Path, PhotographAreas, AreaStatistics]

GAP_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("patches", pa.int64()),
        ("area", pa.int64()),
        ("area_size", pa.int64()),
        ("patch_gap", pa.float64()),
        ("predicted_phi_global_at_half", pa.float64()),
        ("predicted_half_time", pa.float64()),
    ]
)


def run_gap(
    images: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    patch_size: int = 16,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure κc, κs, Δ and the Δ_p of every local area of each photograph (a folder stands for those in it), and of
    all together; return the summary and, where ``out`` is given, write the run directory. Predictions are those for
    constant latents at mask ratio 0.75. Raises InputError for a file that is no photograph, before anything is
    written; in a folder such a file is skipped, and ``warnings`` of the summary says why."""
    paths, found = photographs_in(images)
    if out is None:
        return _summary(*_measure(paths, found, patch_size, progress))
    with RunDirectory(out, overwrite=overwrite) as folder:
        measured, skipped = _measure(paths, found, patch_size, progress)
        summary = _summary(measured, skipped)
        _write(folder, measured, patch_size, summary, command)
    return summary


def _measure(
    paths: Sequence[Path], found: set[Path], patch_size: int, progress: Progress | None
) -> tuple[list[Measured], list[str]]:
    """Areas of each photograph, and why any of those ``found`` in a folder was skipped."""
    measured: list[Measured] = []
    skipped = []
    for index, path in enumerate(paths):
        if progress is not None:
            progress(index / len(paths), path.name)
        try:
            areas = segment(load_photograph(path), patch_size=patch_size)
        except InputError as error:
            why = str(error) if str(path) in str(error) else f"{path}: {error}"
            if path not in found:
                raise InputError(why) from None
            skipped.append(f"skipped: {why}")
            continue
        measured.append((path, areas, area_statistics((size, 1) for size in areas.sizes)))
    if not measured:
        raise InputError("\n".join(["none of the photographs can be used.", *skipped]))
    return measured, skipped


def _summary(measured: Sequence[Measured], skipped: list[str]) -> dict[str, Any]:
    return gap_summary([(path.name, statistics) for path, _, statistics in measured]) | {"warnings": skipped}


def photographs_in(images: Sequence[str | Path]) -> tuple[list[Path], set[Path]]:
    """Files as given, a folder standing for the photographs in it, by name; and those found in folders. Raises
    InputError for a folder without any."""
    paths: list[Path] = []
    found: set[Path] = set()
    for image in map(Path, images):
        if image.is_dir():
            inside = sorted(path for path in image.iterdir() if path.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{image} holds no photograph ({', '.join(sorted(SUFFIXES))}).")
            paths += inside
            found |= set(inside)
        else:
            paths.append(image)
    return paths, found


def gap_summary(named: Sequence[tuple[str, AreaStatistics]]) -> dict[str, Any]:
    """A record per photograph, and one for all of their local patches together."""
    reports = [_report(name, statistics) for name, statistics in named]
    gaps = [pair for report in reports for pair in report["patch_gaps"]]
    patches = sum(count for _, count in gaps)
    two_phases = sum(count for gap, count in gaps if gap > 0)
    return {
        "status": "finished",
        "photographs": reports,
        "folder": {
            "photographs": len(reports),
            "local_patches": patches,
            "mean_patch_gap": sum(gap * count for gap, count in gaps) / patches if patches else None,
            "two_phase_share": two_phases / patches if patches else None,
        },
        "mask_ratio": MaskedReconstruction().mask_ratio,
        "versions": versions(),
    }


def _report(name: str, statistics: AreaStatistics) -> dict[str, Any]:
    gap, share = statistics.information_gap, statistics.two_phase_share
    return {
        "name": name,
        "patches": statistics.patches,
        "areas": statistics.areas,
        "global_size": statistics.global_size,
        "global_exponent": statistics.global_exponent,
        "local_exponent": statistics.local_exponent,
        "information_gap": gap,
        "mean_patch_gap": statistics.mean_patch_gap,
        "two_phase_share": share,
        "prediction": _prediction(statistics),
        "patch_gaps": [[patch.gap, patch.patches] for patch in statistics.patch_gaps],
    }


def _prediction(statistics: AreaStatistics) -> str:
    """What the theory predicts, by the sign of Δ_p (P without bound) and by (1-γ) P^Δ_p against 1 (this P)."""
    share = statistics.two_phase_share
    if share is None:
        return "no local area"
    visible, local = 1 - MaskedReconstruction().mask_ratio, statistics.patches - statistics.global_size
    here = sum(g.patches for g in statistics.patch_gaps if visible * statistics.patches**g.gap > 1) / local
    return f"two phases for {share:.0%} of local patches by the sign of Δ_p, for {here:.0%} at this P"


def _table(measured: Sequence[Measured]) -> pa.Table:
    """A row per local area; see GAP_SCHEMA."""
    ratio = MaskedReconstruction().mask_ratio
    rows = []
    for path, areas, statistics in measured:
        by_size = {patch.own_size: patch.gap for patch in statistics.patch_gaps}
        for area, size in enumerate(areas.sizes):
            if area == 0:
                continue
            rows.append(
                {
                    "image": path.name,
                    "patches": statistics.patches,
                    "area": area,
                    "area_size": size,
                    "patch_gap": by_size[size],
                    "predicted_phi_global_at_half": predicted_phi_global(
                        statistics.patches, statistics.global_size, size, ratio
                    ),
                    "predicted_half_time": predicted_half_time(statistics.patches, size, ratio),
                }
            )
    return pa.Table.from_pylist(rows, schema=GAP_SCHEMA)


def _write(
    folder: Path,
    measured: Sequence[Measured],
    patch_size: int,
    summary: dict[str, Any],
    command: str,
) -> None:
    from mimlab.report import Section, draw_gap, draw_segmentation, write_page
    from mimlab.runs.tables import write_json, write_table

    write_toml(
        folder / "config.toml", {"images": [str(path) for path, _, _ in measured], "patch_size": patch_size}
    )
    write_table(folder / "gap.parquet", _table(measured))
    (folder / "figures").mkdir(exist_ok=True)
    draw_gap(summary["photographs"], folder / "figures/gap.png")
    drawn = []
    for index, (path, areas, _) in enumerate(measured[:MOST_DRAWN]):
        name = f"figures/areas_{index:02d}_{path.stem}.png"
        draw_segmentation(areas.pixels, areas.labels, folder / name, path.name)
        drawn.append(name)
    shown = (
        "name",
        "patches",
        "areas",
        "global_exponent",
        "local_exponent",
        "information_gap",
        "mean_patch_gap",
    )
    rows = [{key: report[key] for key in (*shown, "prediction")} for report in summary["photographs"]]
    sections = [
        Section(
            "Information gap",
            "Distribution of Δ_p over local patches. Above 0 the theory predicts that a patch first decouples from "
            "the largest area and then finds its own; below 0, that it finds its own from the start. With few patches "
            "the boundary lies higher, at (1-γ) P^Δ_p = 1: at a mask ratio of 0.75 and P = 196, at Δ_p = 0.26.",
            figures=["figures/gap.png"],
            rows=rows,
        ),
        Section("Areas", "Patches of like appearance; the largest area is the global one.", figures=drawn),
    ]
    facts = {"Patch size (pixels)": patch_size, "Versions": summary["versions"]}
    lead = (
        "Areas of like appearance give each photograph the sizes that decide, by the theory, how a masked patch "
        "learns: in two phases where its information gap is positive, in one where it is negative."
    )
    write_page(folder / "report.html", "Information gap of photographs", lead, sections, command, facts)
    write_json(folder / "summary.json", summary)
