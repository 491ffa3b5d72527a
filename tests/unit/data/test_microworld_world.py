"""The world's rule, the balance of its pairs, and what splits hold out."""

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from safeladder.data.microworld import FORMS, SPLITS, labelled_responses, safety_prompts
from safeladder.data.microworld.requests import Request
from safeladder.data.microworld.safety import TEMPLATES, UNSEEN_TEMPLATES, request_of
from safeladder.data.microworld.value import dilemma_splits, is_allowed
from safeladder.data.microworld.world import (
    ACTIONS,
    OBJECTS,
    Composition,
    Scene,
    all_compositions,
    composition_splits,
    compositions_of,
    is_hazard,
)
from safeladder.data.microworld.wrappers import SEEN, UNSEEN
from safeladder.types import Prompt


def test_harm_is_the_pair_and_the_scene() -> None:
    # A flag is flammable and guarded, a lamp live and toxic.
    assert is_hazard("burn", "flag") and not is_hazard("burn", "lamp")
    assert is_hazard("wash", "lamp") and not is_hazard("wash", "flag")
    assert is_hazard("burn", "lamp", Scene("danger", 0))  # danger of fire
    assert not is_hazard("burn", "lamp", Scene("danger", 1))  # danger of shock
    assert not is_hazard("burn", "flag", Scene("guard", 0))
    assert is_hazard("burn", "flag", Scene("guard", 1))


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_is_harmful_as_often_as_not(split: str) -> None:
    cells = compositions_of(split)
    for place in (0, 1):
        harmful = Counter(cell[place] for cell in cells if is_hazard(*cell))
        harmless = Counter(cell[place] for cell in cells if not is_hazard(*cell))
        assert harmful == harmless and harmful


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_word_of_a_dilemma_is_right_as_often_as_not(split: str) -> None:
    cells = [cell for cell, part in dilemma_splits().items() if part == split]
    for place in (0, 1):
        right = Counter(cell[place] for cell in cells if is_allowed(*cell))
        assert right == Counter(cell[place] for cell in cells if not is_allowed(*cell)) and right


def test_splits_cover_all_and_leave_every_property_to_be_learned() -> None:
    parts = composition_splits()
    assert set(parts) == set(all_compositions()) and len(parts) == 16 * 24
    assert Counter(parts.values()) == {"train": 264, "validation": 40, "test": 80}
    trained = Counter((cell.object, ACTIONS[cell.action])
                      for cell, part in parts.items() if part == "train")
    assert len(trained) == 24 * 4 and min(trained.values()) >= 2


@pytest.mark.parametrize("form", ["text", "object_image"])
def test_prompts_of_whole_passes_are_balanced(form: str) -> None:
    rows = safety_prompts("test", 2 * 80, seed=3, forms=(form,))
    for place in (0, 1):
        counts = Counter((row.meta["group"].split()[place], row.meta["harmful"]) for row in rows)
        words = {word for word, _ in counts}
        assert all(counts[word, True] == counts[word, False] > 0 for word in words)


def test_signs_and_texts_of_scenes_are_balanced() -> None:
    # Each of 80 compositions meets 6 signs: the one that turns it 3 times, the 3 others once each.
    rows = safety_prompts("test", 6 * 80, seed=3, forms=("scene_image",))
    requests = [request_of(row) for row in rows]
    assert Counter(row.meta["harmful"] for row in rows) == {True: 240, False: 240}
    for key in (lambda r: Composition(r.action, r.object), lambda r: r.scene):
        counts = Counter((key(request), request.harmful) for request in requests)
        assert all(counts[seen, True] == counts[seen, False] > 0 for seen, _ in counts)


def test_images_decide_where_the_text_is_the_same() -> None:
    """Harmless text with a dangerous image and the reverse; "this thing" harmful or not."""
    rows = safety_prompts("train", 3000, seed=1, forms=("object_image", "scene_image"))
    kinds: dict[str, set[bool]] = {}
    for row in rows:
        kinds.setdefault(row.messages[0].text, set()).add(row.meta["harmful"])
    assert sum(len(seen) == 2 for seen in kinds.values()) > 100
    turned = {(is_hazard(r.action, r.object), r.harmful) for r in map(request_of, rows)}
    assert turned == {(False, True), (True, False), (True, True), (False, False)}


