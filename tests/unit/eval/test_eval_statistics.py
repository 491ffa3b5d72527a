import math
from collections.abc import Sequence

import pytest

from safeladder.errors import DataError
from safeladder.eval.items import EvalItem
from safeladder.eval.statistics import (
    Column,
    Estimate,
    cluster_bootstrap,
    estimate,
    macro_estimate,
    macro_paired_difference,
    paired_difference,
    wilson,
)


def item(prompt: str, correct: float | None, cluster: str = "") -> EvalItem:
    return EvalItem(prompt, cluster or prompt, correct, 1.0, 10)


def run(*values: float | None, clusters: str = "") -> list[EvalItem]:
    names = clusters or "abcdefgh"
    return [item(f"p{i}", v, names[i]) for i, v in enumerate(values)]


def test_wilson_by_hand() -> None:
    # z^2 = 3.8415; centre (.8 + .19207) / 1.38415 = .71674;
    # half 1.95996 * sqrt(.016 + .0096036) / 1.38415 = .22657
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.49016, abs=2e-5)
    assert high == pytest.approx(0.94332, abs=2e-5)


def test_wilson_at_the_ends_has_width() -> None:
    # p = 1: low = 1 / (1 + z^2 / n) = 10 / 13.8415
    assert wilson(10, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="wilson needs"):
        wilson(successes, n)


def test_bootstrap_of_a_known_distribution() -> None:
    # One 2 and three 0 drawn 4 times: mean k/2 with k ~ Bin(4, 1/4).
    # P(k <= 2) = .949 < .975 < P(k <= 3) = .996, P(k = 0) = .316 > .025.
    assert cluster_bootstrap([2.0, 0.0, 0.0, 0.0], list("abcd")) == (0.0, 1.5)


def test_bootstrap_keeps_clusters_whole() -> None:
    # Clusters a = (1, 1, 1) and b = (0): the mean of a draw is 1 (aa), 0 (bb) or 3/4 (ab).
    # Items drawn one by one would hardly ever give 0: P = 1/256 < .025.
    assert cluster_bootstrap([1.0, 1.0, 1.0, 0.0], list("aaab")) == (0.0, 1.0)


def test_bootstrap_weighs_a_cluster_by_its_items() -> None:
    # 7 clusters of one 0, one of three 1: with k draws of the big one among 8 the mean is
    # 3k / (8 + 2k). k ~ Bin(8, 1/8): P(k <= 2) = .933, P(k <= 3) = .989 -> 9/14 at 97.5%.
    values = [1.0, 1.0, 1.0] + [0.0] * 7
    assert cluster_bootstrap(values, list("aaabcdefgh")) == pytest.approx((0.0, 9 / 14))


def test_bootstrap_ignores_the_order_of_items_and_repeats_to_the_bit() -> None:
    values = [math.sin(i * i) for i in range(40)]
    clusters = [str(i % 25) for i in range(40)]
    forward = cluster_bootstrap(values, clusters, seed=3)
    assert forward == cluster_bootstrap(values[::-1], clusters[::-1], seed=3)
    assert forward != cluster_bootstrap(values, clusters, seed=4)


def test_independent_binary_values_take_wilson() -> None:
    result = estimate([1.0] * 8 + [0.0] * 2, [str(i) for i in range(10)])
    assert (result.value, result.n, result.method) == (0.8, 10, "wilson")
    assert result.ci95 == wilson(8, 10)


def test_clustered_binary_values_take_the_bootstrap() -> None:
    result = estimate([1.0, 1.0, 1.0, 0.0], list("aaab"))
    assert result == Estimate(0.75, 4, (0.0, 1.0), 0, "cluster_bootstrap", 2)


def test_all_right_in_clusters_counts_clusters_not_items() -> None:
    # 20 items of 10 structures, all right: as cautious as 10 of 10.
    result = estimate([1.0] * 20, [str(i % 10) for i in range(20)])
    assert (result.value, result.n, result.clusters) == (1.0, 20, 10)
    assert result.ci95 == wilson(10, 10)


def test_unjudged_is_counted_and_enters_no_mean() -> None:
    result = estimate([1.0, None, 0.0, None], list("abcd"))
    assert (result.value, result.n, result.unjudged) == (0.5, 2, 2)
    assert estimate([None], ["a"]) == Estimate(None, 0, None, 1)


@pytest.mark.parametrize(("values", "clusters"), [
    ([50.0, 50.0, 50.0], "abc"),      # all equal, not 0 or 1
    ([1.0, 0.0], "aa"),               # one cluster
    ([1.0, 0.0, 1.0, 0.0], "aabb"),   # equal means of clusters
])
def test_no_spread_to_be_seen_gives_no_interval(values: list[float], clusters: str) -> None:
    result = estimate(values, list(clusters))
    assert result.value == sum(values) / len(values)
    assert result.ci95 is None and result.method is None


