"""Judges: language models behind chat endpoints as verifiers."""

from safeladder.verifiers.judge.cache import ReplyCache
from safeladder.verifiers.judge.judge import ChatJudge
from safeladder.verifiers.judge.question import RUBRICS
from safeladder.verifiers.judge.spec import JudgeSpec

__all__ = ["RUBRICS", "ChatJudge", "JudgeSpec", "ReplyCache"]
