"""Questions of knowledge to search for: passages under several conditions, questions, a teacher.

The conditions, every question under each of them:

===========  ========================================================================
condition    passages of each town
===========  ========================================================================
clean        the current one
noisy        the current one; a trip to it and a song of it, which say nothing of use
conflicting  the current one; an old map whose values are all wrong (an earlier year),
             and a talk about it that supposes a wrong value for one relation
missing      a trip to it and a song of it: only what is known already can be answered
mixed        those of :func:`~safeladder.data.microworld.knowledge.passages`: some
             towns have others that mislead
===========  ========================================================================
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from safeladder.data.microworld.balance import Split
from safeladder.data.microworld.knowledge import (
    TOWNS,
    VALUES,
    Fact,
    facts,
    knowledge_prompts,
    passages,
)
from safeladder.data.retrieval import Document, PassageIndex
from safeladder.data.source import Source
from safeladder.render.actions import (
    INSTRUCTIONS,
    MAX_CONFIDENCE,
    information,
    passage_text,
    results_text,
    write_move,
)
from safeladder.types import Message, Prompt

Condition = Literal["clean", "noisy", "conflicting", "missing", "mixed"]
CONDITIONS: tuple[Condition, ...] = ("clean", "noisy", "conflicting", "missing", "mixed")
ABSTRACT_WORDS = 4
""""in year 9 :" and no value: to know one, it must be read."""
Way = Literal["direct", "search", "read"]
EVIDENCE = {"memory": "as I know", "nothing": "as I guess", "passage": "as I read"}
"""How the teacher's last thought ends: what its answer rests on."""


@lru_cache(maxsize=256)
def search_documents(
    condition: Condition, seed: int = 0, edition: int = 0,
) -> tuple[Document, ...]:
    """The passages of a condition, in an order drawn from the seed.

    Raises:
        ValueError: ``mixed`` passages in another edition than 0.
    """
    if condition == "mixed":
        if edition:
            raise ValueError("mixed passages have one edition")
        return tuple(Document(p.title, p.text) for p in passages(seed))
    rng = random.Random(f"search {passages_name(condition, edition)} {seed}")
    known = facts_of(edition)
    found = [document for town in TOWNS
             for document in _of_town([f for f in known if f.town == town], condition, rng)]
    rng.shuffle(found)
    return tuple(found)


@lru_cache(maxsize=256)
def facts_of(edition: int) -> tuple[Fact, ...]:
    """The facts as an edition has them: in edition 0 as they are, in others the unknown ones have
    values drawn from its number.
    """
    if edition == 0:
        return facts()
    rng = random.Random(f"edition {edition}")
    return tuple(fact._replace(value=rng.choice(VALUES[fact.relation]))
                 if fact.tier == "unknown" else fact for fact in facts())


def passages_name(condition: Condition, edition: int) -> str:
    """What ``meta["passages"]`` calls those that are searched for a question."""
    return f"{condition} {edition}" if edition else condition


def _of_town(facts_there: Sequence[Fact], condition: Condition,
             rng: random.Random) -> list[Document]:
    own, town = sorted(facts_there), facts_there[0].town
    found = [Document(town, f"in year 9 : {' '.join(fact.sentence for fact in own)}")]
    if condition == "missing":
        found = []
    if condition in ("noisy", "missing"):
        found += empty_passages(town, rng)
    if condition == "conflicting":
        wrong = {f.relation: rng.choice([v for v in VALUES[f.relation] if v != f.value])
                 for f in own}
        old = " ".join(f"the {relation} of {town} is {value} ."
                       for relation, value in wrong.items())
        talked = rng.choice(own)
        supposed = rng.choice([v for v in VALUES[talked.relation] if v != talked.value])
        found += [Document(f"old map of {town}", f"in year {rng.randint(2, 5)} : {old}"),
                  Document(f"talk about {town}", f"some say that the {talked.relation} of {town} "
                           f"may be {supposed} .")]
    return found


