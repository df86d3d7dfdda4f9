"""The probe's oracle against values known by algebra, and against sums done by hand."""

import math

import pytest
from pytest import approx

from mimlab.probing.layout import Layout

from . import probe_oracle as oracle

NEVER = -math.inf
PAIR = Layout(grid=(1, 2), patch_size=(5.0, 10.0))


def logs(weights: oracle.Table) -> list[list[float]]:
    """The table of logits whose rows have these weights, up to a constant factor a row."""
    return [[math.log(weight) if weight else NEVER for weight in row] for row in weights]


def test_softmax_survives_large_logits_and_masks():
    assert oracle.softmax([1000.0, 1000.0 + math.log(3), NEVER]) == approx([0.25, 0.75, 0.0])


def test_logits_and_output_of_two_tokens():
    table = oracle.logits([[2.0, 0.0], [0.0, 1.0]], [[1.0, 3.0], [0.0, 2.0]], 0.5, [[0.0, 1.0], [NEVER, 0.0]])
    assert table == [[1.0, 1.0], [NEVER, 1.0]]
    assert oracle.output(table, [[4.0, 0.0, 1.0], [0.0, 2.0, 1.0]]) == [
        approx([2.0, 1.0, 1.0]),
        approx([0.0, 2.0, 1.0]),
    ]


def test_two_rows_by_hand():
    """Rows (3/4, 1/4) and (0, 1), ten pixels apart; the mean row is (3/8, 5/8)."""
    found = oracle.of_table(logs([[3, 1], [0, 1]]), PAIR)
    one = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    both = -(0.375 * math.log(0.375) + 0.625 * math.log(0.625))
    assert found == approx(
        {
            "distance": 10 / 8,
            "distance_ratio": 1 / 4,
            "entropy": one / 2,
            "information": both - one / 2,
            "mean_row_entropy": both,
            "nmi": (both - one / 2) / math.sqrt(math.log(2) * both),
            "diversity": 1 - 1 / math.sqrt(10),
            "spread": 2 * 0.75**2,
            "locality_1": 1.0,
            "locality_2": 1.0,
            "locality_4": 1.0,
            "prefix_mass": 0.0,
        },
        abs=1e-15,
    )


def test_the_prefix_counts_for_its_mass_alone():
    """CLS takes 1/2 of one patch and 9/10 of the other; what CLS itself looks at does not count."""
    table = logs([[1, 0, 0], [4, 3, 1], [9, 0, 1]])
    layout = Layout(grid=(1, 2), prefix=1, patch_size=(5.0, 10.0))
    with_cls, without = oracle.of_table(table, layout), oracle.of_table(logs([[3, 1], [0, 1]]), PAIR)
    assert with_cls.pop("prefix_mass") == approx(0.7)
    assert without.pop("prefix_mass") == 0
    assert with_cls == approx(without)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_uniform(prefix):
    layout = Layout(grid=(3, 5), prefix=prefix, patch_size=(4.0, 7.0))
    found = oracle.of_table([[2.5] * layout.tokens] * layout.tokens, layout)
    assert found["distance_ratio"] == approx(1)
    assert found["entropy"] == found["mean_row_entropy"] == approx(math.log(15))
    assert [found[name] for name in ("information", "nmi", "diversity", "spread")] == approx(
        [0] * 4, abs=1e-14
    )
    assert found["prefix_mass"] == approx(prefix / layout.tokens)
    # Of 225 ordered pairs of a 3 x 5 grid, 15 are a patch and itself and 44 are neighbours.
    assert found["locality_1"] == approx(59 / 225)


def test_uniform_attention_reads_116_pixels_on_the_usual_grid():
    layout = Layout(grid=(14, 14), patch_size=(16, 16))
    assert oracle.distance(oracle.uniform(196), layout) == approx(116.49, abs=5e-3)


def test_identity():
    layout = Layout(grid=(3, 5), patch_size=(4.0, 7.0))
    found = oracle.of_table([[0.0 if i == j else NEVER for j in range(15)] for i in range(15)], layout)
    assert [found[name] for name in ("distance", "distance_ratio", "entropy", "prefix_mass")] == [0] * 4
    assert found["information"] == found["mean_row_entropy"] == approx(math.log(15))
    assert [found[name] for name in ("nmi", "diversity", "spread", "locality_1")] == approx([1, 1, 2, 1])


def test_all_rows_on_one_key_have_no_nmi():
    table = [[0.0 if j == 2 else NEVER for j in range(15)]] * 15
    found = oracle.of_table(table, Layout(grid=(3, 5)))
    assert [found[name] for name in ("nmi", "information", "diversity", "spread")] == [0] * 4


def test_distance_knows_the_two_sides_of_a_patch_and_locality_does_not():
    """Every patch of a 2 x 2 grid looks at the one below or above (4 px), or at the one diagonally across."""
    layout = Layout(grid=(2, 2), patch_size=(4.0, 3.0))
    down = [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    across = [[float(j == 3 - i) for j in range(4)] for i in range(4)]
    assert oracle.distance(down, layout) == 4
    assert oracle.distance(across, layout) == 5
    assert (oracle.locality(down, layout, 1), oracle.locality(across, layout, 1)) == (1, 0)
    assert oracle.locality(across, layout, 2) == 1


def test_offsets_go_from_query_to_key():
    """On a 1 x 3 grid all look at the rightmost patch: 2, 1 and 0 steps to the right."""
    layout = Layout(grid=(1, 3))
    assert oracle.offsets([[[NEVER, NEVER, 0.0]] * 3], layout) == [approx([0, 0, 1 / 3, 1 / 3, 1 / 3])]
    column = oracle.offsets([[[NEVER, NEVER, 0.0]] * 3], Layout(grid=(3, 1)))
    assert [row[0] for row in column] == approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_positional_part_averages_maps_and_not_logits():
    """Identity in one image and the exchange in the other average to uniform; the logits' mean is -inf."""
    stay, swap = logs([[1, 0], [0, 1]]), logs([[0, 1], [1, 0]])
    found = oracle.positional([stay, swap], PAIR)
    assert found["positional_entropy"] == approx(math.log(2))
    assert found["positional_distance_ratio"] == approx(1)
    assert found["positional_diversity"] == approx(0, abs=1e-15)
    assert oracle.offsets([stay, swap], PAIR) == [approx([0.25, 0.5, 0.25])]


def test_head_diversity_of_two_and_three_heads():
    stay, swap = logs([[1, 0], [0, 1]]), logs([[0, 1], [1, 0]])
    mixed = logs([[1, 1], [0, 1]])
    assert oracle.head_diversity([stay, stay], PAIR) == approx(0)
    assert oracle.head_diversity([stay, swap], PAIR) == approx(1)
    # cosines of (stay, mixed): 1/√2 and 1; of (swap, mixed): 1/√2 and 0; of (stay, swap): 0 and 0
    assert oracle.head_diversity([stay, swap, mixed], PAIR) == approx(1 - (math.sqrt(2) + 1) / 6)
