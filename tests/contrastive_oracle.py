"""Independent oracle for the contrastive objective over explicit pairs.

The oracle writes every patch as its own vector and every row as its own logits, and takes the loss from its
definition in plain loops. Velocities are compared with central differences of that loss.
"""

import dataclasses
import math

import numpy as np

from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.pairs import Cells, Pairs, PairsObjective


@dataclasses.dataclass(frozen=True)
class Setup:
    """All the numbers of one problem."""

    size: np.ndarray
    upsilon: np.ndarray
    area: np.ndarray
    phi: np.ndarray
    cluster: np.ndarray
    latent: np.ndarray
    visible: np.ndarray
    negatives: np.ndarray
    share: np.ndarray
    state: np.ndarray
    temperature: float = 1.0
    regulariser: float = 0.0

    @property
    def positions(self) -> int:
        """P."""
        return int(self.size.sum())

    @property
    def unknowns(self) -> tuple[int, int]:
        """How many numbers Phi has, and how many Y has."""
        return int(self.phi.max()) + 1, int(self.upsilon.max()) + 1

    @property
    def axes(self) -> list[tuple[int, int]]:
        """The areas (k, j) that exist, in a fixed order: one coordinate of patch space each."""
        return [(int(k), int(j)) for k, j in np.argwhere(self.phi >= 0)]

    @property
    def cell_of(self) -> list[int]:
        """The cell of each position."""
        return [c for c, size in enumerate(self.size) for _ in range(size)]

    def change(self, **fields) -> "Setup":
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **fields)


def found_for(setup: Setup):
    """What the code under test answers."""
    cells = Cells(size=setup.size, upsilon=setup.upsilon, area=setup.area, phi=setup.phi)
    pairs = Pairs(
        cluster=setup.cluster, latent=setup.latent, visible=setup.visible, negatives=setup.negatives
    )
    learning = ContrastiveLearning(
        negatives=setup.negatives.shape[1],
        temperature=setup.temperature,
        regulariser=setup.regulariser,
    )
    return PairsObjective(cells, pairs, learning, share=setup.share).evaluate(setup.state)


# ---------------------------------------------------------------------------------------------------------
# The oracle.


