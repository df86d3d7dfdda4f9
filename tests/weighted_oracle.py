"""Independent oracle for the contrastive objective of rows tied by type (global, or local of one size).

Every patch is its own vector, each of the P rows has its own Phi of every area of every cluster and its own Y of every
position, and which patches are visible is an explicit set. The mean over rows of an area is taken by writing out every
arrangement of the visible patches that has the given counts: a row's attention is averaged over all of them, F is made
of these averages, and the loss is that of F. Velocities are central differences of that loss.

A second way, by unknowns alone, follows the two copies of a row (own position visible, own position masked): it takes
counts that are no whole numbers too.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.pairs import Pairs
from mimlab.objectives.typed import TypedRows
from mimlab.world.partition import Layout, Partition, labelled
from mimlab.world.row import Row, row_of
from mimlab.world.sizes import runs_from_sizes

from .contrastive_oracle import slope

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """labels: area of each position, the same in all clusters. visible: (2, D, J). states: one per type, in order."""

    labels: tuple[int, ...]
    clusters: int
    cluster: Array
    latent: Array
    visible: Array
    negatives: Array
    states: tuple[Array, ...]
    temperature: float = 1.0
    regulariser: float = 0.0

    @property
    def patches(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> list[int]:
        return [self.labels.count(j) for j in range(max(self.labels) + 1)]

    @property
    def kinds(self) -> list[tuple[bool, int]]:
        """Of each area: is it global, and its size."""
        return [(j == 0, size) for j, size in enumerate(self.sizes)]

    @property
    def types(self) -> list[tuple[bool, int]]:
        """The kinds in order of their first areas."""
        return list(dict.fromkeys(self.kinds))

    def slots(self, a: int) -> list[int]:
        """Which Phi of a row of area a stands for each area: 0 for a itself, then the others by kind, in the order in
        which the first area of a's type meets them."""
        first = self.kinds.index(self.kinds[a])
        rest = list(dict.fromkeys(kind for j, kind in enumerate(self.kinds) if j != first))
        return [0 if j == a else 1 + rest.index(kind) for j, kind in enumerate(self.kinds)]

    def position_slot(self, p: int, q: int) -> int:
        """Which Y of row p stands for position q: 0 for p itself, 1 beside it, then the other areas by kind."""
        return 0 if p == q else 1 + self.slots(self.labels[p])[self.labels[q]]

    def change(self, **fields) -> "Problem":
        return replace(self, **fields)


def rows_of(problem: Problem, contiguous: bool = False) -> tuple[Partition, tuple[Row, ...]]:
    """The partition and a row of each type, as the package makes them."""
    labels = np.array(problem.labels)
    partition = Partition(runs_from_sizes(problem.sizes)) if contiguous else labelled(labels)
    layout = Layout(problem.clusters, (partition,))
    firsts = [problem.kinds.index(kind) for kind in problem.types]
    return partition, tuple(row_of(layout, partition.first_patch(a), 100) for a in firsts)


def typed_rows(problem: Problem) -> TypedRows:
    """The code under test. Areas that follow each other need no labels."""
    partition, rows = rows_of(problem, contiguous=list(problem.labels) == sorted(problem.labels))
    learning = ContrastiveLearning(
        negatives=problem.negatives.shape[1],
        temperature=problem.temperature,
        regulariser=problem.regulariser,
    )
    return TypedRows(partition, rows, pairs_of(problem), learning)


def pairs_of(problem: Problem) -> Pairs:
    return Pairs(problem.cluster, problem.latent, problem.visible, problem.negatives)


def found_for(problem: Problem):
    """What the code under test answers."""
    return typed_rows(problem).evaluate(problem.states)


# --- the oracle -------------------------------------------------------------------------------------------


