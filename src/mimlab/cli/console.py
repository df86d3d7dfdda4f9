"""Results as tables on a terminal. Numbers are rounded for reading; `--json` and the run's files have them whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mimlab.report.numbers import ABSENT, format_interval, format_number

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = ("distance", "entropy", "nmi", "diversity", "spread", "prefix_mass")
"""Statistics that a terminal has room for, where they were measured."""

Record = Mapping[str, Any]

_COLOURS = {"holds": "green", "fails": "red", "inconclusive": "yellow"}


def show_simulation(console: Console, summary: Record) -> None:
    """One world: what it is, how it was learned, and the verdicts."""
    sizes = ", ".join(
        f"{count} x {size}" if count > 1 else str(size) for size, count in summary["area_sizes"]
    )
    local = [query for query in summary.get("queries", ()) if query["area"] != 0]
    row = (local or summary.get("queries") or [summary])[0]  # the first local query, else the only one
    facts = {
        "world": f"{format_number(summary['patches'])} patches, areas {_shortened(sizes)}",
        "information gap Δ": format_number(summary["information_gap"]),
        "status": summary["status"],
        "half-attention time": _with_error(row["half_time"], row["half_time_se"]),
        "Φ_global / log P there": format_number(row["phi_global_at_half_over_log_patches"]),
        "loss floor": format_number(row["loss_floor"]),
    }
    console.print(_grid(facts))
    if summary["phases"]:
        console.print(_phases(summary["phases"]))
    show_verdicts(console, summary)


def show_gap(console: Console, result: Record) -> None:
    """A row per photograph, and one for all: exponents, gaps, and the share of local patches with Δ_p > 0."""
    table = _table("photograph", "patches", "κc", "κs", "Δ", "mean Δ_p", "Δ_p > 0")
    for record in result["photographs"]:
        measures = ("global_exponent", "local_exponent", "information_gap", "mean_patch_gap")
        share = record["two_phase_share"]
        table.add_row(
            record["name"],
            format_number(record["patches"]),
            *(format_number(record[key], 3) for key in measures),
            ABSENT if share is None else f"{share:.0%}",
        )
    whole = result["folder"]
    if whole["photographs"] > 1 and whole["local_patches"]:
        table.add_section()
        gap, share = (
            format_number(whole["mean_patch_gap"], 3),
            f"{whole['two_phase_share']:.0%} of local patches",
        )
        table.add_row(f"all {whole['photographs']}", "", "", "", "", gap, share)
    console.print(table)


def show_exponents(console: Console, summary: Record) -> None:
    """Fitted exponents in P, each with its interval and the bound of the theory, and the verdicts."""
    table = _table("exponent of", "slope [interval]", "theory", "the paper's bound")
    for record in summary["exponents"]:
        slope = format_interval(record["slope"], record["low"], record["high"])
        beside = (format_number(record.get(key)) for key in ("predicted", "bound"))
        table.add_row(record["quantity"], slope, *beside)
    console.print(table)
    show_verdicts(console, summary)


def show_probe(console: Console, summary: Record, layers: "pa.Table") -> None:
    """A table per model: means over heads and images of a few statistics by layer, and their baselines below."""
    import pyarrow.compute as pc

    from mimlab.report.probe_tables import baseline, curve, models_in, statistics_in, with_random_weights

    for model in summary["models"]:
        name = model["name"]
        known = layers.filter(pc.field("model") == name)
        found = statistics_in(known)
        statistics = [one for one in _SHOWN if one in found] or found[: len(_SHOWN)]
        table = _table("layer", *(statistic.replace("_", " ") for statistic in statistics))
        curves = [curve(known, name, statistic) for statistic in statistics]
        for place, record in enumerate(model["layers"]):
            table.add_row(str(record["layer"]), *(format_number(float(one.mean[place]), 3) for one in curves))
        table.add_section()
        if with_random_weights(name) in models_in(layers):
            chance = (curve(layers, with_random_weights(name), one).mean.mean() for one in statistics)
            table.add_row("random weights", *(format_number(float(value), 3) for value in chance))
        for kind in ("uniform", "identity"):
            values = (baseline(model, statistic, kind).mean() for statistic in statistics)
            table.add_row(kind, *(format_number(float(value), 3) for value in values))
        console.print(Text(f"{name}, {summary['images']} images", style="bold"))
        console.print(table)
    if summary.get("images_per_second"):
        console.print(f"{format_number(summary['images_per_second'], 3)} images per second")


def show_verdicts(console: Console, summary: Record) -> None:
    """A row per verdict, where there are several worlds below the claim that they speak of, and the counts."""
    verdicts = summary.get("claims", ())
    if not verdicts:
        return
    several = any(record.get("world") for record in verdicts)
    table = _table("claim, and world" if several else "claim", "measured", "threshold", "verdict")
    claim = None
    for record in verdicts:
        if several and record["claim"] != claim:
            table.add_row(Text(record["claim"], style="bold"), end_section=False)
        claim = record["claim"]
        table.add_row(
            f"  {record.get('world') or ''}" if several else claim,
            format_interval(record.get("value"), record.get("low"), record.get("high"), digits=3),
            record.get("threshold") or "",
            _verdict(record),
        )
    console.print(table)
    counts = Counter(record["verdict"] for record in verdicts)
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in _COLOURS if counts[verdict]))
    if any(record.get("expected") for record in verdicts):
        expected = sum(not _surprising(record) for record in verdicts)
        console.print(f"{expected} of {len(verdicts)} as expected")


def _verdict(record: Record) -> Text:
    text = Text(record["verdict"], style=_COLOURS[record["verdict"]])
    if record.get("expected"):
        text.append(f" (not {record['expected']})" if _surprising(record) else " as expected", style="dim")
    return text


def _surprising(record: Record) -> bool:
    return bool(record.get("expected", record["verdict"]) != record["verdict"])


def _phases(phases: Sequence[Record]) -> Table:
    table = _table("query", "phase", "from", "to")
    for phase in phases:
        ends = (format_number(phase["start"]), format_number(phase["end"]))
        table.add_row(str(phase["query"]), phase["name"], *ends)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _grid(facts: Mapping[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(name, Text(value))
    return grid


def _with_error(value: float | None, error: float | None) -> str:
    shown = format_number(value)
    return shown if error is None else f"{shown} ± {format_number(error, 2)}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