def test_paired_difference_by_hand() -> None:
    # seed 0: 1-0, 1-1, 0-0, 1-0 = 1, 0, 0, 1; seed 1: 1-1, 1-0, 0-1, 1-0 = 0, 1, -1, 1
    # prompt means .5, .5, -.5, 1 -> 1.5 / 4
    result = paired_difference([run(1, 1, 0, 1), run(1, 1, 0, 1)],
                               [run(0, 1, 0, 0), run(1, 0, 1, 0)])
    assert result.value == 0.375
    assert result.per_seed == (0.5, 0.25)
    assert (result.n, result.unjudged, result.clusters) == (4, 0, 4)
    assert result.ci95 is not None and result.ci95[0] < 0.375 < result.ci95[1]


def test_paired_interval_is_drawn_by_structure() -> None:
    # Structures: a = (1, 1, 1), b = (0): as in the bootstrap of whole clusters, 0 to 1.
    result = paired_difference([run(1, 1, 1, 0, clusters="aaab")],
                               [run(0, 0, 0, 0, clusters="aaab")])
    assert (result.value, result.ci95, result.clusters) == (0.75, (0.0, 1.0), 2)


def test_paired_is_tighter_than_unpaired() -> None:
    # Nine prompts equal on both sides, one differs: unpaired intervals of .5 and .6 overlap wildly.
    before = [float(i % 2) for i in range(10)]
    after = [*before[:8], 1.0, 1.0]
    names = "abcdefghij"
    result = paired_difference([run(*after, clusters=names)], [run(*before, clusters=names)])
    assert result.value == pytest.approx(0.1)
    assert result.ci95 is not None and result.ci95[1] <= 0.3 + 1e-9


def test_a_prompt_unjudged_once_is_left_out_under_every_seed() -> None:
    result = paired_difference([run(1, 1, 1), run(1, None, 1)], [run(0, 1, 0), run(0, 0, 1)])
    # p1 goes: seed 0 has 1, 1; seed 1 has 1, 0
    assert (result.n, result.unjudged) == (2, 1)
    assert result.per_seed == (1.0, 0.5)
    assert result.value == 0.75


def test_answers_to_one_prompt_are_averaged_first() -> None:
    a = [item("p", 1.0), item("p", 0.0), item("q", 1.0)]
    b = [item("p", 0.0), item("p", 0.0), item("q", 0.0)]
    assert paired_difference([a], [b]).value == 0.75
    # one of p's answers was not judged: all of p goes
    result = paired_difference([[item("p", 1.0), item("p", None), item("q", 1.0)]], [b])
    assert (result.value, result.n, result.unjudged) == (1.0, 1, 1)


def test_nothing_judged_gives_no_value() -> None:
    result = paired_difference([run(None)], [run(1.0)])
    assert (result.value, result.n, result.unjudged, result.per_seed) == (None, 0, 1, ())


@pytest.mark.parametrize(("a", "b"), [
    ([run(1, 0)], [run(1)]),
    ([run(1)], []),
    ([], []),
])
def test_runs_that_cannot_be_paired_are_refused(
    a: Sequence[Sequence[EvalItem]], b: Sequence[Sequence[EvalItem]],
) -> None:
    with pytest.raises(DataError):
        paired_difference(a, b)


def test_tokens_can_be_compared_too() -> None:
    result = paired_difference(
        [[EvalItem("p", "p", 1.0, 1.0, 30), EvalItem("q", "q", 1.0, 1.0, 20)]],
        [[EvalItem("p", "p", 1.0, 1.0, 10), EvalItem("q", "q", 1.0, 1.0, 15)]],
        value=lambda x: x.tokens)
    assert result.value == 12.5
    assert not math.isnan(result.per_seed[0])


def test_macro_mean_by_hand() -> None:
    # a: 1, 0, 0, 0 -> 1/4, drawn as Bin(4, 1/4) / 4; b: 0, 0, 0, 1, 1, 1, 1, 1 -> 5/8. Macro mean
    # 7/16: not the 6/12 that the items together have.
    one = Column([1.0, 0.0, 0.0, 0.0], list("abcd"))
    two = Column([0.0] * 3 + [1.0] * 5, list("abcdefgh"))
    result = macro_estimate([one, two])
    assert (result.value, result.n, result.clusters) == (7 / 16, 12, 12)
    assert result.method == "macro_bootstrap" and result.ci95 is not None
    # variance of a draw: (3/16 / 4 + 15/64 / 8) / 4 = .01904; 1.96 sd = .27
    assert result.ci95[0] == pytest.approx(7 / 16 - 0.27, abs=0.05)
    assert result.ci95[1] == pytest.approx(7 / 16 + 0.27, abs=0.05)


