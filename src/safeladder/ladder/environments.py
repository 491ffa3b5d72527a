"""Environments as a recipe names them: ``{type: search, passages: microworld, ...}``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.data.microworld.search import (
    ABSTRACT_WORDS,
    CONDITIONS,
    passages_name,
    search_documents,
)
from safeladder.data.retrieval import PassageIndex, read_documents
from safeladder.envs import Environment, Search, SingleTurn
from safeladder.render.actions import INSTRUCTIONS
from safeladder.tools import SearchTool

MICROWORLD = "microworld"
PASSAGE_WORDS = 200
"""Of a passage from a file that a read shows: three reads and their searches stay below a thousand
words."""


class SingleTurnSpec(StrictModel):
    """One question, one response."""

    type: Literal["single_turn"] = "single_turn"


class SearchSpec(StrictModel):
    """Search, read, answer (:mod:`safeladder.envs.search`)."""

    type: Literal["search"]
    passages: str = Field(description="microworld (a prompt's meta['passages'] chooses among "
                          "them), or a file of JSON lines with title and text")
    max_turns: int = Field(6, ge=1, description="responses, the answer included")
    max_searches: int = Field(3, ge=0)
    max_reads: int = Field(3, ge=0)
    k: int = Field(3, ge=1, description="results of a search")
    abstract_words: int | None = Field(
        None, ge=1, description="words of a text that a result shows; None: 30, microworld 4")
    passage_words: int | None = Field(
        None, ge=1, description="words of a passage that a read shows, so that an episode fits the "
        "model's positions; None: 200, microworld all")
    corpus_seed: int = Field(0, description="of the microworld's passages")
    editions: int = Field(
        1, ge=1, description="of the microworld's passages, as many as the questions are asked in")
    role: Literal["tool", "user"] = Field(
        "tool", description="who speaks for the environment; some chat templates know no tool")
    instructions: bool = Field(
        False, description="tell the format in a system message; a warm-up has taught it already")


EnvironmentSpec = Annotated[SingleTurnSpec | SearchSpec, Field(discriminator="type")]


@lru_cache(maxsize=16)
def build_environment(spec: SingleTurnSpec | SearchSpec) -> Environment:
    """The environment of a recipe; the same for the same words, so that passages load once.

    Raises:
        DataError: the passages cannot be used.
        MissingExtra: bm25s is not installed.
    """
    if isinstance(spec, SingleTurnSpec):
        return SingleTurn()
    shown = None if spec.passages == MICROWORLD else PASSAGE_WORDS
    return Search(_tools(spec), spec.max_turns, spec.max_searches, spec.max_reads, spec.k,
                  spec.role, INSTRUCTIONS if spec.instructions else "",
                  spec.passage_words or shown)


def _tools(spec: SearchSpec) -> dict[str, SearchTool]:
    if spec.passages != MICROWORLD:
        index = PassageIndex(read_documents(Path(spec.passages)), spec.abstract_words or 30)
        return {"": SearchTool(index)}
    words = spec.abstract_words or ABSTRACT_WORDS
    tools: dict[str, SearchTool] = {
        passages_name(name, edition): SearchTool(
            PassageIndex(search_documents(name, spec.corpus_seed, edition), words))
        for name in CONDITIONS for edition in range(spec.editions if name != "mixed" else 1)}
    return {**tools, "": tools["mixed"]}
