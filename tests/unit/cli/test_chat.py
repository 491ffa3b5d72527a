import asyncio
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from safeladder.cli.chat import ChatModel, Conversation, chat_with, find_checkpoint, run_chat
from safeladder.engine.base import SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler, TableModel
from safeladder.errors import CheckpointError, ConfigError, SamplingError
from safeladder.render import Renderer
from safeladder.types import Media

TOKENS = ByteTokenizer()
PARAMS = SamplingParams(max_tokens=60)
OPENS_THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}")
SCRIPT = {"2+2": "two and two</think>4", "sure?": "yes</think>sure é"}


class Heard(FakeSampler):
    """Remembers the prompts it was asked to continue."""

    prompts: list[tuple[int, ...]]

    async def stream(self, prompt_ids: Sequence[int], params: SamplingParams,
                     media: Sequence[Media] = ()) -> AsyncIterator[int]:
        self.__dict__.setdefault("prompts", []).append(tuple(prompt_ids))
        async for token_id in super().stream(prompt_ids, params, media):
            yield token_id


def model(sampler: FakeSampler | None = None, template: str = OPENS_THINKING,
          max_positions: int | None = None) -> ChatModel:
    sampler = sampler or Heard.scripted(SCRIPT)
    return ChatModel(sampler, Renderer(TOKENS, chat_template=template), max_positions)


def chat(lines: str, built: ChatModel | None = None, params: SamplingParams = PARAMS,
         **more: Any) -> str:
    output = io.StringIO()
    run_chat(Path("x"), lambda path: built or model(), params, io.StringIO(lines),
             Console(file=output, highlight=False), **more)
    return output.getvalue()


def test_lines_in_plain_text_out() -> None:
    assert chat("2+2\n\nsure?\n") == "<think>two and two</think>4\n<think>yes</think>sure é\n"


def test_long_answers_are_not_wrapped_and_markup_is_text() -> None:
    long = "[bold]" + "word " * 60
    built = model(FakeSampler.scripted({"": long}), template=TOKENS.chat_template or "")
    assert chat("q\n", built, SamplingParams(max_tokens=999)) == long + "\n"


def test_a_turn_continues_the_ids_of_the_last_one() -> None:
    built = model()
    chat("2+2\nsure?\n", built)
    first, second = built.sampler.prompts  # type: ignore[attr-defined]
    said = tuple(TOKENS("two and two</think>4<|end|>")["input_ids"])
    assert second[:len(first) + len(said)] == first + said
    assert TOKENS.decode(second[len(first) + len(said):]) == (
        "<|user|>sure?<|end|><|assistant|><think>")


def test_reset_quit_and_help() -> None:
    built = model()
    output = chat("2+2\n/reset\nsure?\n/unknown\n/quit\n2+2\n", built)
    assert output.count("<think>") == 2
    assert "/reset forgets" in output
    second = built.sampler.prompts[1]  # type: ignore[attr-defined]
    assert TOKENS.decode(second) == "<|user|>sure?<|end|><|assistant|><think>"
    assert "4" in chat("/etc says 2+2\n")


def test_a_system_message_comes_first() -> None:
    built = model()
    chat("2+2\n", built, system="Be kind.")
    assert TOKENS.decode(built.sampler.prompts[0]).startswith(  # type: ignore[attr-defined]
        "<|system|>Be kind.<|end|><|user|>2+2")


def test_answers_fit_into_the_models_positions() -> None:
    prompt = len(TOKENS("<|user|>2+2<|end|><|assistant|><think>")["input_ids"])
    built = model(max_positions=prompt + 7)
    conversation = Conversation(built, PARAMS)

    async def ask() -> str:
        return "".join([piece.text async for piece in conversation.ask("2+2")])

    assert asyncio.run(ask()) == "<think>two and"
    assert conversation.cut
    with pytest.raises(SamplingError, match=r"fills the model's \d+ positions: /reset"):
        asyncio.run(ask())


def test_turns_draw_from_streams_of_their_own() -> None:
    table = np.zeros((len(TOKENS), len(TOKENS)))
    table[:, 256:] = -50
    conversation = Conversation(model(FakeSampler(TableModel(table))), PARAMS)

    async def ask() -> list[str]:
        return ["".join([piece.text async for piece in conversation.ask("q")]) for _ in range(2)]

    first, second = asyncio.run(ask())
    assert first != second
    conversation.reset()
    assert asyncio.run(ask())[0] == first


def test_an_error_ends_a_chat_without_a_terminal() -> None:
    built = model(FakeSampler.scripted(SCRIPT, fail_on_calls=[2]))
    with pytest.raises(SamplingError, match="at call 2"):
        chat("2+2\nsure?\n2+2\n", built)


