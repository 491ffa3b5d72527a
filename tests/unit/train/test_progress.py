import io
import re

import pytest
from rich.console import Console

from safeladder.train.progress import (
    LineProgress,
    RungClock,
    TerminalProgress,
    duration,
    figures,
    make_progress,
)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize(("seconds", "text"), [
    (0.2, "0s"), (59.4, "59s"), (59.6, "1m00s"), (187, "3m07s"), (7500, "2h05m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_counts_only_steps_done_here() -> None:
    moments = iter([100.0, 120.0])
    clock = RungClock(total_steps=50, first_step=10, now=lambda: next(moments))
    # 5 steps since step 10 took 20 s -> 4 s each, 35 are left
    assert clock.left(15) == 140.0


def test_time_left_is_unknown_before_a_step_or_without_a_total() -> None:
    assert RungClock(50, 10).left(10) is None
    assert RungClock(None, 0).left(3) is None


def test_an_rl_step_shows_reward_not_loss() -> None:
    metrics = {"loss": 0.25, "reward/mean": -1.5, "accuracy": 0.5, "kl_ref": 0.1}
    assert figures(metrics) == [("reward", "-1.500"), ("accuracy", "0.500")]
    assert figures({"loss": 0.25}) == [("loss", "0.2500")]


def test_one_line_per_step_without_a_terminal() -> None:
    stream = io.StringIO()
    with make_progress(stream) as progress:
        progress.rung_started("logic_rl", 2)
        progress.step(0, {"reward/mean": 1.25, "accuracy": 0.61, "response/mean_tokens": 88.4})
        progress.step(1, {"reward/mean": 1.5})
        progress.message("evaluated 400 puzzles")
        progress.rung_finished("kk2_accuracy 0.910")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "logic_rl started steps 2",
        "logic_rl step 1/2 reward +1.250 accuracy 0.610 tokens 88 left 0s",
        "logic_rl step 2/2 reward +1.500 left 0s",
        "evaluated 400 puzzles",
        "logic_rl finished in 0s: kk2_accuracy 0.910"]


def test_lines_of_a_resumed_rung_without_a_total() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.rung_started("cot_sft", None, unit="update", first_step=7)
    progress.step(7, {"loss": 0.5})
    assert stream.getvalue().splitlines() == [
        "cot_sft started resumed at update 7", "cot_sft update 8 loss 0.5000"]


def test_a_terminal_gets_a_bar_and_keeps_finished_rungs() -> None:
    stream = io.StringIO()
    with TerminalProgress(Console(file=stream, force_terminal=True, width=70)) as progress:
        progress.rung_started("cot_sft", 3)
        for step in range(3):
            progress.step(step, {"loss": 0.5, "tokens_per_second": 17000.0})
        progress.rung_finished("kk2_accuracy 0.55")
        progress.message("[not markup] 5%")
        progress.rung_started("logic_rl", 4, first_step=2)
        progress.step(3, {"reward/mean": 2.0})
    shown = plain(stream.getvalue())
    assert "step 3/3" in shown and "loss 0.5000  tok/s 17000" in shown
    assert "cot_sft finished in 0s: kk2_accuracy 0.55" in shown
    assert "[not markup] 5%" in shown
    assert "step 2/4" in shown and "step 4/4" in shown and "reward +2.000" in shown


def test_no_line_of_the_terminal_display_is_wider_than_the_terminal() -> None:
    stream = io.StringIO()
    metrics = {"reward/mean": 1.0, "accuracy": 0.5, "response/mean_tokens": 100.0,
               "validation/loss": 1.0, "tokens_per_second": 12345.0}
    with TerminalProgress(Console(file=stream, force_terminal=True, width=48)) as progress:
        progress.rung_started("logic_rl", 1000)
        progress.step(500, metrics)
        progress.step(999, metrics)
    assert max(len(line) for line in re.split(r"[\r\n]", plain(stream.getvalue()))) <= 48


def test_a_step_outside_a_rung_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="before rung_started"):
        TerminalProgress(Console(file=io.StringIO())).step(0, {})


def test_an_exception_leaves_the_terminal_usable() -> None:
    stream = io.StringIO()
    with (pytest.raises(ValueError, match="boom"),
          TerminalProgress(Console(file=stream, force_terminal=True)) as progress):
        progress.rung_started("cot_sft", 3)
        raise ValueError("boom")
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again
