"""Every key of a configuration as a flag, derived from the dataclass that states it: no second schema.

Names and values of flags are the business of `mimlab.runs.flags`; here they become parameters of a command.
A flag's help is its key's paragraph in the docstring of the dataclass. A flag overrides its key in
CONFIG.toml.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter
from docstring_parser import parse

from mimlab.runs import InputError, check, merge, read_toml
from mimlab.runs.flags import flag_name, read_flag, takes_several
from mimlab.runs.schema import Key, arms, keys

_CONFIG = Parameter(help="A TOML file; any flag below overrides its key.")
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL", Path: "PATH"}


@dataclass(frozen=True)
class Flag:
    """A key as a flag; `default` is what the key has where neither flag nor CONFIG.toml gives it."""

    key: Key
    default: object
    help: str

    @property
    def name(self) -> str:
        """The flag as it is typed."""
        return flag_name(self.key)

    @property
    def variable(self) -> str:
        """The flag as an identifier."""
        return self.name.lstrip("-").replace("-", "_")

    def parameter(self, tables: Sequence[str]) -> inspect.Parameter:
        """The flag as Cyclopts sees it: text, and None where it is not given. `tables` orders the help."""
        several = takes_several(self.key)
        words = Parameter(
            name=self.name,
            help=self.help,
            metavar=_metavar(self.key.type),
            show_default=_shown(self.default) if self.default is not None else False,
            consume_multiple=1 if several else None,
            negative=(),
        )
        if len(self.key.path) > 1:
            table = self.key.path[0]
            words = Parameter.combine(
                words, Parameter(group=Group(table.title(), sort_key=tables.index(table)))
            )
        kind = list[str] | None if several else str | None
        return inspect.Parameter(
            self.variable, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, words]
        )


def flags(cls: type, without: Sequence[str] = (), defaults: Mapping[str, Any] | None = None) -> list[Flag]:
    """A flag for every key that holds a value and no table.

    Keys `without`, as TOML writes them, get none; `defaults` are a command's own, in place of the
    dataclass's.
    """
    found = list(_walk(cls, (), MISSING, "", without))
    names = [flag.variable for flag in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two keys of {cls.__name__} have one flag: {sorted(names)}")
    return [replace(flag, default=_at(defaults or {}, flag.key.path, flag.default)) for flag in found]


def configured(
    cls: type, without: Sequence[str] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command CONFIG.toml and the flags of `cls`; its first argument is then the checked mapping.

    The mapping holds what was given and no defaults, neither those of the dataclass nor a command's own
    `defaults`, which are only shown: `mimlab.runs.build` makes the configuration of it.
    """
    known = flags(cls, without, defaults)

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        def run(config: Annotated[Path | None, _CONFIG] = None, /, **options: Any) -> int:
            mapping = {} if config is None else check(cls, read_toml(config), str(config))
            for flag in known:
                words = options.pop(flag.variable, None)
                if words is not None:
                    value = read_flag(flag.key, [words] if isinstance(words, str) else words)
                    mapping = merge(mapping, _nested(flag.key.path, value))
            return command(mapping, **options)

        config, _ = inspect.signature(run).parameters.values()
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        tables = [key.name for key in keys(cls)]
        parameters = [config, *own, *(flag.parameter(tables) for flag in known)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__, run.__name__, run.__module__ = command.__doc__, command.__name__, command.__module__
        return run

    return decorate


def pair(text: str, name: str) -> tuple[float, float]:
    """X,Y as typed after the flag `name`. Raises InputError where that is not two finite numbers."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = nan
    if not (isfinite(x) and isfinite(y)):
        raise InputError(f'{name} must be two numbers with a comma between, as in 120,80, not "{text}"')
    return x, y


def _walk(
    cls: type, path: tuple[str, ...], built: object, text: str, without: Sequence[str]
) -> Iterator[Flag]:
    """Flags of a table. `built` is the table where a default makes it; `text` is its own paragraph."""
    paragraphs, summary = _documentation(cls)
    said: dict[str, str] = {}
    for key in keys(cls, path):
        if str(key) in without:
            continue
        default = getattr(built, key.name) if built not in (MISSING, None) else key.default
        words = paragraphs.get(key.name) or summary or text
        if key.table is not None:
            known: set[tuple[str, ...]] = set()
            for table in key.tables:
                built_here = default if table is key.table else MISSING
                for flag in _walk(table, key.path, built_here, words, without):
                    if flag.key.path not in known:
                        known.add(flag.key.path)
                        yield flag
            continue
        flag = Flag(key, None if default is MISSING else default, words)
        first = said.setdefault(words, flag.name) if words else flag.name
        yield flag if first == flag.name else Flag(key, flag.default, f"See {first}.")


def _documentation(cls: type) -> tuple[dict[str, str], str]:
    """The paragraph of each parameter in a class's docstring, and the docstring's first."""
    text = inspect.getdoc(cls) or ""
    document = parse("" if text.startswith(f"{cls.__name__}(") else text)  # what dataclasses write by default
    paragraphs = {
        name: _plain(parameter.description)
        for parameter in document.params
        for name in parameter.arg_name.split(", ")
    }
    return paragraphs, _plain(document.short_description)


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("``", "").split())


def _at(mapping: Mapping[str, Any], path: tuple[str, ...], default: object) -> object:
    """The value at a path of nested mappings."""
    *tables, name = path
    for table in tables:
        mapping = mapping.get(table, {})
    return mapping.get(name, default)


def _nested(path: tuple[str, ...], value: object) -> Mapping[str, object]:
    for name in reversed(path):
        value = {name: value}
    return value  # type: ignore[return-value]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_shown(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(hint: Any) -> str:
    """The kinds of value that a type takes; one kind stands also for a list of it."""
    if get_origin(hint) is tuple:
        return _metavar(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    return "|".join(dict.fromkeys(_METAVARS.get(arm) or _metavar(arm) for arm in arms(hint)))
