"""A vision transformer whose queries are positions alone, as in the theory (section 2): what a patch shows has no part.

In every layer the query of a token is computed from its position embedding, normalised as the layer normalises its
input, in place of the hidden state. Keys and values are as ever. The configuration says so (`content_in_query` is
false), for transformers itself does not know: loaded by other means than mimlab's, such weights would run with
content in the query, and every number would be another network's.
"""

from typing import Any

from torch import Tensor, nn

CONTENT_IN_QUERY = "content_in_query"
"""Key of transformers' configuration; absent where queries have content."""


class _Position:
    """A hook before a layer's query projection; its parts follow where a network is copied."""

    def __init__(self, position: nn.Parameter, norm: nn.Module) -> None:
        self.position, self.norm = position, norm

    def __call__(self, projection: nn.Module, arguments: tuple[Tensor, ...]) -> Tensor:
        position: Tensor = self.norm(self.position)
        return position.expand_as(arguments[0])


def query_by_position(encoder: Any) -> None:
    """Take the content out of a ViTModel's queries, in place, and note it in its configuration."""
    for layer in encoder.layers:
        hook = _Position(encoder.embeddings.position_embeddings, layer.layernorm_before)
        layer.attention.q_proj.register_forward_pre_hook(hook)
    setattr(encoder.config, CONTENT_IN_QUERY, False)