class Oracle:
    """Every patch a vector, every row its own logits, the loss by definition."""

    def __init__(self, setup: Setup, whole: bool = False):
        """Expand a setup: share * P rows per class if `whole`, else one row of that weight per class."""
        self.setup = setup
        self.axes, self.cell_of = setup.axes, setup.cell_of
        count = setup.share * setup.positions
        if whole:
            times = np.rint(count).astype(int)
            assert np.allclose(times, count), "the shares must make whole rows"
            self.row_class = [r for r, n in enumerate(times) for _ in range(n)]
            self.weight = [1.0] * len(self.row_class)
        else:
            self.row_class = list(range(len(count)))
            self.weight = [float(n) for n in count]
        self.phi, self.upsilon = self.logits_of(setup.state)
        self.images = [[self.patches(d, view) for d in range(len(setup.cluster))] for view in range(2)]
        self.known: dict[tuple[int, int, bytes, bytes], np.ndarray] = {}

    def logits_of(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors phi_p (rows, axes) and logits Y_pq (rows, positions)."""
        setup = self.setup
        n_phi, _ = setup.unknowns
        phi = [[state[r, setup.phi[k, j]] for k, j in self.axes] for r in self.row_class]
        upsilon = [[state[r, n_phi + setup.upsilon[c]] for c in self.cell_of] for r in self.row_class]
        return np.array(phi, dtype=float), np.array(upsilon, dtype=float)

    def patches(self, d: int, view: int) -> tuple[list[np.ndarray], list[bool]]:
        """What each position shows in one view of image d, and whether it is visible.

        Which patches of a cell are the visible ones does not matter: a seeded draw picks them.
        """
        setup = self.setup
        rng = np.random.default_rng([d, view])
        shows: list[np.ndarray] = []
        seen: list[bool] = []
        k = int(setup.cluster[d])
        for c, size in enumerate(setup.size):
            j = int(setup.area[k, c])
            marks = np.arange(size) < setup.visible[view, d, c]
            for mark in rng.permutation(marks):
                vector = np.zeros(len(self.axes))
                if mark:
                    vector[self.axes.index((k, j))] = setup.latent[d, j]
                shows.append(vector)
                seen.append(bool(mark))
        return shows, seen

    def attention(self, shows, phi_p: np.ndarray, upsilon_p: np.ndarray) -> list[float]:
        """Softmax over all positions of one row's logits."""
        logits = [float(upsilon_p[q] + phi_p @ shows[q]) for q in range(len(shows))]
        top = max(logits)
        powers = [math.exp(logit - top) for logit in logits]
        total = math.fsum(powers)
        return [power / total for power in powers]

    def part(self, view: int, d: int, phi_p: np.ndarray, upsilon_p: np.ndarray) -> np.ndarray:
        """One row's part of P * F for one masked image; remembered, for most rows stay put."""
        key = (view, d, phi_p.tobytes(), upsilon_p.tobytes())
        if key not in self.known:
            shows, seen = self.images[view][d]
            attention = self.attention(shows, phi_p, upsilon_p)
            part = np.zeros(len(self.axes))
            for q, vector in enumerate(shows):
                if seen[q]:
                    part = part + attention[q] * vector
            self.known[key] = part
        return self.known[key]

    def features(self, view: int, phi: np.ndarray, upsilon: np.ndarray) -> list[np.ndarray]:
        """F of one view of all images."""
        features = []
        for d in range(len(self.setup.cluster)):
            total = np.zeros(len(self.axes))
            for p, weight in enumerate(self.weight):
                total = total + weight * self.part(view, d, phi[p], upsilon[p])
            features.append(total / self.setup.positions)
        return features

    def contrast(self, plus: list[np.ndarray], targets: list[np.ndarray]) -> float:
        """The first term of L, from F(X+) and from F of view 1 of all images."""
        tau = self.setup.temperature
        losses = []
        for d, ahead in enumerate(plus):
            sims = [float(ahead @ targets[d])]
            for s in self.setup.negatives[d]:
                sims.append(float(ahead @ targets[s]))
            top = max(sims)
            total = math.fsum(math.exp((sim - top) / tau) for sim in sims)
            losses.append(-tau * ((sims[0] - top) / tau - math.log(total)))
        return math.fsum(losses) / len(losses)

    def penalty(self, phi: np.ndarray, upsilon: np.ndarray) -> float:
        """The second term of L."""
        total = 0.0
        for p, weight in enumerate(self.weight):
            total += weight * float(phi[p] @ phi[p] + upsilon[p] @ upsilon[p])
        return 0.5 * self.setup.regulariser * total

    def loss(self) -> float:
        """L."""
        plus = self.features(0, self.phi, self.upsilon)
        targets = self.features(1, self.phi, self.upsilon)
        return self.contrast(plus, targets) + self.penalty(self.phi, self.upsilon)

    def mean_attention(self) -> np.ndarray:
        """Attention on the visible patches of each area, over images of its cluster and both views."""
        setup = self.setup
        mean = np.full((len(setup.share), *setup.phi.shape), np.nan)
        for r in range(len(setup.share)):
            p = self.row_class.index(r)
            for k, j in self.axes:
                sums = []
                for d in np.flatnonzero(setup.cluster == k):
                    for view in range(2):
                        shows, seen = self.images[view][d]
                        attention = self.attention(shows, self.phi[p], self.upsilon[p])
                        sums.append(
                            math.fsum(
                                attention[q]
                                for q, c in enumerate(self.cell_of)
                                if seen[q] and setup.area[k, c] == j
                            )
                        )
                if sums:
                    mean[r, k, j] = sum(sums) / len(sums)
        return mean

    def velocity_by_entry(self) -> np.ndarray:
        """Minus the difference quotient of L by each entry of one row per class, averaged over ties."""
        setup = self.setup
        n_phi, n_upsilon = setup.unknowns
        targets = self.features(1, self.phi, self.upsilon)
        tied = [int(setup.phi[k, j]) for k, j in self.axes]
        tied += [n_phi + int(setup.upsilon[c]) for c in self.cell_of]
        velocity = np.zeros((len(setup.share), n_phi + n_upsilon))
        for r in range(len(setup.share)):
            p = self.row_class.index(r)
            slopes: list[list[float]] = [[] for _ in range(n_phi + n_upsilon)]
            for entry, unknown in enumerate(tied):

                def loss_at(step: float, p: int = p, entry: int = entry) -> float:
                    both = np.concatenate([self.phi, self.upsilon], axis=1)
                    both[p, entry] += step
                    phi, upsilon = both[:, : len(self.axes)], both[:, len(self.axes) :]
                    plus = self.features(0, phi, upsilon)
                    return self.contrast(plus, targets) + self.penalty(phi, upsilon)

                slopes[unknown].append(slope(loss_at) / self.weight[p])
            velocity[r] = [-sum(values) / len(values) for values in slopes]
        return velocity

    def velocity_by_unknown(self) -> np.ndarray:
        """Minus the total difference quotient of L by each unknown, over share * P and the ties."""
        setup = self.setup
        n_phi, n_upsilon = setup.unknowns
        targets = self.features(1, self.phi, self.upsilon)
        velocity = np.zeros((len(setup.share), n_phi + n_upsilon))
        for r, share in enumerate(setup.share):
            for unknown in range(n_phi + n_upsilon):

                def loss_at(step: float, r: int = r, unknown: int = unknown) -> float:
                    state = np.array(setup.state, dtype=float)
                    state[r, unknown] += step
                    phi, upsilon = self.logits_of(state)
                    plus = self.features(0, phi, upsilon)
                    return self.contrast(plus, targets) + self.penalty(phi, upsilon)

                if unknown < n_phi:
                    ties = int((setup.phi == unknown).sum())
                else:
                    ties = int(setup.size[setup.upsilon == unknown - n_phi].sum())
                velocity[r, unknown] = -slope(loss_at) / (share * setup.positions * ties)
        return velocity


def slope(function, step: float = 1e-3) -> float:
    """Central difference at 0, fourth order."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)
