"""The microworld: a small, fully verifiable world in compact English with small images.

What others use, all drawn from seeds and equal on every machine:

``labelled_responses(kind, split, count, seed=0, forms=FORMS, level=None, think_share=0.5)``
    ``kind`` is ``safety`` (:data:`SAFETY_LABELS`), ``value`` (:data:`VALUE_LABELS`) or
    ``knowledge`` (:data:`KNOWLEDGE_LABELS`); gives
    :class:`~safeladder.data.responses.LabelledResponse` rows.
    ``forms=("text",)`` draws safety prompts in text only; the forms are ``text``, ``object_image``
    ("this thing", shown), ``scene_image`` (a danger or guard sign turns the answer) and ``wrapped``
    (jailbreak wrappers, typography images among them). ``group`` is what splits hold out: the
    composition "burn lamp". ``prompt.meta`` has ``form``, ``harmful``, ``template``, ``wrapper``,
    ``behaviour``, ``hazard``, ``thoughts``, ``shown`` (what the image shows), ``told`` (the prompt
    says what the object is like; half of the training rows do, none of the others: a curriculum
    that small models need).
``safety_prompts(split, count, seed=0, forms=FORMS, level=1, told=0.0)``
    safety prompts alone; ``reference`` is the ground truth that the judge
    (:mod:`safeladder.verifiers.microworld`) reads.
``family_prompts(family, split, count, seed=0, level=None)`` and ``demonstrate(prompt, how, rng)``
    prompts of any of :data:`FAMILIES`, and a teacher's response to one.
``corpus_texts(count, seed=0)``, ``passages(seed=0)``
    pretraining texts and the retrieval corpus.
Recipes
    ``{type: microworld, family: safety, split: train, count: 2000, seed: 0}`` and
    ``{type: microworld_corpus, count: 4000}`` (:mod:`safeladder.data.microworld.source`).
Splits
    ``train``, ``validation``, ``test`` (compositions of action and object, with their images, that
    occur in no other split) and ``unseen_forms`` (those of test, in prompt templates, jailbreak
    wrappers and answer sentences that occur nowhere else). Nothing may be trained on but ``train``.
"""

from safeladder.data.microworld.balance import SPLITS
from safeladder.data.microworld.corpus import corpus_texts
from safeladder.data.microworld.families import FAMILIES, demonstrate, family_prompts
from safeladder.data.microworld.knowledge import passages
from safeladder.data.microworld.labelled import labelled_responses
from safeladder.data.microworld.safety import FORMS, safety_prompts
from safeladder.microlanguage import KNOWLEDGE_LABELS, SAFETY_LABELS, VALUE_LABELS

__all__ = ["FAMILIES", "FORMS", "KNOWLEDGE_LABELS", "SAFETY_LABELS", "SPLITS", "VALUE_LABELS",
           "corpus_texts", "demonstrate", "family_prompts", "labelled_responses", "passages",
           "safety_prompts"]
