"""Run directories: a run is there whole, or not at all.

Work is done in `DIR.partial`, which is renamed to `DIR` when it is whole. The name is fixed, and the folder
itself carries the lock (flock), so there is no lock file to leave behind: the lock moves with the rename
and ends with the process. Replacing `DIR` takes two renames, by way of `DIR.replaced`; a process killed
between them leaves the old run there, and the next one to enter puts it back.

The lock is advisory and local: on network file systems without flock two machines are not kept apart.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mimlab.runs.errors import InputError

MARK = "summary.json"


def distinct_names(folders: Sequence[Path], taken: Iterable[str] = ()) -> list[str]:
    """A name for each of several run directories: its folder's own, with as much of its path as it takes to be
    neither that of another nor one of those taken.

    >>> distinct_names([Path("/a/run"), Path("/b/run")]), distinct_names([Path("/a/run")], ["vit"])
    (['a/run', 'b/run'], ['run'])
    """
    paths, others = [folder.resolve().parts for folder in folders], set(taken)
    names: list[str] = []
    for length in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len({*names, *others}) == len(names) + len(others):
            break
    return names


class RunDirectory:
    """A context manager that gives a folder to write in, and makes it `target` when the block ends well.

    When the block ends with an exception, also an interrupt, `target` stays as it was, and nothing is left of
    what was made for it. So input may still be refused inside the block.

    Parameters
    ----------
    target
        Where the run shall be. Missing parents are created. A folder that is not empty is refused, unless
        `overwrite` is set and it is a run: it holds a `summary.json`.
    overwrite
        Replace the run at `target`, at the end and not before.
    resume
        Go on with what an earlier process left in `DIR.partial`; else that is removed.
    keep
        Leave `DIR.partial` when the block fails, for a later `resume`; else it is removed.

    Raises
    ------
    InputError
        On entering, where the folder cannot be had: not empty, not a folder, in use by another process, not
        writable.

    >>> import tempfile
    >>> home = tempfile.TemporaryDirectory()
    >>> with RunDirectory(Path(home.name) / "run") as folder:
    ...     _ = (folder / "summary.json").write_text("{}")
    >>> folder.exists(), (Path(home.name) / "run" / "summary.json").exists()
    (False, True)
    >>> home.cleanup()
    """

    def __init__(
        self, target: str | Path, *, overwrite: bool = False, resume: bool = False, keep: bool = False
    ) -> None:
        self.target = Path(os.path.realpath(target))
        self.partial = Path(f"{self.target}.partial")
        self._replaced = Path(f"{self.target}.replaced")
        self._overwrite = overwrite
        self._resume = resume
        self._keep = keep
        self._lock = -1
        self._parents: list[Path] = []

    def check(self) -> None:
        """Refuse a target that could not be had, without writing: for commands, before long work."""
        if self.target == Path.cwd() or self.target in Path.cwd().parents:
            raise InputError(
                f"{self.target} is the working directory or above it; name a folder of its own for the run"
            )
        try:
            found = {entry.name for entry in os.scandir(self.target)}
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise InputError(f"{self.target} is not a folder; name another for the run") from None
        except OSError as error:
            raise InputError(f"{self.target} cannot be read: {error.strerror}") from None
        if os.path.ismount(self.target):
            raise InputError(f"{self.target} is a mount point, which cannot be replaced; name a folder in it")
        if found and not self._overwrite:
            raise InputError(
                f"{self.target} is not empty; name another folder, or replace this one with --overwrite"
            )
        if found and MARK not in found:
            raise InputError(
                f"{self.target} holds no {MARK}, so it is not a run and is not replaced; name another folder"
            )

    def __enter__(self) -> Path:
        self.check()
        try:
            self._lock = self._acquire()
            self._settle()
            self.check()  # again: a run may have been put back, or finished while this one waited to lock
            if not self._resume:
                _empty(self.partial)
        except OSError as error:
            self._abandon()
            raise InputError(
                f"{self.partial} cannot be written: {error.strerror}; name a folder where you may write"
            ) from None
        except InputError:
            self._abandon()
            raise
        return self.partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
            elif not self._keep:
                shutil.rmtree(self.partial, ignore_errors=True)
                self._remove_parents()
        finally:
            self._release()

    def _acquire(self) -> int:
        """A descriptor of `DIR.partial` that holds its lock. The folder is created where it is missing."""
        self._parents = [folder for folder in self.partial.parents if not folder.exists()]
        while True:
            self.partial.mkdir(parents=True, exist_ok=True)
            try:
                lock = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # another process renamed it just now
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.stat(self.partial)):
                    return lock
            except BlockingIOError:
                os.close(lock)
                raise InputError(
                    f"{self.target} is being written by another process; wait for it, or name another folder"
                ) from None
            except FileNotFoundError:
                pass  # renamed between opening and locking
            os.close(lock)

    def _abandon(self) -> None:
        """Give back a lock that is not to be used, and the folder if it was made for it."""
        if self._lock >= 0:
            with suppress(OSError):
                self.partial.rmdir()  # refuses a folder that is not empty
                self._remove_parents()
            self._release()

    def _remove_parents(self) -> None:
        """Remove the parents that were made for the run, as far as they are empty."""
        with suppress(OSError):
            for folder in self._parents:
                folder.rmdir()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _settle(self) -> None:
        """Finish what a process killed between the two renames left."""
        if self._replaced.exists():
            if self.target.exists():
                shutil.rmtree(self._replaced)
            else:
                self._replaced.rename(self.target)

    def _commit(self) -> None:
        # One rename does it over a folder that is empty or missing; else there is a run to replace.
        try:
            self.partial.rename(self.target)
        except OSError:
            if not (self._overwrite and self.target.exists()):
                raise
            self._replace()

    def _replace(self) -> None:
        self.target.rename(self._replaced)
        try:
            self.partial.rename(self.target)
        except OSError:
            self._replaced.rename(self.target)
            raise
        shutil.rmtree(self._replaced)


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
