"""Attention that ran without being seen: what a custom kernel, or a traced module, would otherwise hide.

Two signs, each enough. A module's class calls itself attention, it has a projection to queries, and ran; or it is of
the class, and in the place, of siblings in other blocks that were seen to attend, and its block ran. Attention that
gives neither sign is not noticed.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from torch import nn

_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
_QUERIES = re.compile(r"(qkv|to_qkv|wqkv|q|query|q_proj|to_q|in_proj.*)$", re.IGNORECASE)


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
    for own in seen:
        pattern = re.compile(re.sub(r"(?:^|(?<=\\\.))\d+(?=\\\.|$)", r"(\\d+)", re.escape(own)) + "$")
        for name, module in modules.items():
            match = pattern.match(name)
            if match and match.groups() and name not in called and _class(module) == _class(modules[own]):
                block = name[: match.end(len(match.groups()))]
                if block in ran:
                    found.add(name)
    return sorted(found, key=list(modules).index)


def _related(one: str, other: str) -> bool:
    """Whether one of two modules is part of the other."""
    return not other or one == other or one.startswith(other + ".") or other.startswith(one + ".")


def _class(module: nn.Module) -> str:
    """Name of a module's class, also of one that was traced or scripted."""
    return str(getattr(module, "original_name", type(module).__name__))


def _is_attention(module: nn.Module) -> bool:
    """Whether a module computes attention itself: by its class, and by a query projection of its own."""
    if not _ATTENTION.search(_class(module)):
        return False
    own = [*dict(module.named_children()), *dict(module.named_parameters(recurse=False))]
    return any(_QUERIES.match(name) for name in own)
