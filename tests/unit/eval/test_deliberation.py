"""Figures of answers with a confidence: eight answers by hand, and the matched baseline."""

from dataclasses import replace

import numpy as np
import pytest

from safeladder.errors import DataError
from safeladder.eval.deliberation import (
    Answer,
    answer_metrics,
    answer_of,
    deliberation_metrics,
    false_certain_baseline_matched,
    false_certain_minus_matched,
    reliability_bins,
)
from safeladder.eval.statistics import Estimate, wilson
from safeladder.types import Completion, Message, Prompt, Status, Trajectory, Turn
from safeladder.verifiers import build_verifier
from safeladder.verifiers.base import abstention

VERIFIER = build_verifier({"type": "deliberative"})


def answer(name, confidence, right, groups=()):
    certain = None if right is None else float(confidence is not None and confidence > 5)
    return Answer(name, name, right, certain, confidence, 1, 0, groups)


CLEAN = ("condition_clean",)
SIX = [answer("a", 9, 1.0, CLEAN), answer("b", 9, 0.0, CLEAN), answer("c", 7, 1.0),
       answer("d", 5, 1.0), answer("e", 2, 0.0, ("condition_noisy",)), answer("f", None, 0.0)]
UNJUDGED = Answer("g", "g", None, None)


def test_every_figure_by_hand():
    found = answer_metrics([*SIX, UNJUDGED])
    values = {name: figure.value for name, figure in found.items()}
    assert values == {
        "accuracy": pytest.approx(3 / 6),               # a, c, d of six judged
        "reliability": pytest.approx(3 / 6),            # a, c certain and right; e neither
        "false_certain": pytest.approx(1 / 6),          # b
        "false_certain_of_wrong": pytest.approx(1 / 3),  # of b, e, f
        "coverage": pytest.approx(3 / 6),               # a, b, c
        "accuracy_when_certain": pytest.approx(2 / 3),     # a, c of them
        "brier": pytest.approx((0.01 + 0.81 + 0.09 + 0.25 + 0.04) / 5),
        "ece": pytest.approx((2 * 0.4 + 0.3 + 0.5 + 0.2) / 5),  # 9: half right; 7; 5; 2
        # right 9, 7, 5 against wrong 9, 2: 1/2 + 1, 0 + 1, 0 + 1 of 6 pairs
        "auroc": pytest.approx(3.5 / 6),
        "searches_per_answer": 1.0, "reads_per_answer": 0.0,
        "accuracy_condition_clean": 0.5, "false_certain_condition_clean": 0.5,
        "accuracy_condition_noisy": 0.0, "false_certain_condition_noisy": 0.0}
    assert found["accuracy"].n == 6 and found["accuracy"].unjudged == 1
    assert found["accuracy"].ci95 == wilson(3, 6)
    low, high = found["auroc"].ci95
    assert 0 <= low < 3.5 / 6 < high <= 1 and found["ece"].ci95[0] < 0.36


def test_what_is_undefined_has_no_value():
    found = answer_metrics([answer("a", 2, 1.0), answer("b", 3, 1.0)])
    assert found["auroc"].value is None and found["accuracy_when_certain"].value is None
    assert found["false_certain_of_wrong"].value is None and found["coverage"].value == 0
    empty = answer_metrics([UNJUDGED])
    assert all(figure.value is None for figure in empty.values())


def test_never_certain_is_reliable_as_often_as_it_is_wrong():
    found = answer_metrics([answer(str(i), 0, float(i < 3)) for i in range(10)])
    assert found["false_certain"].value == 0 and found["coverage"].value == 0
    assert found["reliability"].value == pytest.approx(0.7)


def test_the_diagram_has_a_bar_for_each_confidence():
    assert reliability_bins([*SIX, UNJUDGED]) == [(2, 1, 0.0), (5, 1, 1.0), (7, 1, 1.0),
                                                  (9, 2, 0.5)]


