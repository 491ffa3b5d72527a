"""The microworld: a small, fully verifiable world in compact English with small images.

What others use, all drawn from seeds and equal on every machine:

``labelled_responses(kind, split, count, seed=0, forms=..., level=1, think_share=0.5)``
    ``kind`` is ``safety`` (labels :data:`SAFETY_LABELS`), ``value`` or ``knowledge``; gives
    :class:`~safeladder.data.responses.LabelledResponse` rows. ``forms=("text",)`` draws text only;
    the forms of safety prompts are ``text``, ``object_image`` ("this thing", shown),
    ``scene_image`` (a danger or guard sign turns the answer) and ``wrapped`` (jailbreak wrappers,
    typography images among them). ``group`` is the composition; ``prompt.meta`` has ``form``,
    ``harmful``, ``composition``, ``template``, ``wrapper``, ``behaviour``, ``hazard``,
    ``thoughts``.
``safety_prompts(split, count, seed=0, forms=..., level=1)``
    the prompts alone; ``reference`` is the ground truth that the judge
    (:mod:`safeladder.verifiers.microworld`) reads.
Splits
    ``train``, ``validation``, ``test`` (compositions of action and object, with their images, that
    occur in no other split) and ``unseen_forms`` (those of test, in prompt templates, jailbreak
    wrappers and answer sentences that occur nowhere else). Nothing may be trained on but ``train``.
"""

from safeladder.data.microworld.labelled import labelled_responses
from safeladder.data.microworld.safety import safety_prompts
from safeladder.data.microworld.world import SPLITS
from safeladder.microlanguage import KNOWLEDGE_LABELS, SAFETY_LABELS, VALUE_LABELS

__all__ = ["KNOWLEDGE_LABELS", "SAFETY_LABELS", "SPLITS", "VALUE_LABELS", "labelled_responses",
           "safety_prompts"]
