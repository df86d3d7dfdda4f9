"""Figures and pages: tables and records in, files out; nothing here runs or judges anything.

A figure is a PNG that carries its own description (read back by the pages as the alternative text); a page
is one HTML file with the figures inside, which opens offline. Names load on first use, so that writing a
page from finished figures does not import matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimlab.report.asked import photograph_section
    from mimlab.report.explorer import explorer_section
    from mimlab.report.exponents import draw_exponents
    from mimlab.report.gaps import draw_gap
    from mimlab.report.ladder import draw_ladder
    from mimlab.report.numbers import format_interval, format_number
    from mimlab.report.page import Section, write_page
    from mimlab.report.pages import reproduce_page, simulation_page
    from mimlab.report.photographs import draw_attention_on_photograph, draw_segmentation
    from mimlab.report.rates import draw_rates
    from mimlab.report.survey import draw_survey
    from mimlab.report.trajectories import draw_attention, draw_correlations, draw_excess_loss

__all__ = [
    "Section",
    "draw_attention",
    "draw_attention_on_photograph",
    "draw_correlations",
    "draw_excess_loss",
    "draw_exponents",
    "draw_gap",
    "draw_ladder",
    "draw_rates",
    "draw_segmentation",
    "draw_survey",
    "explorer_section",
    "format_interval",
    "format_number",
    "photograph_section",
    "reproduce_page",
    "simulation_page",
    "write_page",
]

_HOMES = {
    "Section": "page",
    "draw_attention": "trajectories",
    "draw_attention_on_photograph": "photographs",
    "draw_correlations": "trajectories",
    "draw_excess_loss": "trajectories",
    "draw_exponents": "exponents",
    "draw_gap": "gaps",
    "draw_ladder": "ladder",
    "draw_rates": "rates",
    "draw_segmentation": "photographs",
    "draw_survey": "survey",
    "explorer_section": "explorer",
    "format_interval": "numbers",
    "format_number": "numbers",
    "photograph_section": "asked",
    "reproduce_page": "pages",
    "simulation_page": "pages",
    "write_page": "page",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