def empty_passages(town: str, rng: random.Random) -> list[Document]:
    """What is told of a town and says nothing of use."""
    other = rng.choice([t for t in TOWNS if t != town])
    return [Document(f"a trip to {town}", f"the way from {other} to {town} is long . the people of "
                     f"{town} like to sing ."),
            Document(f"a song of {town}", f"I like the people of {town} . the way to {town} is "
                     "long .")]


def demonstrated(fact: Fact) -> bool:
    """Whether demonstrations may tell an unknown fact. A half of those of the train split, chosen
    by a hash of their names; the questions of that split ask for the other half, which is as
    unknown after the warm-up as before.
    """
    return hashlib.sha256(f"told|{fact.town}|{fact.relation}".encode()).digest()[0] % 2 == 0


class _Drawn(Source):
    """Which questions, and what is found when they are searched for."""

    split: Split
    count: int = Field(ge=1)
    seed: int = 0
    level: int = Field(default=0, ge=0, le=3, description="1 known, 2 rare, 3 unknown facts; 0: "
                       "all three")
    conditions: tuple[Condition, ...] = Field(
        default=("clean", "noisy", "conflicting"), min_length=1,
        description="of the passages; every question is asked under each of them")
    editions: int = Field(
        default=1, ge=1, description="each question is asked in one of so many, drawn at random, "
        "as many as the environment has; in all but the first the unknown facts are others")

    @model_validator(mode="after")
    def _one_edition_of_mixed(self) -> Self:
        if self.editions > 1 and "mixed" in self.conditions:
            raise ValueError("editions: mixed passages have one edition; leave the condition out")
        return self

    def may_ask(self, fact: Fact) -> bool:
        """Whether a question may be about a fact: known and rare ones are everybody's."""
        return fact.tier != "unknown" or fact.split != "train" or not demonstrated(fact)

    def questions(self) -> list[Prompt]:
        """The prompts before the settings that all sources share: of each drawn question one under
        every condition, so that conditions differ in nothing else (the last question under as many
        as ``count`` has room for). Questions about one fact are one structure: they are not
        independent of each other.
        """
        drawn = knowledge_prompts(self.split, -(-self.count // len(self.conditions)), self.seed,
                                  self.level, self.may_ask)
        rng = random.Random(f"editions {self.split} {self.seed} {self.level}")
        asked = [(prompt, condition)
                 for prompt in (_in_edition(p, rng.randrange(self.editions)) for p in drawn)
                 for condition in self.conditions]
        return [replace(prompt, id=f"search-{self.split}-{self.seed}-{self.level}-{i}",
                        source="microworld_search", task="search", meta={
                            **prompt.meta, "condition": condition,
                            "passages": passages_name(condition, prompt.meta["edition"]),
                            "structure": prompt.meta["group"]})
                for i, (prompt, condition) in enumerate(asked[:self.count])]


def _in_edition(prompt: Prompt, edition: int) -> Prompt:
    """A question of knowledge with the answer that an edition has."""
    asked = prompt.reference
    value = next(fact.value for fact in facts_of(edition)
                 if (fact.town, fact.relation) == (asked["town"], asked["relation"]))
    return replace(prompt, reference={**asked, "answer": value},
                   meta={**prompt.meta, "edition": edition})


class SearchQuestions(_Drawn):
    """Questions of knowledge for the search environment: ``meta["condition"]``, the tier, and
    ``meta["passages"]``, what is searched.
    """

    type: Literal["search_questions"]

    def build(self, base: Path) -> list[Prompt]:
        """The prompts; their task is ``search`` unless ``task`` says otherwise."""
        return self.finish(self.questions())


class SearchDemonstrations(_Drawn):
    """A teacher of the search format, for a short warm-up: what is stated there says nothing.

    Confidences are drawn evenly from 0 to 10, whatever the answer: what they mean is left to
    reinforcement learning. Known and rare facts are answered at once, after a search, or after a
    search and a read; unknown ones always after both. Where passages are missing, all but the known
    ones are guessed, after reading what there is. The last thought ends in what the answer rests on
    (:data:`EVIDENCE`), right before the confidence; whoever has read in vain says that he guesses,
    of known facts, too. What the environment says is what it would say (a test compares). The
    unknown facts told here are asked by no question of the train split (:func:`demonstrated`).
    Every move of the teacher is imitated, not the answer alone.
    """

    type: Literal["search_demonstrations"]
    paths: dict[Way, FiniteFloat] = Field(
        default={"direct": 1.0, "search": 1.0, "read": 1.0}, min_length=1,
        description="shares of the ways to answer what is known or rare")
    k: int = Field(default=3, ge=1, description="results of a search, as in the environment")
    abstract_words: int = Field(default=ABSTRACT_WORDS, ge=1)
    passage_words: int | None = Field(
        default=None, ge=1, description="words that a read shows, as in the environment")
    corpus_seed: int = Field(default=0, description="of the passages, as in the environment")
    role: Literal["tool", "user"] = Field(
        default="tool", description="who speaks for the environment, as there")
    instructions: bool = Field(
        default=False, description="tell the format in a system message, as the environment does")

    @model_validator(mode="after")
    def _for_training(self) -> SearchDemonstrations:
        if self.split != "train":
            raise ValueError(f"demonstrations are for training: split must be train, not "
                             f"{self.split}")
        if min(self.paths.values()) < 0 or not any(self.paths.values()):
            raise ValueError("paths: shares are 0 or more, and one of them is not 0")
        return self

    def may_ask(self, fact: Fact) -> bool:
        """Of the unknown facts those that questions leave alone."""
        return fact.tier != "unknown" or demonstrated(fact)

    def build(self, base: Path) -> list[Prompt]:
        """The conversations, each ended by an answer."""
        rng = random.Random(f"search teacher {self.seed}")
        indices = {passages_name(name, edition): PassageIndex(
            search_documents(name, self.corpus_seed, edition), self.abstract_words)
            for name in self.conditions for edition in range(self.editions)}
        return self.finish(self._demonstrate(prompt, indices[prompt.meta["passages"]], rng)
                           for prompt in self.questions())

    def _demonstrate(self, prompt: Prompt, index: PassageIndex, rng: random.Random) -> Prompt:
        relation, town, right = (prompt.reference[key] for key in ("relation", "town", "answer"))
        path = rng.choices(list(self.paths), list(self.paths.values()))[0]
        tier, missing = prompt.meta["tier"], prompt.meta["condition"] == "missing"
        if tier == "unknown":
            path = "read"
        value = right
        if tier != "known" and missing:
            path, value = "read", rng.choice(VALUES[relation])
        said: list[Message] = []
        ground = "nothing" if path == "read" else "memory"
        if path != "direct":
            query = rng.choice([f"{relation} of {town}", town])
            thoughts = "not known to me ." if path == "read" else "I am not sure ."
            hits = index.search(query, self.k)
            said += [Message("assistant", write_move("search", query, thoughts)),
                     Message(self.role, information(results_text(
                         (hit.title, hit.abstract) for hit in hits)))]
            if path == "read" and hits:
                place = next((i for i, hit in enumerate(hits) if hit.title == town), 0)
                found = index.documents[hits[place].number]
                said += [Message("assistant", write_move("read", str(place + 1), f"{town} .")),
                         Message(self.role, information(passage_text(
                             found.title, found.text, self.passage_words)))]
                if f" is {right} ." in said[-1].text:
                    ground = "passage"
                elif tier == "unknown" and not missing:  # beyond the words that a read shows
                    value = rng.choice(VALUES[relation])
        thought = f"the {relation} of {town} is {value} , {EVIDENCE[ground]}"
        answer = write_move("answer", value, thought, rng.randint(0, MAX_CONFIDENCE))
        system = "\n\n".join(filter(None, (self.system_prompt, INSTRUCTIONS)))
        told = [Message("system", system)] if self.instructions else []
        return replace(prompt, messages=(*told, *prompt.messages, *said,
                                         Message("assistant", answer)),
                       meta={**prompt.meta, "path": path, "imitate": "all",
                             "behaviour": "ideal" if value == right else "wrong"})