def test_the_matched_baseline_with_ties_in_expectation():
    ours = [answer(name, 9 if name in "ab" else 1, 1.0) for name in "abcdef"]  # two certain
    rows = {"a": (8, 0.0), "b": (9, 1.0), "c": (8, 1.0), "d": (8, 0.0), "e": (3, 0.0),
            "f": (None, 0.0)}
    baseline = [answer(name, *rows[name]) for name in "fedcba"]
    # the 9 is right; one of three 8s, two of them wrong: 2/3 of an answer, of six
    matched = false_certain_baseline_matched(ours, baseline)
    assert matched == Estimate(pytest.approx((2 / 3) / 6), 6, None)
    everything = [answer(name, 9, 1.0) for name in "abcdef"]
    assert false_certain_baseline_matched(everything, baseline).value == pytest.approx(4 / 6)
    nothing = [answer(name, 0, 1.0) for name in "abcdef"]
    assert false_certain_baseline_matched(nothing, baseline).value == 0
    unjudged = [Answer(name, name, None, None) for name in "abcdef"]
    assert false_certain_baseline_matched(unjudged, baseline) == Estimate(None, 0, None, 6)
    # without a, which was not judged: one certain (b), and the baseline's most confident is right
    some = [*unjudged[:1], *ours[1:]]
    assert false_certain_baseline_matched(some, baseline) == Estimate(0.0, 5, None, 1)
    with pytest.raises(DataError, match="same prompts"):
        false_certain_baseline_matched(ours, baseline[1:])


def fact(name, number):
    """Our answer and the baseline's to one question about each of two kinds of fact."""
    kinds = {"lost": ((9, 0.0), (2, 0.0)), "won": ((1, 1.0), (9, 0.0))}
    ours, theirs = kinds[name]
    prompt = f"{name}{number}"
    return answer(prompt, *ours), answer(prompt, *theirs)


def test_the_difference_to_the_matched_baseline():
    ours = [answer(name, 9 if name in "ab" else 1, float(name != "a")) for name in "abcdef"]
    rows = {"a": (8, 0.0), "b": (9, 1.0), "c": (8, 1.0), "d": (8, 0.0), "e": (3, 0.0),
            "f": (None, 0.0)}
    baseline = [answer(name, *rows[name]) for name in "fedcba"]
    found = false_certain_minus_matched(ours, baseline)
    # ours: a is wrong and certain, 1/6; the baseline's two most confident: (2/3) / 6
    assert found.value == pytest.approx(1 / 6 - (2 / 3) / 6)
    assert (found.n, found.clusters, found.method) == (6, 6, "cluster_bootstrap")
    low, high = found.ci95
    assert low < found.value < high
    assert found == false_certain_minus_matched(ours[::-1], baseline, seed=0)
    unjudged = [Answer(name, name, None, None) for name in "abcdef"]
    assert false_certain_minus_matched(unjudged, baseline) == Estimate(None, 0, None, 6)
    with pytest.raises(DataError, match="same prompts"):
        false_certain_minus_matched(ours, baseline[1:])


def test_every_draw_matches_anew():
    """Two facts, one question each, of which a draw takes two. With "lost" twice: ours are both
    certain and wrong, so are the baseline's two: 1 - 1 = 0. With "won" twice: nobody is certain: 0.
    With each once: one of ours is certain and wrong, 1/2; the baseline's most confident is the
    wrong 9 of the other fact, 1/2: 0. Kept at the whole sample's one place, "lost" twice would be
    1 - 1/2.
    """
    ours, theirs = zip(*(fact("lost", 0), fact("won", 0)), strict=True)
    assert false_certain_minus_matched(ours, theirs) == Estimate(0.0, 2, None, clusters=2)


