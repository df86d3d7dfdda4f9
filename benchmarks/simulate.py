"""Benchmarks of the simulator: `python benchmarks/simulate.py [ROW ...] [--quick] [--seed N] [--table]`.

Each row measures one promise about speed and keeps its raw numbers, with machine, commit and command, in
benchmarks/results/ROW.json; `--table` writes what those files say into docs/benchmarks.md. Nothing else may use the
machine meanwhile. The row against-dense needs PyTorch.
"""

from __future__ import annotations

import sys

from against_dense import against_dense
from command import main
from cost import sampled_cost
from engines import mean_field, sampled
from processes import help_page, scale
from record import Row
from tables import block

ROWS: dict[str, Row] = {
    "mean-field": mean_field,
    "scale": scale,
    "sampled": sampled,
    "sampled-cost": sampled_cost,
    "against-dense": against_dense,
    "help": help_page,
}

if __name__ == "__main__":
    sys.exit(main("benchmarks/simulate.py", __doc__ or "", ROWS, block))
