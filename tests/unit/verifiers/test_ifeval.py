"""IFEval: every instruction type by hand, errors named, arbitrary text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.errors import DataError
from safeladder.verifiers import build_verifier
from safeladder.verifiers.base import abstention
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.ifeval import INSTRUCTIONS, ifeval_rates
from safeladder.verifiers.ifeval.instructions import build_checks, follow, loose_variants
from safeladder.verifiers.ifeval.text import count_sentences, count_words, language_of

ENGLISH = "This is a short text in the English language"
BY_HAND = [
    ("keywords:existence", {"keywords": ["Mom", "intern"]},
     ["My mom wrote about an internship."], ["My mom wrote.", "c.t"]),
    ("keywords:existence", {"keywords": ["a.b"]}, ["A.B"], ["axb"]),
    ("keywords:frequency", {"keyword": "war", "relation": "at least", "frequency": 2},
     ["War and war.", "wars, WARD"], ["war", ""]),
    ("keywords:frequency", {"keyword": "war", "relation": "less than", "frequency": 2},
     ["war", "peace"], ["war war"]),
    ("keywords:forbidden_words", {"forbidden_words": ["rock", "C++"]},
     ["rocks, shamrock", "C"], ["Rock!", "I like c++."]),
    ("keywords:letter_frequency",
     {"letter": "Q", "let_relation": "at least", "let_frequency": 2}, ["Qq", "quiq"], ["q"]),
    ("keywords:letter_frequency",
     {"letter": "!", "let_relation": "less than", "let_frequency": 2}, ["!", "a"], ["!!"]),
    ("language:response_language", {"language": "de"},
     ["Das ist ein schönes Land mit vielen Bergen."], [ENGLISH, "123 !"]),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3},
     ["One. Two! Three?", "One. Two. And three"], ["One. Two.", "Dr. J. Smith, e.g. him. Two."]),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 2},
     ["1. Wash it\n2. Dry it", "Well... yes."], ["One. Two.", "one. two."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2},
     ["a\n***\nb", "***\na\n***\nb\n***"], ["a", "a\n***\n***\nb", "a *** b *** c"]),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3},
     ["one two three"], ["one two"]),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3},
     ["one two"], ["one two three"]),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"},
     ["a\n\nweekend!", "a\n\n\n\n'Weekend, b"],
     ["Weekend\n\na", "a\n\nweekends", "a\n\nWeekend\n\nb", "a\n\nthe weekend"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2},
     ["[name] of [[city]]"], ["[name]", "[] [ ]", "[a\nb] [c]", "]["]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."},
     ["Bye.\nP.S. more", "p. s. more"], ["Bye.\nPS more", "P.P.S"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"},
     ["Bye.\nP.P.S more", "p. p. s"], ["P.S. more"]),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ["n.b. it"], ["nxb. it"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2},
     ["- a\n- b", "Yes:\n  * a\n* b", "*a\n-b\n** c"], ["- a", "- a\n* b\n- c", "*\n*\n"]),
    ("detectable_format:constrained_response", {},
     ["My answer is yes.", "Well: My answer is maybe. Sorry."], ["yes", "my answer is yes."]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     ["*a* and *b*", "**a** and *b*"], ["*a*", "** ** * *", "*a\nb* *c*", "a * b"]),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
     ["SECTION 1\na\nSECTION 2\nb", "SECTION1 SECTION 2"], ["SECTION 1", "Section 1 Section 2"]),
    ("detectable_format:json_format", {},
     ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', '```\n[]\n```'],
     ["{'a': 1}", 'Sure: {"a": 1}', "[" * 100_000]),
    ("detectable_format:title", {}, ["<<a poem>>\nb", "x <<a>>"],
     ["<a>", "<<>>", "<< >>", "<<a\n>>"]),
    ("combination:two_responses", {}, ["a\n******\nb", "******a******b"],
     ["a", "a******a", "a******b******c", "a************b"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write a poem. "},
     ["write a poem. Roses", "  Write a poem."], ["Sure. Write a poem.", "Write a pome."]),
    ("startend:end_checker", {"end_phrase": "Any questions?"},
     ["Yes. any questions?", '"Any questions?"'], ["Any questions? Yes.", "questions?"]),
    ("startend:quotation", {}, ['"yes"', ' "a" and "b" '], ['"', "'yes'", '"yes" he said']),
    ("change_case:english_capital", {}, [ENGLISH.upper()],
     [ENGLISH, "DAS IST EIN KURZER TEXT IN DEUTSCHER SPRACHE", "123"]),
    ("change_case:english_lowercase", {}, [ENGLISH.lower()],
     [ENGLISH, "das ist ein kurzer text in deutscher sprache", "123"]),
    ("change_case:capital_word_frequency",
     {"capital_relation": "at least", "capital_frequency": 2},
     ["NASA and COVID-19", "I am A"], ["NASA and Esa", "U.S."]),
    ("change_case:capital_word_frequency",
     {"capital_relation": "less than", "capital_frequency": 2}, ["NASA", "x"], ["NASA ESA"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]


def row(name, kwargs):
    return {"instruction_id_list": [name], "kwargs": [kwargs]}


def test_there_are_25_types_and_all_are_here():
    assert len(INSTRUCTIONS) == 25
    assert {name for name, *_ in BY_HAND} == set(INSTRUCTIONS)


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), BY_HAND)
def test_by_hand(name, kwargs, good, bad):
    ((_, check),) = build_checks(row(name, kwargs))
    assert [text for text in good if not check(text)] == []
    assert [text for text in bad if check(text)] == []


def judge(response, reference, meta=None, **settings):
    verifier = build_verifier({"type": "ifeval", **settings})
    return verifier.verify(trajectory_of(response, reference, meta))


COMMA_END = {"instruction_id_list": ["punctuation:no_comma", "startend:end_checker"],
             "kwargs": [{}, {"end_phrase": "The end."}]}


def test_levels_and_modes():
    """The first line has the comma: strict fails it, loose does not look at it."""
    text = "Sure, gladly:\nA tale. *The end.*"
    got = judge(text, COMMA_END)
    assert (got.score, got.verdict_class) == (0.0, "not_followed")
    assert got.reason == "not followed: punctuation:no_comma, startend:end_checker"
    assert got.parts == {"strict": 0.0, "loose": 1.0, "strict_all": 0.0, "loose_all": 1.0,
                         "instructions": 2.0}
    assert judge(text, COMMA_END, mode="loose", score="all").score == 1.0
    half = "A tale, The end."
    assert judge(half, COMMA_END).score == 0.5
    assert judge(half, COMMA_END).verdict_class == "partial"
    assert judge(half, COMMA_END, score="all").score == 0.0


def test_the_meta_of_a_row_will_do():
    assert judge("A tale. The end.", None, COMMA_END).score == 1.0
    assert judge("A tale. The end.", "gold text", COMMA_END).score == 1.0


def test_only_what_is_said_is_judged():
    assert judge("<think>a, b</think>\nThe end.<|im_end|>\n", COMMA_END).score == 1.0
    assert judge("<think>The end.", COMMA_END).score == 0.0
    inside = "<think>a</think>Yes, <answer>The end.</answer>"
    assert judge(inside, COMMA_END).score == 0.0
    assert judge(inside, COMMA_END, where="answer").score == 1.0
    assert judge("The end.", COMMA_END, where="answer").score == 0.0


def test_loose_variants():
    assert list(loose_variants("a\n*b*\nc")) == ["*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc",
                                                 "a\nb", "b"]
    assert list(loose_variants("one line")) == []
    assert [one.loose for one in follow(" \n ", build_checks(COMMA_END))] == [False, False]


def test_rates_are_the_published_four():
    """4 instructions of 2 responses: strict 3 followed, both only once; a third is unjudged."""
    verdicts = [judge("A tale. The end.", COMMA_END), judge("A tale, the end.", COMMA_END)]
    rates = ifeval_rates([*verdicts, abstention("ifeval", "no row")])
    assert rates == (2, 1, 0.5, 0.75, 0.5, 0.75)
    assert ifeval_rates([]) == (0, 0, None, None, None, None)


@pytest.mark.parametrize(("reference", "message"), [
    (row("punctuation:no_coma", {}), "no instruction 'punctuation:no_coma' .*no_comma"),
    (row("length_constraints:number_words", {"relation": "at least"}), "lacks .*'num_words'"),
    (row("length_constraints:number_words", {"relation": "at least", "num_words": None}),
     "lacks .*'num_words'"),
    (row("length_constraints:number_words", {"relation": "about", "num_words": 3}),
     "relation must be 'less than' or 'at least', found 'about'"),
    (row("length_constraints:number_words", {"relation": "at least", "num_words": 2.5}),
     "num_words must be a whole number"),
    (row("length_constraints:number_words", {"relation": "at least", "num_words": True}),
     "num_words must be a whole number"),
    (row("length_constraints:number_words", {"relation": "at least", "num_words": float("nan")}),
     "num_words must be a whole number"),
    (row("length_constraints:number_paragraphs", {"num_paragraphs": 0}), "at least 1"),
    (row("keywords:existence", {"keywords": "mom"}), "keywords must be a list of texts"),
    (row("keywords:existence", {"keywords": []}), "keywords must be a list of texts"),
    (row("keywords:letter_frequency", {"letter": "ab", "let_relation": "at least",
                                       "let_frequency": 1}), "letter must be a single character"),
    (row("startend:end_checker", {"end_phrase": " "}), "end_phrase must be a text"),
    (row("punctuation:no_comma", {"num_words": 3}), "no_comma has no argument 'num_words'"),
    (row("punctuation:no_comma", None), "kwargs must be a mapping"),
    ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]},
     "1 instructions but 2"),
    ({"instruction_id_list": ["punctuation:no_comma"]}, "kwargs must be a list"),
    ({"instruction_id_list": [], "kwargs": []}, "instruction_id_list must be a list"),
    ({}, "neither .* has instruction_id_list"), (None, "neither"), ("no_comma", "neither"),
])
@pytest.mark.parametrize("response", ["A tale.", ""])
def test_a_row_that_cannot_be_read_is_no_failure_of_the_response(reference, message, response):
    with pytest.raises(DataError, match=message):
        judge(response, reference)


def test_columns_of_a_table_that_do_not_apply_are_none():
    kwargs = {"relation": "at least", "num_words": 3.0, "keyword": None, "language": None}
    assert judge("one two three", row("length_constraints:number_words", kwargs)).score == 1.0


@pytest.mark.parametrize(("text", "sentences"), [
    ("", 0), ("...", 0), ("no end", 1), ("One. Two", 2), ("Is it? Yes! Good.", 3),
    ("He said \"go.\" Then he went.", 2), ("Mr. A. Smith has 3.5 dogs.", 1),
    ("1. Cut.\n2) Fry.\na. Eat.", 3), ("Wait... for it. Now… Go.", 3), ("Really?!! Yes.", 2),
    ("第一句。第二句。", 2), ("पहला। दूसरा।", 2), ("No. I will not.", 2),
    ("visit example.com now", 1),
])
def test_sentences(text, sentences):
    assert count_sentences(text) == sentences


def test_words_and_languages():
    assert count_words("don't stop - 3 times, señor") == 6
    assert language_of(" 12 \ud800 ") is None
    assert language_of("Россия большая страна, и здесь живёт много людей.") == "ru"
    assert language_of("This is English \ud800 with a lone surrogate.") == "en"


def everything():
    chosen = {}
    for name, kwargs, *_ in BY_HAND:
        chosen[name] = kwargs
    return {"instruction_id_list": list(chosen), "kwargs": list(chosen.values())}


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200) | st.text("*[]<>-\n\". !?1aA,", max_size=200))
def test_any_text_is_judged_and_loose_is_no_stricter(text):
    checks = build_checks(everything())
    found = follow(text, checks)
    assert [one.instruction for one in found] == [name for name, _ in checks]
    assert all(one.loose for one in found if one.strict)
    assert not (not text.strip() and any(one.loose for one in found))


@pytest.mark.parametrize("number", range(len(HOSTILE_TEXTS)))
def test_hostile_texts_follow_no_more_than_they_must(number):
    got = judge(HOSTILE_TEXTS[number], everything())
    assert got.parts["strict_all"] == got.parts["loose_all"] == 0.0
