"""The data: areas, latents, clusters, and a photograph's own areas and information gap (theory, sections 1 and 9)."""

from mimlab.world.latent import Latent
from mimlab.world.world import World

__all__ = ["Latent", "World"]