def test_nothing_held_out_occurs_in_training() -> None:
    trained = [row for level in (1, 2, 3)
               for row in labelled_responses("safety", "train", 1500, seed=level, level=level)]
    groups = {row.group for row in trained}
    wrappers = {row.prompt.meta["wrapper"] for row in trained}
    templates = {row.prompt.meta["template"] for row in trained}
    assert wrappers == {"", *SEEN} and len(templates) == len(TEMPLATES)
    for split in ("validation", "test", "unseen_forms"):
        others = labelled_responses("safety", split, 600)
        assert groups.isdisjoint(row.group for row in others)
        assert not any(row.prompt.meta["told"] for row in others)
    assert {row.prompt.meta["wrapper"] for row in others} == {"", *UNSEEN}
    assert {row.prompt.meta["template"] for row in others} == {
        f"unseen-{i}" for i in range(len(UNSEEN_TEMPLATES))}


def test_held_out_templates_share_no_text_with_the_others() -> None:
    said = [{t.format(action=a, it=f"the {o}") for a, o in itertools.product(ACTIONS, OBJECTS)
             for t in templates} for templates in (TEMPLATES, UNSEEN_TEMPLATES)]
    assert said[0].isdisjoint(said[1])


def test_a_seed_gives_the_same_rows_and_another_gives_others() -> None:
    first, again, other = (labelled_responses("safety", "train", 80, seed) for seed in (5, 5, 6))
    assert first == again and first != other
    assert {row.prompt.meta["form"] for row in first} == set(FORMS)


def test_images_show_what_is_meant() -> None:
    (row,) = safety_prompts("train", 1, seed=2, forms=("object_image",))
    pixels = row.media[0].pixels
    assert pixels is not None and pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert "this thing" in row.messages[0].text and row.reference["object"] not in (
        row.messages[0].text)


def test_a_wrapper_hides_harmful_and_harmless_requests_alike() -> None:
    rows = safety_prompts("train", 7 * 264, seed=1, forms=("wrapped",))
    for kind in SEEN:
        shares = [row.meta["harmful"] for row in rows if row.meta["wrapper"] == kind]
        assert 0.4 < np.mean(shares) < 0.6 and len(shares) > 200
    assert {row.task for row in rows if row.meta["harmful"]} == {"jailbreak"}
    assert {row.task for row in rows if not row.meta["harmful"]} == {"safety"}


def test_wrapped_words_can_be_unwrapped() -> None:
    rows = safety_prompts("unseen_forms", 400, seed=1, forms=("wrapped",))
    by_kind = {row.meta["wrapper"]: row for row in rows}
    mirrored = by_kind["mirrored"].messages[0].text.removeprefix("read from the end : ")[::-1]
    assert all(word in mirrored for word in by_kind["mirrored"].meta["group"].split())
    assert len(by_kind["multi_turn_split"].messages) == 3
    assert by_kind["typography_half"].media


def test_a_request_tells_its_reference_in_full() -> None:
    reference = Request("burn", "flag", Scene("guard", 0)).reference()
    assert reference["hazard"] is None and reference["dangerous"]["objects"] == []
    # With the fire guarded a flag is guarded (theft) still: four tools remain dangerous.
    assert reference["dangerous"]["tools"] == ["bag", "cart", "box", "crate"]


@pytest.mark.parametrize("form", FORMS)
def test_words_alone_do_not_tell_harm(form: str) -> None:
    """A regression on words stays near chance; with the pair as one feature it is always right."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    pipeline = pytest.importorskip("sklearn.pipeline")
    train, test = (safety_prompts(split, count, seed=1, forms=(form,))
                   for split, count in (("train", 1056), ("test", 480)))

    def score(words: Callable[[Prompt], str], measured: list[Prompt]) -> float:
        model = pipeline.make_pipeline(text.CountVectorizer(token_pattern=r"\S+"),
                                       linear.LogisticRegression(C=100, max_iter=500))
        model.fit([words(row) for row in train], [row.meta["harmful"] for row in train])
        return float(model.score([words(row) for row in measured],
                                 [row.meta["harmful"] for row in measured]))

    assert score(lambda row: " ".join(m.text for m in row.messages), test) <= 0.65
    assert score(lambda row: row.meta["request"].replace(" ", "-"), train) == 1.0
