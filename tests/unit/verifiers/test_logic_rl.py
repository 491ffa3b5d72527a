"""Logic-RL's reward and its one parser: published totals, closed holes, hostile text."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safeladder.errors import DataError
from safeladder.verifiers import LogicRL, build_objective, logic_rates, parse_answer
from safeladder.verifiers.base import abstention
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.logic_rl import reference_from_text

NAMES = ("Zoey", "Ethan")
GOLD = {"names": list(NAMES), "roles": ["knave", "knight"]}
RIGHT = {"Zoey": "knave", "Ethan": "knight"}
THINK = "<think>Suppose Zoey is a knight.</think>"


def verdict(response, reference=None, user="?", **settings):
    row = trajectory_of(response, reference or GOLD, user=user)
    return LogicRL(**settings).verify(row)


def answered(text, **settings):
    return verdict(f"{THINK}\n<answer>{text}</answer>", **settings)


# (score, format part, answer part) as published: arXiv 2502.14768, section 2.2
@pytest.mark.parametrize(("response", "expected"), [
    (f"{THINK}<answer>(1) Zoey is a knave\n(2) Ethan is a knight</answer>",
     (3.0, 1.0, 2.0, "correct")),
    (f"{THINK}<answer>(1) Zoey is a knight\n(2) Ethan is a knight</answer>",
     (-0.5, 1.0, -1.5, "wrong")),
    (f"{THINK}<answer>I do not know.</answer>", (-1.0, 1.0, -2.0, "unparsable")),
    ("(1) Zoey is a knave\n(2) Ethan is a knight", (-3.0, -1.0, -2.0, "bad_format")),
])
def test_published_totals_from_two_parts(response, expected):
    got = verdict(response)
    assert (got.score, got.parts["format"], got.parts["answer"], got.verdict_class) == expected


def test_the_recipe_keeps_the_parts_apart():
    row = trajectory_of(f"{THINK}<answer>Zoey knight Ethan knight</answer>", GOLD)
    row.verdicts = {"logic_rl": LogicRL().verify(row)}
    objective = build_objective(
        {"tasks": {"*": {"parts": {"logic_rl.format": 1, "logic_rl.answer": 1}}}})
    reward = objective.reward(row)
    assert (reward.total, reward.parts) == (-0.5, {"format": 1.0, "answer": -1.5})


@pytest.mark.parametrize("text", [
    "(1) Zoey is a knave\n(2) Ethan is a knight",
    "1. Zoey is a knave.\n2. Ethan is a knight.",
    "Zoey knave Ethan knight",
    " Ethan knight , Zoey knave . ",
    "Zoey is the knave and Ethan is the knight",
    "Zoey is **the** knave; **Ethan** is a **knight**.",
    "**Zoey**: knave\n**Ethan**: knight",
    "__Zoey__ is a `knave`, Ethan is a knight",
    "- Zoey: Knave\n- Ethan: Knight",
    "* Zoey - knave\n* Ethan \u2014 knight",
    "ZOEY IS A KNAVE, ETHAN IS A KNIGHT",
    "Zoey = knave, Ethan = knight",
    "Zoey \u2192 knave; Ethan -> knight",
    "Zoey (knave), Ethan (knight)",
    "| name | role |\n|---|---|\n| Zoey | knave |\n| Ethan | knight |",
    '{"Zoey": "knave", "Ethan": "knight"}',
    "So, among the knights and knaves of this island: Zoey is a knave, and Ethan is a knight.",
    "### Zoey is a knave\n### Ethan is a knight",
    "Zoey\nis\na\tknave\u00a0Ethan is a knight",
])
def test_one_assignment_in_many_forms(text):
    assert parse_answer(text, NAMES) == RIGHT
    assert answered(text).score == 3.0


@pytest.mark.parametrize("text", [
    "",
    "Zoey is a knave",
    "Zoey is a knave. Zoey is a knight. Ethan is a knight.",
    "Zoey is a knave. Ethan is a knight. Zoey is a knave.",
    "Zoey is a knave or Ethan is a knight",
    "Zoey is a knave or a knight. Ethan is a knight.",
    "Zoey is a knave/knight, Ethan is a knight",
    "Zoey is not a knight, Ethan is not a knave",
    "Zoey isn't a knave, Ethan is a knight",
    "It is false that Zoey is a knave and Ethan is a knight",
    "Zoey is a knave, Ethan is a knight, or vice versa",
    "Zoey is a knave? Ethan is a knight?",
    "Zoey is a knave, Ethan is a knight, Bob is a knave",
    "Bob is a knave, Zoey is a knave, Ethan is a knight",
    "Zoey and Ethan are knights",
    "Zoey, Zoey is a knave, Ethan is a knight",
    "Zoey is a knave, Ethan is a knight, Zoey",
    "Knights: Ethan. Knaves: Zoey.",
    "the knave is Zoey, the knight is Ethan",
    "Zoe is a knave, Ethan is a knight",
    "Zoeyy is a knave, Ethan is a knight",
    "Zoey-Ann is a knave, Ethan is a knight",
    "Zoey is a knave-errant, Ethan is a knight",
    "Zoey is a knave because Ethan is a knight and Ethan is a knight",
    "Zoey is a knave, Ethan is a knight since Zoey lies",
    "Zo\u200bey is a knave, Zoey is a knave, Ethan is a knight",
    "\u202eZoey is a knave, Ethan is a knight",
    "Zoey is a knave, Ethan is a knight " + "then we look at it again " * 5,
    "Z\u043eey is a knave, Ethan is a knight",  # a Cyrillic o
])
def test_anything_but_one_assignment_is_unparsable(text):
    assert parse_answer(text, NAMES) is None
    assert answered(text).verdict_class == "unparsable"


def test_names_inside_other_names():
    names = ("Ann", "Anna", "Ann-Marie", "Jean", "Jean Luc", "O'Neil", "Jo")
    text = ("Ann is a knight, Anna is a knave, Ann-Marie is a knight, Jean is a knave, "
            "Jean Luc is a knight, O'Neil is a knave, Jo is a knave")
    roles = ["knight", "knave", "knight", "knave", "knight", "knave", "knave"]
    assert parse_answer(text, names) == dict(zip(names, roles, strict=True))
    assert parse_answer("Ann-Marie is a knight", ("Ann",)) is None
    assert parse_answer("Ann-Marie is a knight", ("Marie",)) is None
    assert parse_answer("Joanna is a knight", ("Anna",)) is None


def test_role_words_follow_the_puzzle():
    words = ("saint", "sinner")
    assert parse_answer("Zoey is a sinner, Ethan: Saint", NAMES, words) == {
        "Zoey": "sinner", "Ethan": "saint"}
    assert parse_answer("Zoey is a knave, Ethan is a knight", NAMES, words) is None
    assert parse_answer("Zoey tells lies, Ethan: truth teller", NAMES,
                        ("truth teller", "tells lies")) == {
        "Zoey": "tells lies", "Ethan": "truth teller"}
    right = f"{THINK}<answer>Zoey is a sinner, Ethan is a saint</answer>"
    gold = {"names": list(NAMES), "roles": ["sinner", "saint"]}
    assert verdict(right, gold).score == 3.0  # a published pair
    both_same = {"names": list(NAMES), "roles": ["saint", "saint"]}
    assert verdict(right, both_same).verdict_class == "wrong"
    own = {"names": list(NAMES), "roles": ["blip", "blop"], "role_words": ["blop", "blip"]}
    assert verdict(f"{THINK}<answer>Zoey blip Ethan blop</answer>", own).score == 3.0
    assert verdict(f"{THINK}<answer>Zoey x Ethan y</answer>",
                   {"names": list(NAMES), "roles": ["x", "y"]},
                   role_pairs=(("x", "y"),)).score == 3.0


@pytest.mark.parametrize(("response", "reason"), [
    ("<think></think><answer>{}</answer>", "empty thinking"),
    ("<think> \n\t\u200b .,- </think><answer>{}</answer>", "empty thinking"),
    ("<think> Reasoning process here. </think><answer>{}</answer>", "placeholder"),
    ("<answer>{}</answer>", "<think> occurs 0 times"),
    ("<think>a<answer>{}</answer>", "</think> occurs 0 times"),
    ("<think>a</think>{}", "<answer> occurs 0 times"),
    ("<think>a</think><answer>{}", "</answer> occurs 0 times"),
    ("<think>a</think><think>b</think><answer>{}</answer>", "<think> occurs 2 times"),
    ("<think><think>a</think></think><answer>{}</answer>", "<think> occurs 2 times"),
    ("<think>a</think><answer>{}</answer><answer>{}</answer>", "<answer> occurs 2 times"),
    ("<think>a <answer>x</answer></think><answer>{}</answer>", "<answer> occurs 2 times"),
    ("<answer>{}</answer><think>a</think>", "tags out of order"),
    ("<think>a<answer></think>{}</answer>", "tags out of order"),
    ("Sure. <think>a</think><answer>{}</answer>", "text before <think>"),
    ("<think>a</think> Hence <answer>{}</answer>", "text between"),
    ("<think>a</think><answer>{}</answer> Hope this helps!", "text after </answer>"),
    ("<think>a</think><answer>{}</answer><|im_end|><|im_end|>", "text after </answer>"),
    ("<think>a</think><answer>{}</answer>\u200b", "text after </answer>"),
])
def test_every_hole_in_the_format_is_closed(response, reason):
    got = verdict(response.replace("{}", "Zoey is a knave, Ethan is a knight"))
    assert (got.score, got.verdict_class) == (-3.0, "bad_format")
    assert reason in got.reason


@pytest.mark.parametrize("tail", ["", "\n", " \r\n\t", "<|im_end|>", "\n<|endoftext|>\n", "</s>"])
def test_whitespace_and_one_end_of_turn_may_follow(tail):
    assert verdict(f"{THINK}<answer>Zoey knave Ethan knight</answer>{tail}").score == 3.0


def test_only_the_response_counts():
    right = "<answer>Zoey is a knave, Ethan is a knight</answer>"
    system = ("Answer inside <think> </think> and<answer> </answer> tags, i.e., <think> reasoning "
              f"process here </think>{right} Assistant: <|im_start|>assistant\n<think>")
    assert verdict("no tags at all", user=system).score == -3.0
    assert verdict(f"{THINK}{right}", user=system).score == 3.0
    said = f"<think>Assistant: <|im_start|>assistant says so</think>{right}"
    assert verdict(said).score == 3.0


def test_more_thinking_can_be_asked_for():
    response = "<think>two words</think><answer>Zoey knave Ethan knight</answer>"
    assert verdict(response, min_think_words=2).score == 3.0
    assert verdict(response, min_think_words=3).reason == "thinking has fewer than 3 words"


def test_verls_ground_truth_is_read():
    text = "(1) Michael is a knight\n(2) Zoey is a knave\n(3) Ethan is a knight"
    expected = {"names": ["Michael", "Zoey", "Ethan"], "roles": ["knight", "knave", "knight"]}
    assert reference_from_text(text) == expected
    gold = {"solution_text_format": text, "statements": "(('lying', 1), ...)"}
    assert verdict(f"{THINK}<answer>{text}</answer>", gold).score == 3.0
    angel = "(1) Zephyr is an angel\n(2) Mary Ann is a devil"
    assert verdict(f"{THINK}<answer>{angel}</answer>", {"solution_text_format": angel}).score == 3.0


@pytest.mark.parametrize(("reference", "message"), [
    ("Zoey is a knave", "must be a mapping"),
    (None, "must be a mapping"),
    ({"answer": "x"}, "only: answer"),
    ({"names": ["A", "B"], "roles": ["knight"]}, "2 names but 1 roles"),
    ({"names": [], "roles": []}, "0 names"),
    ({"names": ["A", "a"], "roles": ["knight", "knave"]}, "used twice"),
    ({"names": ["A", "Knight"], "roles": ["knight", "knave"]}, "used twice"),
    ({"names": ["A", "..."], "roles": ["knight", "knave"]}, None),
    ({"names": ["A", ""], "roles": ["knight", "knave"]}, "empty"),
    ({"names": ["A"], "roles": ["wizard"]}, "no pair of role words"),
    ({"names": ["A"], "roles": ["saint"], "role_words": ["hero", "villain"]}, "no pair"),
    ({"solution_text_format": "(1) A is a knight\nB is a knave"}, "line by line"),
    ({"solution_text_format": ""}, "line by line"),
])
def test_a_reference_that_cannot_be_read_is_no_wrong_answer(reference, message):
    row = trajectory_of(f"{THINK}<answer>A is a knight</answer>", reference)
    if message is None:
        assert LogicRL().verify(row).verdict_class == "unparsable"
        return
    with pytest.raises(DataError, match=message):
        LogicRL().verify(row)


def test_rates_tell_format_parsing_and_accuracy_apart():
    texts = ["Zoey knave Ethan knight", "Zoey knave Ethan knave", "no idea", "?"]
    verdicts = [answered(text) for text in texts] + [verdict("x"), abstention("logic_rl", "late")]
    rates = logic_rates(verdicts)
    assert (rates.judged, rates.unjudged) == (5, 1)
    assert (rates.accuracy, rates.wrong_rate) == (1 / 5, 1 / 5)
    assert (rates.format_error_rate, rates.parse_failure_rate) == (1 / 5, 2 / 5)
    assert logic_rates([abstention("logic_rl", "late")]).accuracy is None


TEXT = st.text(alphabet=st.one_of(
    st.sampled_from("<>/ \n.,:*-()'\"?\u200b\u202e\x00\u0130\u0131\u017f\u212a\ud800"),
    st.characters()), max_size=60)
PIECES = st.lists(st.one_of(
    TEXT, st.sampled_from([
        "<think>", "</think>", "<answer>", "</answer>", "Zoey", "Ethan", "zoey", "knight",
        "knave", "is", "a", "the", "and", "not", "or", "Bob", "(1)", "**", "Assistant:", " ", "\n",
        "<|im_end|>", "<|im_start|>assistant"])), max_size=30).map(" ".join)


@given(PIECES)
@example("<think>" * 100)
def test_arbitrary_text_is_judged_and_only_a_right_answer_scores(text):
    got = verdict(text)
    assert got.score in (3.0, -0.5, -1.0, -3.0)
    assert got.score == got.parts["format"] + got.parts["answer"]
    if got.score == 3.0:
        # by other means than the parser's: nothing but the two entries names people or roles
        answer = text.split("<answer>")[1].split("</answer>")[0].lower()
        assert answer.count("zoey") == answer.count("ethan") == 1
        assert answer.count("knave") == answer.count("knight") == 1
        by_place = sorted(["zoey", "ethan", "knave", "knight"], key=answer.index)
        assert by_place in (["zoey", "knave", "ethan", "knight"],
                            ["ethan", "knight", "zoey", "knave"])
        assert text.count("<think>") == text.count("<answer>") == 1


NAME = st.from_regex(r"[A-Z][a-z]{0,8}(?:[-'][A-Z][a-z]{1,5})?", fullmatch=True)


@given(st.data())
def test_every_assignment_is_read_back_in_every_form(data):
    names = data.draw(st.lists(NAME, min_size=1, max_size=8, unique_by=str.casefold).filter(
        lambda names: not {n.casefold() for n in names} & {"knight", "knave", "and"}))
    roles = data.draw(st.lists(st.sampled_from(["knight", "knave"]), min_size=len(names),
                               max_size=len(names)))
    gap = data.draw(st.sampled_from([" ", " is a ", " is the ", ": ", " - ", "** is a **"]))
    end = data.draw(st.sampled_from([" ", ". ", ", ", "\n(7) ", " and ", "; "]))
    order = data.draw(st.permutations(range(len(names))))
    text = end.join(f"{names[i]}{gap}{roles[i]}" for i in order)
    assert parse_answer(text, names) == dict(zip(names, roles, strict=True))
    other = data.draw(st.integers(0, len(names) - 1))
    assert parse_answer(f"{text}. {names[other]} is a knave", names) is None


@settings(deadline=None)
@given(TEXT, TEXT)
def test_what_precedes_and_follows_cannot_help(before, after):
    got = verdict(f"{before}<think>a</think><answer>Zoey knave Ethan knight</answer>{after}")
    clean = not before.strip() and not after.strip()
    assert (got.score == 3.0) == clean


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: repr(text[:12]))
def test_hostile_text_takes_linear_time(text):
    started = time.process_time()
    for response in (text, f"<think>{text}</think><answer>{text}</answer>",
                     f"<think>a</think><answer>{text}</answer>"):
        assert verdict(response).score < 0
    assert time.process_time() - started < 3


def test_ten_times_the_text_takes_about_ten_times_as_long():
    def seconds(size):
        text = "<think>a</think><answer>" + "Zoey-" * size + "</answer>" + "<" * size
        started = time.process_time()
        for _ in range(3):
            verdict(text)
        return time.process_time() - started

    seconds(1000)
    small, large = seconds(20_000), seconds(200_000)
    assert large < 60 * max(small, 1e-3)