class Oracle:
    """All P rows, every arrangement, the loss by definition."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.axes = [(k, j) for k in range(problem.clusters) for j in range(len(problem.sizes))]
        self.phi, self.upsilon = self.logits_of(problem.states)
        images = range(len(problem.cluster))
        self.images = [[self.arrangements(view, d) for d in images] for view in range(2)]
        self.known: dict[tuple[int, int, bytes, bytes], Array] = {}

    def logits_of(self, states: Sequence[Array]) -> tuple[Array, Array]:
        """Vectors phi_p, (P, axes), and logits Y_pq, (P, P), filled from the types' numbers."""
        problem, P = self.problem, self.problem.patches
        phi, upsilon = np.empty((P, len(self.axes))), np.empty((P, P))
        for p, a in enumerate(problem.labels):
            numbers = states[problem.types.index(problem.kinds[a])]
            slots = problem.slots(a)
            n_phi = max(slots) + 1
            for axis, (_, j) in enumerate(self.axes):
                phi[p, axis] = numbers[slots[j]]
            for q in range(P):
                upsilon[p, q] = numbers[n_phi + problem.position_slot(p, q)]
        return phi, upsilon

    def arrangements(self, view: int, d: int) -> list[tuple[Array, list[int]]]:
        """M(X), (P, axes), and the visible positions, for every choice of them with the counts of one view."""
        problem = self.problem
        choices = [
            list(itertools.combinations([q for q, a in enumerate(problem.labels) if a == j], int(number)))
            for j, number in enumerate(problem.visible[view, d])
        ]
        found = []
        for chosen in itertools.product(*choices):
            patches = np.zeros((problem.patches, len(self.axes)))
            seen = list(itertools.chain(*chosen))
            for q in seen:
                j = problem.labels[q]
                patches[q, self.axes.index((int(problem.cluster[d]), j))] = problem.latent[d, j]
            found.append((patches, seen))
        return found

    def attention(self, patches: Array, phi_p: Array, upsilon_p: Array) -> Array:
        """Softmax over all positions of one row's logits."""
        logits = np.array([upsilon_p[q] + phi_p @ patches[q] for q in range(len(patches))])
        powers = np.exp(logits - logits.max())
        return np.array(powers / powers.sum())

    def part(self, view: int, d: int, phi_p: Array, upsilon_p: Array) -> Array:
        """One row's part of P * F, averaged over all arrangements; remembered, for most rows stay put."""
        key = (view, d, phi_p.tobytes(), upsilon_p.tobytes())
        if key not in self.known:
            outputs = [self.attention(X, phi_p, upsilon_p) @ X for X, _ in self.images[view][d]]
            self.known[key] = sum(outputs) / len(outputs)
        return self.known[key]

    def features(self, view: int, phi: Array, upsilon: Array) -> list[Array]:
        """F of one view of all images."""
        P = self.problem.patches
        images = range(len(self.problem.cluster))
        return [sum(self.part(view, d, phi[p], upsilon[p]) for p in range(P)) / P for d in images]

    def feature_of_one(self, view: int, d: int, arrangement: int) -> Array:
        """F of one arrangement alone."""
        (X, _), P = self.images[view][d][arrangement], self.problem.patches
        return sum(self.attention(X, self.phi[p], self.upsilon[p]) @ X for p in range(P)) / P

    def penalty(self, phi: Array, upsilon: Array) -> float:
        return 0.5 * self.problem.regulariser * float((phi**2).sum() + (upsilon**2).sum())

    def loss(self) -> float:
        ahead, targets = (self.features(view, self.phi, self.upsilon) for view in range(2))
        return contrast(self.problem, ahead, targets) + self.penalty(self.phi, self.upsilon)

    def mean_attention(self) -> list[Array]:
        """By type: attention on visible patches of each area, over images, views, arrangements and rows of its first
        area."""
        problem = self.problem
        found = []
        for kind in problem.types:
            a = problem.kinds.index(kind)
            mean = np.zeros(len(problem.sizes))
            rows = [p for p, label in enumerate(problem.labels) if label == a]
            for p, view, d in itertools.product(rows, range(2), range(len(problem.cluster))):
                share = len(rows) * 2 * len(problem.cluster) * len(self.images[view][d])
                for X, seen in self.images[view][d]:
                    attention = self.attention(X, self.phi[p], self.upsilon[p])
                    for q in seen:
                        mean[problem.labels[q]] += attention[q] / share
            found.append(mean)
        return found

    def velocity_by_entry(self, which: int = 0) -> list[Array]:
        """Minus the slope of L by each entry of row number `which` of each area, F(X++) and F(X_s) held; averaged over
        the areas of a type and the entries that an unknown stands for."""
        problem = self.problem
        targets = self.features(1, self.phi, self.upsilon)
        found = []
        for kind, state in zip(problem.types, problem.states, strict=True):
            slopes: list[list[float]] = [[] for _ in state]
            for a in (j for j, other in enumerate(problem.kinds) if other == kind):
                members = [q for q, label in enumerate(problem.labels) if label == a]
                p, slots = members[which % len(members)], problem.slots(a)
                unknown = [slots[j] for _, j in self.axes]
                unknown += [max(slots) + 1 + problem.position_slot(p, q) for q in range(problem.patches)]
                for entry, u in enumerate(unknown):
                    slopes[u].append(slope(lambda step, p=p, e=entry: self._moved(p, e, step, targets)))
            found.append(self._velocity(slopes, state))
        return found

    def _moved(self, p: int, entry: int, step: float, targets: list[Array]) -> float:
        both = np.concatenate([self.phi, self.upsilon], axis=1)
        both[p, entry] += step
        phi, upsilon = np.split(both, [len(self.axes)], axis=1)
        return contrast(self.problem, self.features(0, phi, upsilon), targets) + self.penalty(phi, upsilon)

    def _velocity(self, slopes: list[list[float]], state: Array) -> Array:
        """What stands for no entry feels the regulariser alone."""
        pull = -self.problem.regulariser * state
        return np.array([-sum(s) / len(s) if s else pull[u] for u, s in enumerate(slopes)])


