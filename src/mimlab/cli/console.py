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

_SHOWN = ("distance", "entropy", "nmi", "diversity", "prefix_mass")
"""Statistics that a terminal has room for, where they were measured."""

_EVALUATED = {
    "knn": "kNN",
    "linear": "linear probe",
    "model": "loss, held out",
    "image_mean": "of the image mean",
    "nearest_patch": "of the nearest patch",
}
"""What is evaluated at checkpoints, as a terminal calls it."""

Record = Mapping[str, Any]

_AXES = (
    ("world.global_exponent", "κc"),
    ("world.local_exponent", "κs"),
    ("world.latent", "z"),
    ("objective.mask_ratio", "γ"),
    ("dynamics.engine", "engine"),
)
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
    if summary.get("pp_share") is not None:
        facts["PP share"] = _with_error(summary["pp_share"], summary["pp_share_se"])
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


def show_sweep(console: Console, summary: Record) -> None:
    """A sweep: its design, what became of its points, the verdicts, and where each claim fails first."""
    axes = ", ".join(f"{axis['key']} ({len(axis['values'])})" for axis in summary["axes"])
    statuses = ", ".join(f"{number} {status}" for status, number in summary["statuses"].items())
    console.print(_grid({"design": f"{summary['design']} over {axes}", "points": statuses}))
    table = _table("claim", *_COLOURS)
    for record in summary["verdicts"]:
        table.add_row(record["claim"], *(str(record[verdict]) for verdict in _COLOURS))
    console.print(table)
    if summary["survival"]:
        table = _table("claim", "axis", "from", "to", "fails at", "inconclusive at")
        for record in summary["survival"]:
            ends = (record[key] or ABSENT for key in ("base", "until", "fails_at", "inconclusive_at"))
            table.add_row(record["claim"], record["axis"], *ends)
        console.print(table)


def show_rates(console: Console, summary: Record) -> None:
    """A row per series: its exponent beside what the theory, the equation and the paper say; verdicts by claim."""
    named = set(summary["axes"]) <= {key for key, _ in _AXES} | {"world.latent.low", "world.latent.high"}
    leading = [(key.rpartition(".")[2], name) for key, name in _AXES] if named else [("series", "series")]
    table = _table(
        *(name for _, name in leading), "slope [interval]", "theory", "equation", "bound", "constant"
    )
    for record in summary["series"]:
        where = (format_number(one) if isinstance(one := record[key], float) else one for key, _ in leading)
        slope = format_interval(record["slope"], record["slope_low"], record["slope_high"], 3)
        others = (
            format_number(record[key], 3) for key in ("predicted", "reduced_slope", "bound", "constant")
        )
        table.add_row(*where, slope, *others)
    console.print(table)
    verdicts = _table("claim", *_COLOURS)
    for claim in dict.fromkeys(record["claim"] for record in summary["claims"]):
        counts = Counter(record["verdict"] for record in summary["claims"] if record["claim"] == claim)
        verdicts.add_row(claim, *(str(counts[verdict]) for verdict in _COLOURS))
    console.print(verdicts)


def show_probe(console: Console, summary: Record, layers: "pa.Table") -> None:
    """A table per model: means over heads and images of a few statistics by layer, and their baselines below."""
    from mimlab.report.probe_tables import baseline, curve, models_in, with_random_weights

    known = models_in(layers)
    for model in summary["models"]:
        name, chance = model["name"], with_random_weights(model["name"])
        statistics = _shown(layers, name)
        table = _table("layer", *(statistic.replace("_", " ") for statistic in statistics))
        curves = [curve(layers, name, statistic) for statistic in statistics]
        for place, record in enumerate(model["layers"]):
            _add(table, str(record["layer"]), [one.mean[place] for one in curves])
        table.add_section()
        if chance in known:
            _add(table, "random weights", [curve(layers, chance, one).mean.mean() for one in statistics])
        for kind in ("uniform", "identity"):
            _add(table, kind, [baseline(model, statistic, kind).mean() for statistic in statistics])
        console.print(Text(f"{name}, {summary['images']} images", style="bold"))
        console.print(table)
    if summary["images_per_second"]:
        console.print(f"{format_number(summary['images_per_second'], 3)} images per second")


def show_pretraining(console: Console, summary: Record) -> None:
    """One run: how it ended, what it learned at its first and last checkpoint, and alarms."""
    steps = f"{summary['step']} of {summary['steps']} steps in {summary['seconds'] / 60:.1f} minutes"
    facts = {
        "objective": summary["objective"],
        "status": summary["status"],
        "trained": f"{steps}, {format_number(summary['images_per_second'], 3)} images per second",
        "loss": format_number(summary["loss"]),
    }
    console.print(_grid(facts))
    records = summary["evaluation"]
    names = [name for name in _EVALUATED if any(name in record for record in records)]
    if names:
        table = _table("step", *(_EVALUATED[name] for name in names))
        for record in records if len(records) < 2 else (records[0], records[-1]):
            table.add_row(str(record["step"]), *(format_number(record.get(name), 3) for name in names))
        console.print(table)
    for alarm in summary["alarms"]:
        console.print(Text(alarm, style="red"))


def show_comparison(console: Console, summary: Record, layers: "pa.Table") -> None:
    """A row per model: means over layers, heads and images of a few statistics."""
    from mimlab.report.probe_tables import curve

    statistics = _shown(layers)
    table = _table("model", "patches", *(statistic.replace("_", " ") for statistic in statistics))
    for model in summary["models"]:
        sizes = dict.fromkeys(str(record["grid"][0] * record["grid"][1]) for record in model["layers"])
        means = (curve(layers, model["name"], statistic).mean for statistic in statistics)
        shown = (format_number(float(one.mean()), 3) if one.size else ABSENT for one in means)
        table.add_row(model["name"], ", ".join(sizes), *shown)
    console.print(table)


def _shown(layers: "pa.Table", model: str | None = None) -> list[str]:
    """The statistics of a table, or of one of its models, that a terminal has room for."""
    import pyarrow.compute as pc

    from mimlab.report.probe_tables import statistics_in

    found = statistics_in(layers if model is None else layers.filter(pc.field("model") == model))
    return [one for one in _SHOWN if one in found] or found[: len(_SHOWN)]


def _add(table: Table, name: str, values: Sequence[float]) -> None:
    table.add_row(name, *(format_number(float(value), 3) for value in values))


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
