"""What a pretraining run looks at while it trains, and what it makes of that at the end.

Each look is a file of its own, `looks/statistics-000123.parquet`: a run that goes on from an earlier state writes
the same again. Looks at the attention come as the configuration says; at some checkpoints features and reconstructions
are evaluated, and the shares of position and content in the logits estimated, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mimlab.runs.tables import read_table, write_table
from mimlab.training.config import PretrainConfig, held_out_of, images_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mimlab.probing.collapse import Falls
    from mimlab.training.evaluation import Labelled, Reconstructed
    from mimlab.training.loop import Outcome
    from mimlab.training.objectives import Objective
    from mimlab.training.watching import Alarm

PARTS = "looks"
EVALUATION = "evaluation.jsonl"
ALARMS = "alarms.jsonl"
HELD_OUT = "held_out"
PROBED = 80
"""Crops of each half of each held-out photograph, for kNN and linear probe."""
SHARED, PERMUTED = 8, 16
"""Crops whose patches are permuted for the shares of logit variance, and how often each. An estimate's own scatter
falls like 1/permutations until what differs from crop to crop shows: 16 is plenty (theory, section 8). With 8 crops a
95% interval reaches 0.84 standard deviations to each side, for less time than the rest of a checkpoint takes."""
RECONSTRUCTED = 6
"""Crops that are drawn with their reconstruction."""


class Looks:
    """Called by the training loop with the steps done and the objective. tell: is given each alarm once it is found."""

    def __init__(
        self, config: PretrainConfig, folder: Path, steps: int, tell: Callable[[str], None] | None = None
    ) -> None:
        from mimlab.training.sources import held_out_source
        from mimlab.training.views import centre, standardise
        from mimlab.training.watching import Watching

        side = config.network.image_size
        self.config, self.folder = config, folder
        self._crops = centre(held_out_source(config, config.watching.crops).batch(0).pixels, side)
        self._watching = Watching(standardise(self._crops))
        self._evaluated = frozenset(config.watching.evaluated_steps(steps))
        self._query = (config.network.grid // 2) * config.network.grid + config.network.grid // 2
        self._tell = tell or (lambda text: None)
        self._falls: Falls | None = None

    def __call__(self, step: int, objective: Objective) -> None:
        """Measure attention and outputs; where it is evaluated also what was learned."""
        from mimlab.training.checkpoints import Journal

        (self.folder / PARTS).mkdir(exist_ok=True)
        statistics = self._watching.observe(objective, step)
        write_table(self._part("statistics", step), statistics)
        write_table(self._part("maps", step), self._watching.query_maps(objective, step, self._query))
        self._sound(step, statistics)
        if step in self._evaluated:
            write_table(self._part("shares", step), self._watching.shares(objective, step, SHARED, PERMUTED))
            Journal(self.folder / EVALUATION).add({"step": step} | self._evaluation(objective, step))

    def _part(self, kind: str, step: int, suffix: str = "parquet") -> Path:
        return self.folder / PARTS / f"{kind}-{step:06d}.{suffix}"

    def _parts(self, kind: str) -> dict[int, Path]:
        """All parts of a kind by step, in order."""
        found = {int(path.stem.rpartition("-")[2]): path for path in (self.folder / PARTS).glob(f"{kind}-*")}
        return dict(sorted(found.items()))

    def _sound(self, step: int, statistics: pa.Table) -> None:
        """Say and record the alarms of a step. The first look of a process takes in those before it, once."""
        from mimlab.probing.collapse import Falls
        from mimlab.training.checkpoints import Journal
        from mimlab.training.watching import find_alarms

        if self._falls is None:
            self._falls = Falls()
            before = (read_table(path) for one, path in self._parts("statistics").items() if one < step)
            find_alarms(pa.concat_tables([self.empty, *before]), self._falls)
        for alarm in find_alarms(statistics, self._falls):
            Journal(self.folder / ALARMS).add(asdict(alarm))
            self._tell(f"alarm at {alarm}")

    @property
    def alarms(self) -> list[Alarm]:
        """Every alarm of the run so far."""
        from mimlab.training.checkpoints import Journal
        from mimlab.training.watching import Alarm

        return [Alarm(**record) for record in Journal(self.folder / ALARMS).records()]

    def _evaluation(self, objective: Objective, step: int) -> dict[str, float]:
        """Which photograph, where photographs are few and known; where patches are masked reconstruction, of which some
        is kept."""
        import numpy as np

        from mimlab.training.evaluation import which_photograph

        found: dict[str, float] = {}
        if self.config.data.images is None and self.config.data.world is None:
            crops = labelled_crops(self.config.network.image_size, self.config.data.crop, PROBED)
            found |= which_photograph(objective.encoder, *crops)
        made = self._reconstructed(objective)
        if made is None:
            return found
        np.savez_compressed(
            self._part("reconstructions", step, "npz"), _eight_bits(made.predicted[:RECONSTRUCTED])
        )
        return found | made.losses

    def _reconstructed(self, objective: Objective) -> Reconstructed | None:
        """What is made of the watched crops, which are masked alike at every step."""
        from mimlab.training.draws import generator
        from mimlab.training.evaluation import reconstructed

        return reconstructed(objective, self._watching.batch, generator(0, "reconstruction"))

    @property
    def empty(self) -> pa.Table:
        """No statistics."""
        from mimlab.training.watching import SCHEMA

        return SCHEMA.empty_table()

    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        """All looks, in order of steps: statistics, maps of one query over one crop, and shares of logit variance."""
        statistics, maps, shares = (
            pa.concat_tables(read_table(path) for path in self._parts(kind).values())
            for kind in ("statistics", "maps", "shares")
        )
        return statistics, maps, shares

    def keep_crops(self) -> None:
        """Write the watched crops as pictures, `held_out/000.png` and on."""
        from PIL import Image

        (self.folder / HELD_OUT).mkdir(exist_ok=True)
        for number, pixels in enumerate(_eight_bits(self._crops)):
            Image.fromarray(pixels).save(self.folder / HELD_OUT / f"{number:03d}.png")

    def summary(
        self,
        objective: Objective,
        outcome: Outcome,
        log: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """The run in figures and words."""
        from mimlab.training.checkpoints import Journal

        if not self._watching.layers:  # another process made all looks
            self._watching.observe(objective, outcome.step)
        config = self.config
        speeds = sorted(record["images_per_second"] for record in log if record.get("images_per_second"))
        last = log[-1] if log else {}
        return {
            "status": outcome.status,
            "objective": " + ".join(config.objective.names),
            "start": None if config.objective.start is None else str(config.objective.start),
            "step": outcome.step,
            "steps": outcome.steps,
            "loss": last.get("loss"),
            "images": images_of(config.data),
            "held_out": held_out_of(config.data),
            "crops": config.watching.crops,
            "parameters": sum(value.numel() for value in objective.encoder.parameters()),
            "layers": self._watching.layers,
            "evaluation": Journal(self.folder / EVALUATION).records(),
            "alarms": [str(alarm) for alarm in self.alarms],
            "seconds": outcome.seconds,
            "images_per_second": speeds[len(speeds) // 2] if speeds else None,
        }

    def draw(
        self,
        objective: Objective,
        summary: Any,
        log: Sequence[Mapping[str, Any]],
        statistics: pa.Table,
        maps: pa.Table,
        shares: pa.Table,
    ) -> None:
        """All figures, and the page."""
        import numpy as np

        from mimlab.report.pretrain_page import Reconstructions, draw_pretrain_figures, write_pretrain_page

        shown, made = None, self._reconstructed(objective)
        if made is not None:
            crops, last = (_eight_bits(one[:RECONSTRUCTED]) for one in (made.crops, made.predicted))
            predicted = {
                step: np.load(path)["arr_0"] for step, path in self._parts("reconstructions").items()
            }
            shown = Reconstructions(
                crops, made.seen[:RECONSTRUCTED].numpy(), predicted | {summary["step"]: last}
            )
        (self.folder / "figures").mkdir(exist_ok=True)
        crop = _eight_bits(self._crops[:1])[0]
        steps = [alarm.step for alarm in self.alarms]
        figures = draw_pretrain_figures(
            self.folder, summary, log, statistics, maps, crop, shown, steps, shares
        )
        write_pretrain_page(self.folder, summary, log, statistics, figures)


@lru_cache(maxsize=1)
def labelled_crops(side: int, window: tuple[int, int], count: int) -> tuple[Labelled, Labelled]:
    """So many crops of each half of the held-out photographs, known ones and asked ones, always the same; side and
    window as `mimlab.training.evaluation.crops_of_halves` has them."""
    import numpy as np
    import torch

    from mimlab.probing.images import open_image
    from mimlab.training.draws import generator
    from mimlab.training.evaluation import crops_of_halves
    from mimlab.training.photographs import HELD_OUT

    photographs = [torch.from_numpy(np.array(open_image(one.path))).permute(2, 0, 1) for one in HELD_OUT]
    return crops_of_halves(photographs, side, count, generator(0, "evaluation"), window)


def _eight_bits(crops: Tensor) -> NDArray[np.uint8]:
    """Crops (n, 3, s, s) in [0, 1] as pictures (n, s, s, 3)."""
    pixels: NDArray[np.uint8] = (crops.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels
