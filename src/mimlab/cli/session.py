"""One call of the command line: what was typed, what is said and where, and how it ends.

Results go to stdout, everything else to stderr. With `--json` stdout holds the result as JSON and nothing
else.
"""

import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError

from mimlab.runs import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

Progress = Callable[[float, str], None]
"""Called with the fraction done, negative where it is not known, and with what is being done."""

DELAY = 2.0
"""Seconds that a command may take before it shows its progress."""


class Session:
    """What a command is given besides its arguments: `command` is the call as typed, quoted for a shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    @cached_property
    def out(self) -> "Console":
        """Where results go."""
        from rich.console import Console

        return Console(markup=False, highlight=False)

    @cached_property
    def err(self) -> "Console":
        """Where everything else goes."""
        from rich.console import Console

        return Console(stderr=True, markup=False, highlight=False)

    def tell(self, text: str) -> None:
        """A line on stderr, as it is."""
        print(text, file=sys.stderr)

    def finish(
        self,
        result: Mapping[str, Any],
        show: Callable[["Console", Mapping[str, Any]], None],
        *,
        json: bool,
        out: Path | None,
    ) -> int:
        """Give the result, as JSON or as `show` shows it, its warnings and its place; return the exit code."""
        for warning in result.get("warnings", ()):
            self.tell(f"warning: {warning}")
        if json:
            from mimlab.runs.tables import to_json

            print(to_json(result))
        else:
            show(self.out, result)
        if out is not None:
            self.tell(f"written to {out}")
        return int(str(result.get("status", "")).startswith(("failed", "diverged")))

    @contextmanager
    def resumable(self, out: Path, done: str = "trained") -> Iterator[None]:
        """Around work that can go on after an interrupt: it is said where what was `done` is."""
        try:
            yield
        except KeyboardInterrupt:
            if Path(f"{out}.partial").exists():
                self.tell(f"what was {done} is in {out}.partial; --resume goes on from there")
            raise

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar on stderr, which appears after `DELAY` and only on a terminal."""
        if not self.err.is_interactive:
            yield lambda fraction, text: None
            return
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        bar = Bar(*columns, TextColumn("{task.description}", markup=False), console=self.err, transient=True)
        task = bar.add_task("", total=None)
        timer = threading.Timer(DELAY, bar.start)
        timer.daemon = True
        timer.start()
        try:
            yield partial(_update, bar, task)
        finally:
            timer.cancel()
            timer.join()
            bar.stop()


def _update(bar: "Bar", task: "TaskID", fraction: float, text: str) -> None:
    """Show progress; where the fraction is not known, only what is being done."""
    if fraction < 0:
        bar.update(task, description=text)
    else:
        bar.update(task, total=1.0, completed=fraction, description=text)


def run(app: App, tokens: Sequence[str]) -> int:
    """Carry out what was typed and return the exit code. A command's `session` is given to it here."""
    session = Session(shlex.join([*app.name, *tokens]))
    try:
        command, bound, injected = app.parse_args(list(tokens), print_error=False, exit_on_error=False)
        return command(*bound.args, **bound.kwargs, **dict.fromkeys(injected, session)) or 0
    except InputError as error:
        session.tell(f"{app.name[0]}: {error}")
        return 2
    except CycloptsError as error:
        hint = shlex.join([*app.name, *(error.command_chain or ()), "--help"])
        session.tell(f"{app.name[0]}: {error} See {hint}")
        return 2
    except KeyboardInterrupt:
        session.tell(f"{app.name[0]}: interrupted; what was there before is untouched")
        return 130
    except OSError as error:
        session.tell(f"{app.name[0]}: {error}")
        return 1
