"""What the survival table is made from: its base, and the strengths at which each assumption is relaxed.

Both were set before any relaxed run of that base. The table itself is a sweep, one key at a time.
"""

from __future__ import annotations

import shlex
from pathlib import Path

BASE = Path(__file__).with_name("survival.toml")
SEEDS = "0,1,2"
LADDERS = {
    "relax.noise": "0.1,0.3,1,3",
    "relax.coherence": "0.1,0.3,0.6,0.9",
    "relax.shared_features": "1",  # the base has one pair of neighbouring local areas
    "relax.latent_correlation": "0.3,0.6,0.9,0.99",
    "relax.signed_latents": "0.05,0.1,0.2,0.35,0.5",
    "relax.jitter": "0.02,0.05,0.1,0.25,0.5",
    "relax.positions": "sincos,random,learned",
    "relax.content_in_query": "1",
    "relax.value_matrix": "0.01,0.03,0.1,0.3,1",
    "relax.heads": "2,4,8",
    "relax.mask_shape": "block",
    "relax.momentum": "0.3,0.6,0.9",
    "relax.batch": "1,4,16,256",
    "relax.weight_decay": "1e-6,1e-5,1e-4,1e-3",
    "dynamics.start": "0.01,0.03,0.1,0.3",
}
ADAM_RATES = "0.01,0.03,0.1"  # Adam's steps are of the size of its learning rate, whatever the gradient


def survival_command(out: str, config: str = str(BASE)) -> str:
    """The sweep over all ladders, each crossed with the seeds.

    >>> survival_command("runs/survival", "survival.toml").split()[:5]
    ['mimlab', 'sweep', 'survival.toml', '--over', 'relax.noise=0.1,0.3,1,3']
    """
    axes = [f"{key}={values}" for key, values in LADDERS.items()] + [f"seed={SEEDS}"]
    words = [word for axis in axes for word in ("--over", axis)]
    return shlex.join(["mimlab", "sweep", config, *words, "--design", "one-at-a-time", "--out", out])


def adam_command(out: str, config: str = str(BASE)) -> str:
    """The same base trained by Adam, over learning rates of its own."""
    words = [
        "--optimizer",
        "adam",
        "--over",
        f"dynamics.learning_rate={ADAM_RATES}",
        "--over",
        f"seed={SEEDS}",
    ]
    return shlex.join(["mimlab", "sweep", config, *words, "--out", out])
