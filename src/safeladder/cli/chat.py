"""The terminal chat: tokens as they are sampled, reasoning dimmed, turns on one growing prefix."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from safeladder.engine.base import SamplingParams, StreamingSampler
from safeladder.errors import CheckpointError, ConfigError, SafeLadderError, SamplingError
from safeladder.ladder.run_dir import RunDir
from safeladder.render import Piece, RenderedPrompt, Renderer, ThinkStream
from safeladder.rollout import derive_seed
from safeladder.types import Message, Prompt

HELP = "/reset forgets the conversation, /quit ends (as Ctrl-D does), Ctrl-C stops an answer"


class ChatModel(NamedTuple):
    """What a conversation needs."""

    sampler: StreamingSampler
    renderer: Renderer
    max_positions: int | None = None
    """Tokens of prompt and answer together, where the model has a limit."""


def chat_with(run: Path, rung: str | None, temperature: float, max_tokens: int) -> None:
    """Chat with a rung of a run, or with a Hugging Face checkpoint, in this terminal.

    Raises:
        CheckpointError, ConfigError: there is nothing to talk to; see :func:`find_checkpoint`.
    """
    checkpoint = find_checkpoint(run, rung)
    recipe = RunDir(run).recipe if checkpoint != run else None
    run_chat(checkpoint, lambda path: _load_local(path, recipe),
             SamplingParams(max_tokens=max_tokens, temperature=temperature))


def find_checkpoint(run: Path, rung: str | None = None) -> Path:
    """The checkpoint of a run's rung, by default its last finished one; a checkpoint is itself.

    Raises:
        CheckpointError: the folder is neither, or no rung is finished.
        ConfigError: the run has no such rung, or a rung is named for a bare checkpoint.
    """
    if (run / "config.json").is_file():
        if rung is not None:
            raise ConfigError(f"{run} is a checkpoint, it has no rungs: leave --rung out")
        return run
    if not (run / "manifest.json").is_file():
        raise CheckpointError(f"{run} is neither a run directory nor a Hugging Face checkpoint: "
                              "it has no manifest.json and no config.json")
    states = RunDir(run).manifest()["rungs"]
    finished = [name for name, state in states.items() if state.get("status") == "done"]
    if not finished:
        raise CheckpointError(f"{run}: no rung is finished yet; go on with safeladder climb "
                              "--resume")
    if rung is not None and rung not in finished:
        raise ConfigError(f"{run}: no finished rung {rung!r}; there are {', '.join(finished)}")
    return RunDir(run).checkpoint(rung or finished[-1])


def run_chat(
    checkpoint: Path, build: Callable[[Path], ChatModel], params: SamplingParams,
    source: TextIO | None = None, console: Console | None = None, system: str | None = None,
) -> None:
    """Read questions until ``/quit`` or the end of input, and print answers as they are written.

    With a terminal as ``source`` (default: standard input) an error ends the answer; without one,
    lines are read, plain text is printed, and an error ends the chat.
    """
    source = source or sys.stdin
    console = console or Console(highlight=False)
    interactive = source.isatty()
    if interactive:
        console.print(f"[dim]loading {checkpoint} ...[/dim]")
    conversation = Conversation(build(checkpoint), params, system)
    if interactive:
        console.print(f"[dim]{HELP}[/dim]")
    with asyncio.Runner() as runner:
        for line in _questions(source, console, interactive):
            if line == "/quit":
                return
            if line == "/reset":
                conversation.reset()
            elif line.startswith("/") and " " not in line:
                console.print(HELP, style="dim", markup=False)
            else:
                _answer(conversation, line, runner, console, interactive)


@dataclass
class Conversation:
    """What was said, as token ids: each turn continues the ids of the last one."""

    model: ChatModel
    params: SamplingParams
    system: str | None = None
    turns: int = 0
    cut: bool = field(default=False, init=False)
    """Whether the newest answer reached its limit of tokens."""
    _context: tuple[RenderedPrompt, tuple[int, ...]] | None = field(default=None, init=False)

    def reset(self) -> None:
        """Forget everything."""
        self._context, self.turns = None, 0

    async def ask(self, text: str) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece. One that is not read to its end is forgotten.

        Raises:
            SamplingError: the conversation fills the model's context, or sampling fails.
        """
        sampler, renderer, _ = self.model
        rendered = self._render(text)
        params = replace(self._fit(rendered), stop_token_ids=renderer.stop_token_ids,
                         seed=derive_seed(self.params.seed, self.turns))
        decoder, thinking, ids = renderer.stream_decoder(rendered), ThinkStream(), list[int]()
        for piece in thinking.feed(rendered.prefill):
            yield piece
        async with _closing(sampler.stream(rendered.token_ids, params, rendered.media)) as stream:
            async for token_id in stream:
                ids.append(token_id)
                if token_id not in params.stop_token_ids:
                    for piece in thinking.feed(decoder.push(token_id)):
                        yield piece
        for piece in (*thinking.feed(decoder.flush()), *thinking.flush()):
            yield piece
        self.cut = not ids or ids[-1] not in params.stop_token_ids
        self._context = (rendered, tuple(ids))
        self.turns += 1

    def _render(self, text: str) -> RenderedPrompt:
        asked = Message("user", text)
        if self._context is not None:
            return self.model.renderer.continue_turn(*self._context, [asked])
        system = (Message("system", self.system),) if self.system else ()
        return self.model.renderer.render(Prompt(id="chat", messages=(*system, asked)))

    def _fit(self, rendered: RenderedPrompt) -> SamplingParams:
        limit = self.model.max_positions
        if limit is None:
            return self.params
        room = limit - len(rendered.token_ids)
        if room < 1:
            raise SamplingError(f"the conversation fills the model's {limit} positions: "
                                "/reset starts a new one")
        return replace(self.params, max_tokens=min(self.params.max_tokens, room))


