"""The command line: one file per command, loaded when it is called.

Exit codes: 0 the run finished, whatever its verdicts; 1 a run failed; 2 bad input, refused before anything is
written; 130 interrupted. What is wrong is said in a few lines on stderr.
"""

import sys

from cyclopts import App, Parameter

from mimlab import __version__
from mimlab.cli.session import run

COMMANDS = {
    "simulate": "Simulate one world, and judge the claims on it.",
    "gap": "Measure the information gap of photographs.",
    "scale": "Simulate one world over a range of P, and fit its exponents.",
    "sweep": "Simulate many worlds, over axes of any keys, and judge the claims on each.",
    "pretrain": "Pretrain a vision transformer, and watch its attention form.",
    "probe": "Measure how diverse and how local the attention of vision transformers is.",
    "compare": "Put runs beside each other, in one table and one page.",
    "reproduce": "Judge every claim of the theory, and write the report.",
}


def application(called: str = "") -> App:
    """All commands; the module of each is imported only when it is called or asked for its help.

    `called` is the command that was typed: its help is its own docstring, in place of the line in `COMMANDS`.
    """
    app = App(
        name="mimlab",
        help="How attention forms in masked image modeling: simulated exactly, judged claim by claim.",
        version=__version__,
        help_format="plaintext",
        default_parameter=Parameter(negative=()),
    )
    for name, text in COMMANDS.items():
        app.command(f"mimlab.cli.{name}:{name}", name=name, help=None if name == called else text)
    return app


def main() -> None:
    """The `mimlab` script."""
    tokens = sys.argv[1:]
    sys.exit(run(application(*tokens[:1]), tokens))