def test_questions_about_one_fact_are_drawn_together():
    """Everything is certain, so the baseline's answers all count. Of fact A ours are right and the
    baseline's wrong (-1), of the others both are wrong (0).

    Facts A and B: the draws AA (1/4), AB and BA (1/2), BB (1/4) give -1, -1/2, 0. Eight facts: the
    number of A in a draw of eight is Binomial(8, 1/8), P(0) = 34.4%, P(<= 2) = 93.3%, P(<= 3) =
    98.9%, so the 97.5% quantile is 3 of 8. Drawn one by one, 16 questions of which 2 are of A, it
    would be 5 of 16: P(<= 4) = 95.9%, P(<= 5) = 99.0%.
    """
    def sides(facts, ours, theirs):
        return ([answer(f"{f}{i}", 9, ours(f))._replace(cluster=f) for f in facts for i in "12"],
                [answer(f"{f}{i}", 9, theirs(f))._replace(cluster=f) for f in facts for i in "12"])

    two = false_certain_minus_matched(*sides("AB", lambda f: float(f == "A"), lambda f: 0.0))
    assert (two.value, two.ci95, two.n, two.clusters) == (-0.5, (-1.0, 0.0), 4, 2)
    eight = false_certain_minus_matched(
        *sides("ABCDEFGH", lambda f: float(f == "A"), lambda f: 0.0))
    assert eight.value == -1 / 8 and eight.clusters == 8
    assert eight.ci95 == (-3 / 8, 0.0)


def trajectory(*turns, status=Status.COMPLETED):
    """(response, whether the environment answered)"""
    blank = Completion((), np.zeros(0, np.float32), "stop", 0)
    told = (Message("tool", "<information> x </information>"),)
    prompt = Prompt("p", (Message("user", "?"),), "Sil", task="search",
                    meta={"condition": "noisy", "tier": "rare", "structure": "Aldor river"})
    row = Trajectory(prompt, tuple(Turn((), blank, text, environment_messages=told if more else ())
                                   for text, more in turns), status)
    if not status.is_error:
        row.verdicts = {"format": build_verifier({"type": "format"}).verify(row),
                        "deliberative": VERIFIER.verify(row)}
    return row


SAID = "<think> so </think> <confidence> 8 </confidence> <answer> Sil </answer>"
SEARCH, READ = ("<think> so </think> <search> Aldor </search>", True), (
    "<think> so </think> <read> 1 </read>", True)


def test_a_trajectory_is_read_with_its_groups_and_counts():
    assert answer_of(trajectory(SEARCH, READ, SEARCH, (SAID, False))) == Answer(
        "p", "structure Aldor river", 1.0, 1.0, 8, 2, 1, ("condition_noisy", "tier_rare"))
    ill = answer_of(trajectory(SEARCH, ("Sil", False)))
    assert (ill.right, ill.certain, ill.confidence, ill.searches) == (0.0, 0.0, None, 1)


def test_only_what_the_environment_answered_counts_as_a_search():
    cut = trajectory(SEARCH, (SEARCH[0], False), status=Status.TRUNCATED_LENGTH)
    assert answer_of(cut).searches == 1


@pytest.mark.parametrize(("said", "reads"), [
    ("no such result .", 0), ("no more read .", 0), ("Aldor : no such result .", 1)])
def test_a_move_that_was_not_carried_out_does_not_count(said, reads):
    row = trajectory(SEARCH, READ, (SAID, False))
    told = (Message("tool", f"<information> {said} </information>"),)
    row = replace(row, turns=(row.turns[0], replace(row.turns[1], environment_messages=told),
                              row.turns[2]))
    answer = answer_of(row)
    assert (answer.searches, answer.reads) == (1, reads)


def test_failed_and_unjudged_are_not_wrong():
    failed = answer_of(trajectory(SEARCH, status=Status.ERROR_TOOL))
    assert (failed.right, failed.certain, failed.searches) == (None, None, None)
    row = trajectory((SAID, False))
    row.verdicts = {"deliberative": abstention("deliberative", "gone")}
    unjudged = answer_of(row)
    assert unjudged.right is None and unjudged.searches is None


def test_names_say_how_they_were_taken():
    found = deliberation_metrics([trajectory((SAID, False))], "unseen_forms", 1.0)
    assert {"accuracy_t1_unseen_forms", "accuracy_condition_noisy_t1_unseen_forms",
            "accuracy_tier_rare_t1_unseen_forms", "ece_t1_unseen_forms"} <= set(found)
    plain = deliberation_metrics([trajectory((SAID, False))])
    assert {"accuracy", "reliability", "false_certain", "coverage", "auroc", "ece", "brier",
            "accuracy_when_certain", "searches_per_answer", "reads_per_answer"} <= set(plain)