@asynccontextmanager
async def _closing(stream: AsyncIterator[int]) -> AsyncIterator[AsyncIterator[int]]:
    """A sampler must hear at once that nobody waits for its tokens any more."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def _questions(source: TextIO, console: Console, interactive: bool) -> Iterator[str]:
    """Lines that are not empty."""
    while True:
        try:
            line = console.input("[bold]> [/bold]") if interactive else source.readline()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not interactive and not line:
            return
        if line.strip():
            yield line.strip()


def _answer(
    conversation: Conversation, question: str, runner: asyncio.Runner, console: Console,
    interactive: bool,
) -> None:
    async def show() -> None:
        async with aclosing(conversation.ask(question)) as pieces:
            async for kind, text in pieces:
                style = "" if kind == "answer" else "dim"
                console.print(Text(text, style), end="", soft_wrap=True)
        console.print()

    try:
        runner.run(show())
        if conversation.cut and interactive:
            console.print("[dim](stopped at the limit of tokens)[/dim]")
    except KeyboardInterrupt:
        console.print("\n[dim](stopped; this question is forgotten)[/dim]")
    except SafeLadderError as error:
        if not interactive:
            raise
        console.print(f"error: {error}", style="red", markup=False)


def _load_local(checkpoint: Path, recipe: Path | None) -> ChatModel:
    """A checkpoint on the local engine, with the chat template of the run's recipe."""
    from safeladder.engine.threads import configure_threads

    configure_threads()  # before torch starts
    from safeladder.engine.local.models import load_model
    from safeladder.engine.local.sampler import SamplingEngine

    if recipe is None:
        loaded = load_model(checkpoint)
        renderer = Renderer(loaded.tokenizer, loaded.processor)
    else:
        from safeladder.ladder.build import build_renderer
        from safeladder.ladder.recipe import load_recipe

        settings = load_recipe(str(recipe), [])
        loaded = load_model(checkpoint, device=settings.engine.device)
        renderer = build_renderer(loaded, settings)
    limit = getattr(loaded.config.get_text_config(), "max_position_embeddings", None)
    return ChatModel(SamplingEngine(loaded).sampler(), renderer, limit)