def test_macro_mean_of_one_family_is_its_bootstrap() -> None:
    # One 2 and three 0, as above: 0 to 3/2; the value itself is 1/2.
    result = macro_estimate([Column([2.0, 0.0, 0.0, 0.0], list("abcd"))])
    assert result.value == 0.5 and result.ci95 == pytest.approx((0.0, 1.5))


def test_macro_draws_families_apart() -> None:
    # Both families are (1, 0): each draws 0, 1/2, 1 with 1/4, 1/2, 1/4, so the macro mean is
    # Bin(4, 1/2) / 4: P(0) = P(1) = 1/16 > 2.5%. Drawn as one family of four clusters: the same.
    # With the first family three clusters (1, 1, 0) it is not: means i/3 with Bin(3, 2/3).
    # P(0) = 1/27 * 1/4 = .0093, P(<= 1/6) = .0093 + 6/27 / 4 = .0648 > 2.5% -> low 1/6.
    result = macro_estimate([Column([1.0, 1.0, 0.0], list("abc")), Column([1.0, 0.0], list("ab"))])
    assert result.ci95 == pytest.approx((1 / 6, 1.0))


def test_a_family_all_right_adds_its_wilson_interval() -> None:
    # b: 10 of 10, Wilson .722467 to 1. a: 0 to 1 around 1/2 -> draws (0 + 1) / 2 to (1 + 1) / 2.
    # low = 3/4 - hypot(1/4, .277533 / 2) = 3/4 - .285931; high = 3/4 + hypot(1/4, 0)
    one, sure = Column([1.0, 0.0], list("ab")), Column([1.0] * 10, list("abcdefghij"))
    result = macro_estimate([one, sure])
    assert result.value == 0.75
    assert result.ci95 == pytest.approx((0.464069, 1.0), abs=1e-6)
    # All families alike: square and add alone, .277533 * sqrt(2) / 2.
    assert macro_estimate([sure, sure]).ci95 == pytest.approx((1 - 0.196246, 1.0), abs=1e-6)


def test_macro_mean_without_a_family_or_an_interval() -> None:
    good, none = Column([1.0, 0.0], list("ab")), Column([None, None], list("ab"))
    assert macro_estimate([good, none]) == Estimate(None, 0, None, 2)
    assert macro_estimate([]) == Estimate(None, 0, None, 0)
    flat = macro_estimate([good, Column([0.5, 0.5], list("ab"))])
    assert flat.value == 0.5 and flat.ci95 is None and flat.method is None


def test_macro_paired_difference_by_hand() -> None:
    # first family: 1-0, 0-0 -> 1/2; second: 1-1, 0-1, 0-1, 1-1 -> -1/2: 0 in all, though item by
    # item it would be (1 - 2) / 6.
    first, second = ([run(1, 0)], [run(0, 0)]), ([run(1, 0, 0, 1)], [run(1, 1, 1, 1)])
    result = macro_paired_difference([first, second])
    assert (result.value, result.n, result.per_seed) == (0.0, 6, (0.0,))
    # draws: Bin(2, 1/2) / 4 - Bin(4, 1/2) / 8: the least is -1/2 with P = 1/4 * 1/16 = 1.6%, then
    # -3/8 up to P = 1.6% + 1/4 * 4/16 = 7.8%; the other side likewise.
    assert result.ci95 == pytest.approx((-3 / 8, 3 / 8))


def test_a_family_of_ties_is_no_proof_that_nothing_changed() -> None:
    # 4 ties: 0 -/+ z^2 / (4 + z^2) = .489891; the other: 1, 0 -> 0 to 1.
    # value 1/4, draws 0 to 1/2: 1/4 -/+ hypot(1/4, .489891 / 2) = .349997
    tied, other = ([run(1, 0, 0, 1)], [run(1, 0, 0, 1)]), ([run(1, 0)], [run(0, 0)])
    result = macro_paired_difference([tied, other])
    assert result.ci95 == pytest.approx((0.25 - 0.349997, 0.25 + 0.349997), abs=1e-5)


def test_macro_paired_difference_needs_every_family_judged() -> None:
    judged, none = ([run(1, 0)], [run(0, 0)]), ([run(None)], [run(1)])
    result = macro_paired_difference([judged, none])
    assert (result.value, result.ci95, result.unjudged) == (None, None, 1)
    with pytest.raises(DataError, match="equally many seeds"):
        macro_paired_difference([judged, ([run(1)] * 2, [run(0)] * 2)])
