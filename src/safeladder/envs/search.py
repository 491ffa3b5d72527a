"""Search, read, answer: a multi-turn environment over passages (arXiv 2507.16727).

Each response is one move (:mod:`safeladder.render.actions`)::

    policy   <think> ... </think> <search> river of Aldor </search>
    answer   <information> 1 : Aldor : in year 9 : ; 2 : old map of Aldor : ... </information>
    policy   <think> ... </think> <read> 1 </read>
    answer   <information> Aldor : in year 9 : the crop of Aldor is ... </information>
    policy   <think> ... </think> <confidence> 8 </confidence> <answer> Sil </answer>

- An answer ends the episode. So does a malformed response: nothing after it could be well formed
  as a whole, and the verifier says what was wrong.
- A move that is well formed and cannot be carried out (a result that was not shown, a search or
  read beyond the limit) gets one line that says so, and the episode goes on.
- Only results of this episode can be read: by number, of the newest search, or by title.
- Which passages are searched is the prompt's ``meta["passages"]``, ``""`` where it has none; where
  the passages named ``""`` are all there are, every prompt searches those.
- A failing search engine raises ``ToolError``: the trajectory ends as ``error_tool``, unjudged.

Whatever the environment says stands in messages of its own, so it is part of the next prompt and
never of what is trained (:func:`safeladder.train.batch.trajectory_datums`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from safeladder.envs.base import Episode, StepResult
from safeladder.errors import DataError
from safeladder.render.actions import (
    NO_MORE_READ,
    NO_MORE_SEARCH,
    NO_RESULT,
    information,
    passage_text,
    read_move,
    results_text,
)
from safeladder.tools.search import SearchTool, title_key
from safeladder.types import Message, Prompt


@dataclass(frozen=True)
class Search:
    """The environment; the module's docstring has the rules."""

    tools: Mapping[str, SearchTool]
    """Name of passages -> their search engine."""
    max_turns: int = 6
    """Responses per trajectory, the answer included."""
    max_searches: int = 3
    max_reads: int = 3
    k: int = 3
    """Results of a search."""
    role: Literal["tool", "user"] = "tool"
    """Who speaks for the environment: some chat templates know no tool."""
    instructions: str = ""
    """System message put before every prompt; none when empty."""
    passage_words: int | None = None
    """Words of a passage that a read shows; None: all, however many positions that takes."""

    async def reset(self, prompt: Prompt) -> Prompt:
        """The prompt, with the instructions in (or behind) its system message.

        Raises:
            DataError: it names passages that are not there, or no message can be added to it.
        """
        self._tool(prompt)
        if not self.instructions:
            return prompt
        if prompt.rendered is not None:
            raise DataError(f"prompt {prompt.id!r} went through a chat template already, so the "
                            "instructions of the search environment cannot be added")
        first, *rest = prompt.messages
        if first.role != "system":
            first, rest = Message("system", self.instructions), [first, *rest]
        else:
            first = Message("system", f"{first.text}\n\n{self.instructions}")
        return replace(prompt, messages=(first, *rest))

    async def step(self, episode: Episode) -> StepResult:
        """Carry out the newest move.

        Raises:
            ToolError: the search engine failed.
        """
        move = read_move(episode.response)
        match move.kind:
            case "search":
                said = self._search(episode, move.argument)
            case "read":
                said = self._read(episode, move.argument)
            case _:
                return StepResult()
        return StepResult((Message(self.role, information(said)),), done=False)

    def _search(self, episode: Episode, query: str) -> str:
        if not _within(episode.state, "searches", self.max_searches):
            return NO_MORE_SEARCH
        hits = self._tool(episode.prompt).search(query, self.k)
        episode.state["newest"] = [hit.number for hit in hits]
        titles = episode.state.setdefault("titles", {})
        for hit in hits:
            titles.setdefault(title_key(hit.title), hit.number)
        return results_text((hit.title, hit.abstract) for hit in hits)

    def _read(self, episode: Episode, which: str) -> str:
        newest = episode.state.get("newest", [])
        numbers = {str(place): number for place, number in enumerate(newest, 1)}
        number = numbers.get(which, episode.state.get("titles", {}).get(title_key(which)))
        if number is None:
            return NO_RESULT
        if not _within(episode.state, "reads", self.max_reads):
            return NO_MORE_READ
        title, text = self._tool(episode.prompt).read(number)
        return passage_text(title, text, self.passage_words)

    def _tool(self, prompt: Prompt) -> SearchTool:
        if "passages" not in prompt.meta and "condition" in prompt.meta and len(self.tools) > 1:
            raise DataError(f"prompt {prompt.id!r} names a condition and no passages: say in "
                            f"meta['passages'] which to search ({', '.join(self.tools)})")
        name = "" if self.tools.keys() == {""} else str(prompt.meta.get("passages", ""))
        tool = self.tools.get(name)
        if tool is None:
            raise DataError(f"prompt {prompt.id!r}: no passages named {name!r} "
                            f"(known: {', '.join(self.tools)})")
        return tool


def _within(state: dict[str, Any], name: str, limit: int) -> bool:
    """Count one more of ``name``, unless there have been ``limit``."""
    if state.get(name, 0) >= limit:
        return False
    state[name] = state.get(name, 0) + 1
    return True