def test_an_answer_that_is_not_read_to_its_end_is_forgotten() -> None:
    built = model()
    conversation = Conversation(built, PARAMS)

    async def leave() -> None:
        pieces = conversation.ask("2+2")
        await anext(pieces)
        await pieces.aclose()

    asyncio.run(leave())
    assert conversation.turns == 0

    async def ask() -> None:
        async for _ in conversation.ask("sure?"):
            pass

    asyncio.run(ask())
    assert TOKENS.decode(built.sampler.prompts[-1]).startswith(  # type: ignore[attr-defined]
        "<|user|>sure?")


def run_folder(folder: Path, **rungs: str) -> Path:
    folder.mkdir()
    states = {name: {"status": status} for name, status in rungs.items()}
    (folder / "manifest.json").write_text(json.dumps({"rungs": states}))
    return folder


def test_the_last_finished_rung_answers(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", cot_sft="done", logic_rl="done", later="running")
    assert find_checkpoint(run) == run / "rungs/logic_rl/checkpoint"
    assert find_checkpoint(run, "cot_sft") == run / "rungs/cot_sft/checkpoint"
    with pytest.raises(ConfigError, match="no finished rung 'later'; there are cot_sft, logic_rl"):
        find_checkpoint(run, "later")


def test_what_cannot_be_talked_to_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no manifest\.json and no config\.json"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no rung is finished yet"):
        find_checkpoint(run_folder(tmp_path / "begun", cot_sft="running"))
    (tmp_path / "config.json").write_text("{}")
    assert find_checkpoint(tmp_path) == tmp_path
    with pytest.raises(ConfigError, match="leave --rung out"):
        find_checkpoint(tmp_path, "cot_sft")


IN_A_TERMINAL = """
import asyncio, sys
from pathlib import Path
from test_chat import PARAMS, SCRIPT, model
from safeladder.cli.chat import run_chat
from safeladder.engine.fake import FakeSampler
class Endless(FakeSampler):
    async def stream(self, prompt_ids, params, media=()):
        async for token_id in super().stream(prompt_ids, params, media):
            yield token_id
        if len(prompt_ids) > 70:
            await asyncio.sleep(60)
run_chat(Path("x"), lambda path: model(Endless.scripted(SCRIPT, fail_on_calls=[2])), PARAMS)
print("left cleanly")
"""


def test_a_terminal_gets_dimmed_reasoning_errors_in_line_and_can_stop_an_answer() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parent),
                   "NO_COLOR": ""}
    process = subprocess.Popen([sys.executable, "-c", IN_A_TERMINAL], stdin=theirs,
                               stdout=theirs, stderr=theirs, env=environment,
                               start_new_session=True, preexec_fn=_own_terminal)
    os.close(theirs)
    try:
        _until(ours, b"Ctrl-D")
        os.write(ours, b"2+2\n")
        seen = _until(ours, b"\r\n", after=b"</think>")
        assert b"\x1b[2mtwo and two\x1b[0m".replace(b"two and two", b"t") in seen
        assert b"\x1b[2m</think>\x1b[0m4" in seen
        os.write(ours, b"sure?\n")
        assert b"told to fail at call 2" in _until(ours, b"> ", after=b"error: ")
        os.write(ours, b"sure? " + b"x" * 60 + b"\n")
        _until(ours, "é".encode())
        os.write(ours, b"\x03")
        _until(ours, b"this question is forgotten")
        os.write(ours, b"\x04")
        _until(ours, b"left cleanly")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios
    # A runner that was started in the background ignores interrupts, and so would its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(terminal: int, wanted: bytes, after: bytes = b"", seconds: float = 60) -> bytes:
    """Read until ``wanted`` shows up (behind ``after``)."""
    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen.partition(after)[2] if after else wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"no {wanted!r} in {seen!r}")
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            raise AssertionError(f"ended without {wanted!r}: {seen!r}") from None
    return seen


def test_a_checkpoint_on_disk_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    from safeladder.engine.local.models import build_model, save_checkpoint
    from safeladder.ladder.embedded import train_tokenizer

    tokenizer = train_tokenizer(["two plus two is four"] * 4, 150)
    tiny = {"model_type": "qwen3", "hidden_size": 16, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 8, "max_position_embeddings": 24}
    save_checkpoint(build_model(tiny, tokenizer, seed=0), tmp_path / "model")
    for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO("two plus two\nis\n"))
    # 24 positions hold one answer of an untrained model and no second one
    with pytest.raises(SamplingError, match="fills the model's 24 positions"):
        chat_with(tmp_path / "model", rung=None, temperature=0.0, max_tokens=1024)
    (answer,) = capsys.readouterr().out.splitlines()
    assert answer.startswith("<think>") and len(answer) > len("<think>")
