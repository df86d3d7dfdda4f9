"""Attention that ran without being seen: what a custom kernel, or a traced module, would otherwise hide.

Two signs, each enough. A module's class calls itself attention, it has a projection to queries, and ran; or its block
ran, and it stands in the place of siblings in other blocks that were seen to attend: as one of their class, or with a
projection to queries. Attention that gives neither sign is not noticed.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from torch import nn

_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
_QUERIES = re.compile(r"(qkv|to_qkv|wqkv|q|query|q_proj|to_q)$", re.IGNORECASE)
_PACKED = re.compile(r"in_proj", re.IGNORECASE)  # of queries in nn.MultiheadAttention, of much else elsewhere


def unseen(
    modules: Mapping[str, nn.Module], ran: Collection[str], called: Collection[str], seen: Sequence[str]
) -> list[str]:
    """Names of attention modules that ran, or whose block ran, without any attention of theirs.

    modules: of the model, by name. ran: those that were called; called: those that called some attention, of self or
    not; seen: those that called self-attention.
    """
    found = {
        name
        for name in ran
        if _is_attention(modules[name]) and not any(_related(other, name) for other in called)
    }
    # Layers of one kind have one place and class among them.
    for pattern, kind in {place for own in seen for place in _places(own, _class(modules[own]))}:
        for name, module in modules.items():
            match = re.fullmatch(pattern, name)
            if match and name[: match.end(len(match.groups()))] in ran and name not in called:
                projects = _has(_QUERIES, module) and not any(_related(other, name) for other in called)
                if projects or _class(module) == kind:
                    found.add(name)
    return sorted(found, key=list(modules).index)


def _places(own: str, kind: str) -> list[tuple[str, str | None]]:
    """Patterns, with any numbers, of a module of some class and of what it is part of, up to its block.

    With the class that is wanted there: the module's own in its own place, none in the others.
    """
    parts = own.split(".")
    block = max((place for place, part in enumerate(parts) if part.isdigit()), default=len(parts)) + 1
    forms = [r"(\d+)" if part.isdigit() else re.escape(part) for part in parts]
    return [
        (r"\.".join(forms[:length]), kind if length == len(parts) else None)
        for length in range(block, len(parts) + 1)
    ]


def _related(one: str, other: str) -> bool:
    """Whether one of two modules is part of the other."""
    return not other or one == other or one.startswith(other + ".") or other.startswith(one + ".")


def _class(module: nn.Module) -> str:
    """Name of a module's class, also of one that was traced or scripted."""
    return str(getattr(module, "original_name", type(module).__name__))


def _is_attention(module: nn.Module) -> bool:
    """Whether a module computes attention itself: by its class, and by a query projection of its own."""
    return bool(_ATTENTION.search(_class(module))) and (_has(_QUERIES, module) or _has(_PACKED, module))


def _has(name: re.Pattern[str], module: nn.Module) -> bool:
    """Whether a part or parameter of a module's own is called so."""
    return any(
        map(name.match, [*dict(module.named_children()), *dict(module.named_parameters(recurse=False))])
    )