def contrast(problem: Problem, ahead: list[Array], targets: list[Array]) -> float:
    """-tau E log of the softmax at the true pair, from F(X+) and from F of view 1 of all images."""
    tau = problem.temperature
    losses = []
    for d, f in enumerate(ahead):
        scaled = [float(f @ targets[d]) / tau] + [float(f @ targets[s]) / tau for s in problem.negatives[d]]
        top = max(scaled)
        losses.append(tau * (math.log(math.fsum(math.exp(s - top) for s in scaled)) + top - scaled[0]))
    return math.fsum(losses) / len(losses)


# --- by copies --------------------------------------------------------------------------------------------


def copy_attention(problem: Problem, state: Array, a: int, view: int, d: int) -> Array:
    """Attention of the rows of area a on the visible patches of each area, from the two copies of such a row."""
    slots, seen, sizes = problem.slots(a), problem.visible[view, d], problem.sizes
    phi, upsilon = state[: max(slots) + 1], state[max(slots) + 1 :]
    share = seen[a] / sizes[a]
    found = np.zeros(len(sizes))
    for weight, own in ((share, True), (1 - share, False)):
        if weight == 0:
            continue
        mass, rest = np.zeros(len(sizes)), 0.0
        for j, size in enumerate(sizes):
            visible = seen[j] - (own and j == a)
            masked = size - seen[j] - (not own and j == a)
            if visible:
                mass[j] += visible * math.exp(problem.latent[d, j] * phi[slots[j]] + upsilon[1 + slots[j]])
            if masked:
                rest += masked * math.exp(upsilon[1 + slots[j]])
        if own:
            mass[a] += math.exp(problem.latent[d, a] * phi[0] + upsilon[0])
        else:
            rest += math.exp(upsilon[0])
        found += weight * mass / (mass.sum() + rest)
    return found


def features_by_copies(problem: Problem, states: Sequence[Array], view: int) -> list[Array]:
    """F of one view of all images: f_j = z_j sum_a (C_a / P) A_{a,j}, in the places of the image's cluster."""
    found = []
    for d, k in enumerate(problem.cluster):
        pooled = np.zeros(len(problem.sizes))
        for a, kind in enumerate(problem.kinds):
            state = states[problem.types.index(kind)]
            pooled += problem.sizes[a] / problem.patches * copy_attention(problem, state, a, view, d)
        F = np.zeros((problem.clusters, len(problem.sizes)))
        F[k] = problem.latent[d] * pooled
        found.append(F.ravel())
    return found


def entries_of(problem: Problem, t: int) -> tuple[int, Array]:
    """Rows of a type, and the entries of one row that each of its unknowns stands for."""
    kind = problem.types[t]
    a = problem.kinds.index(kind)
    slots = problem.slots(a)
    p = problem.labels.index(a)
    number = np.zeros(len(problem.states[t]))
    for j in range(len(problem.sizes)):
        number[slots[j]] += problem.clusters
    for q in range(problem.patches):
        number[max(slots) + 1 + problem.position_slot(p, q)] += 1
    return kind[1] * problem.kinds.count(kind), number


def penalty_by_types(problem: Problem, states: Sequence[Array]) -> float:
    counted = [entries_of(problem, t) for t in range(len(states))]
    squares = (rows * float(number @ state**2) for (rows, number), state in zip(counted, states, strict=True))
    return 0.5 * problem.regulariser * sum(squares)


def loss_by_copies(problem: Problem, states: Sequence[Array] | None = None) -> float:
    """L at `states`, with F(X++) and F(X_s) held at those of the problem."""
    states = problem.states if states is None else states
    targets = features_by_copies(problem, problem.states, 1)
    ahead = features_by_copies(problem, states, 0)
    return contrast(problem, ahead, targets) + penalty_by_types(problem, states)


def velocity_by_unknown(problem: Problem) -> list[Array]:
    """Minus the total slope of L by each unknown of each type, over all rows and entries that it stands for."""
    found = []
    for t, state in enumerate(problem.states):
        rows, number = entries_of(problem, t)
        velocity = -problem.regulariser * state
        for u in np.flatnonzero(number):

            def loss_at(step: float, t: int = t, u: int = u) -> float:
                moved = [own.copy() for own in problem.states]
                moved[t][u] += step
                return loss_by_copies(problem, moved)

            velocity[u] = -slope(loss_at) / (rows * number[u])
        found.append(velocity)
    return found
