"""From what a recipe says of a judge to the judge: the endpoint is opened here, and what the judge
costs is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.config import validate
from safeladder.engine.remote import Endpoint, RemoteSampler
from safeladder.verifiers.base import Verifier
from safeladder.verifiers.judge import ChatJudge, JudgeSpec, ReplyCache
from safeladder.verifiers.registry import Maker


def judge_makers(cache: Path | None = None) -> Mapping[str, Maker]:
    """What :func:`safeladder.verifiers.build_verifiers` needs to build judges.

    Replies are kept in the folder ``cache`` (None: in memory) unless a judge names its own.
    """
    def make(spec: JudgeSpec, where: str) -> Verifier:
        endpoint = validate(Endpoint, spec.endpoint, f"{where}.endpoint")
        folder = cache if spec.cache is None else Path(spec.cache)
        return ChatJudge(spec, RemoteSampler(endpoint), ReplyCache(folder))

    return {"judge": make}


class CostWatch:
    """What judges have cost since it was last asked."""

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        self._verifiers = {name: v for name, v in verifiers.items() if hasattr(v, "spent")}
        self._before = self._now()

    def since_last(self) -> dict[str, dict[str, float]]:
        """Verifier -> figures of :class:`safeladder.verifiers.judge.judge.Spent`, zeros left out;
        only verifiers that were asked.
        """
        now, before = self._now(), self._before
        self._before = now
        costs = {name: {key: value - before[name][key] for key, value in figures.items()
                        if value != before[name][key]} for name, figures in now.items()}
        return {name: figures for name, figures in costs.items() if figures}

    def _now(self) -> dict[str, dict[str, float]]:
        return {name: dict(v.spent) for name, v in self._verifiers.items()}
