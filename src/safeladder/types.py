"""The values that cross layers and process borders: no tensors, no model handles.

Shape suffixes: ``_P`` prompts, ``_G`` trajectories of a group, ``_T`` tokens of one row,
``_D`` datums. One word per thing; ``docs/architecture.md`` has the list.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Media:
    """One image: pixels, or a path whose content is addressed by its hash.

    Example: ``Media(pixels=np.zeros((32, 32, 3), np.uint8))`` or ``Media(path="sign.png")``.
    """

    pixels: NDArray[np.uint8] | None = None
    """(height, width, 3) RGB."""
    path: str | None = None

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.path is None):
            raise ValueError("a Media holds either pixels or a path")
        if self.pixels is not None and (self.pixels.ndim != 3 or self.pixels.shape[2] != 3):
            raise ValueError(f"pixels must be (height, width, 3), got {self.pixels.shape}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content; equal content has one digest, whatever holds it."""
        if self.pixels is not None:
            head = repr(self.pixels.shape).encode()
            return hashlib.sha256(head + np.ascontiguousarray(self.pixels).tobytes()).hexdigest()
        assert self.path is not None
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Media) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class Message:
    """A chat message as OpenAI's API has it: text, or a list of text and image parts.

    ``content`` is a string, or parts such as ``{"type": "text", "text": ...}`` and
    ``{"type": "image"}``; the n-th image part stands for the n-th :class:`Media` of the prompt.
    """

    role: Role
    content: str | tuple[Mapping[str, Any], ...]

    @property
    def text(self) -> str:
        """The text parts joined; images leave nothing."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part["text"] for part in self.content if part["type"] == "text")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that chat templates and endpoints take."""
        content = self.content
        if not isinstance(content, str):
            return {"role": self.role, "content": [dict(part) for part in content]}
        return {"role": self.role, "content": content}


@dataclass(frozen=True)
class Prompt:
    """One dataset row.

    ``task`` routes it to its verifiers; ``reference`` is what they compare with (any JSON value).
    ``rendered`` holds a chat string that already went through a template (Logic-RL's files do
    that): it is tokenized as it is, and no template is applied to it again.
    """

    id: str
    messages: tuple[Message, ...]
    reference: Any = None
    source: str = ""
    task: str = "general"
    media: tuple[Media, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    rendered: str | None = None


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """What an engine returns for one row.

    ``token_ids`` are the sampled tokens, the stop token included when one was sampled;
    ``sampler_logprobs`` has their log-probabilities under the distribution sampled from
    (after temperature; before top-p and top-k truncation).
    """

    token_ids: tuple[int, ...]
    sampler_logprobs: FloatArray
    finish_reason: FinishReason
    policy_version: int

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.sampler_logprobs):
            raise ValueError("token_ids and sampler_logprobs differ in length")


@dataclass(frozen=True)
class Turn:
    """One exchange: the exact prompt ids, the completion, and what the environment said next.

    ``response`` is the assistant's text: the decoded completion, preceded by whatever the
    template had pre-filled of the assistant's turn (a think tag), and nothing else of the prompt.
    """

    prompt_ids: tuple[int, ...]
    completion: Completion
    response: str
    media: tuple[Media, ...] = ()
    environment_messages: tuple[Message, ...] = ()


class Status(enum.StrEnum):
    """How a trajectory ended."""

    COMPLETED = "completed"
    TRUNCATED_LENGTH = "truncated_length"
    TRUNCATED_TURNS = "truncated_turns"
    ERROR_SAMPLER = "error_sampler"
    ERROR_ENVIRONMENT = "error_environment"
    ERROR_TOOL = "error_tool"

    @property
    def is_error(self) -> bool:
        """Whether the trajectory must not be judged at all."""
        return self.value.startswith("error")

    @property
    def is_truncated(self) -> bool:
        """Whether a limit ended it."""
        return self.value.startswith("truncated")


@dataclass(frozen=True)
class Verdict:
    """What one verifier says of one trajectory. ``score is None`` = could not judge.

    Never NaN and never 0 for "unknown": an abstention carries its reason in ``error``.
    """

    verifier: str
    score: float | None
    verdict_class: str | None = None
    probabilities: Mapping[str, float] | None = None
    reason: str = ""
    error: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components of the score (``{"format": 1.0, "answer": 2.0}``), when it has any."""
    origin: str = ""
    """What judged, where the name does not say it: a model and the hash of its prompt."""

    def __post_init__(self) -> None:
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"{self.verifier}: a score must be finite or None, got {self.score}")
        if self.parts and not all(map(math.isfinite, self.parts.values())):
            raise ValueError(f"{self.verifier}: a part is not finite: {dict(self.parts)}")
        if self.score is None and not self.error:
            raise ValueError(f"{self.verifier}: an abstention must say why (error)")


@dataclass(frozen=True)
class Reward:
    """The scalar a trajectory is reinforced with, and the parts it was made of.

    ``total is None`` when any required part was unjudged: the row stays outside the group's
    statistics and trains with weight 0.
    """

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    monitor: Mapping[str, float | None] = field(default_factory=dict)
    """Scores that were asked for to watch the reward, and are no part of it."""


@dataclass
class Trajectory:
    """One rollout of one prompt, from the first turn to its reward."""

    prompt: Prompt
    turns: tuple[Turn, ...]
    status: Status
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    reward: Reward | None = None
    error: str | None = None

    @classmethod
    def finished(cls, prompt: Prompt, response: str) -> Trajectory:
        """A completed single-turn trajectory of a response from elsewhere (no tokens)."""
        completion = Completion((), np.zeros(0, np.float32), "stop", 0)
        return cls(prompt, (Turn((), completion, response, prompt.media),), Status.COMPLETED)

    @property
    def deciding_verdicts(self) -> dict[str, Verdict]:
        """The verdicts but those of monitors, which have no say in what was right."""
        watching = {key.partition(".")[0] for key in self.reward.monitor} if self.reward else set()
        return {name: v for name, v in self.verdicts.items() if name not in watching}

    @property
    def response(self) -> str:
        """The last turn's response; empty if there was none."""
        return self.turns[-1].response if self.turns else ""

    @property
    def num_tokens(self) -> int:
        """Sampled tokens over all turns."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)


@dataclass
class Group:
    """The G trajectories of one prompt; advantages are relative to it."""

    prompt: Prompt
    trajectories: list[Trajectory]


@dataclass(frozen=True)
class Datum:
    """One flat training row; crosses process borders. All arrays have the same length T.

    Position t belongs to ``token_ids[t]``: ``mask[t]`` is 1 where that token is trained on,
    ``*_logprobs[t]`` is its log-probability given the tokens before it. Position 0 has no
    prediction, so ``mask[0]`` is 0. ``weights`` carry the whole normalisation of the loss
    (see :meth:`Batch.split`).

    Example, prompt [5, 6], response [7, 2]::

        Datum(token_ids=[5, 6, 7, 2], mask=[0, 0, 1, 1], advantages=[0, 0, .5, .5], ...)
    """

    token_ids: IntArray
    mask: FloatArray
    advantages: FloatArray
    weights: FloatArray
    sampler_logprobs: FloatArray | None = None
    old_logprobs: FloatArray | None = None
    ref_logprobs: FloatArray | None = None
    media: tuple[Media, ...] = ()
    temperature: float = 1.0
    """All log-probabilities of this row are those of logits / temperature, as it was sampled."""

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        for name in ("mask", "advantages", "weights", "sampler_logprobs", "old_logprobs",
                     "ref_logprobs"):
            value = getattr(self, name)
            if value is None:
                continue
            if value.shape != (length,):
                raise ValueError(f"Datum.{name} has shape {value.shape}, expected ({length},)")
            if not np.isfinite(value).all():
                raise ValueError(f"Datum.{name} holds a value that is not finite")
        if length == 0 or self.mask[0] != 0:
            raise ValueError("a Datum needs a first token, and nothing predicts it: mask[0] is 0")

    @property
    def num_trained(self) -> int:
        """Number of tokens with mask 1."""
        return int(self.mask.sum())


Normalization = Literal["sequence_mean", "token_mean", "constant", "prompt_mean"]


@dataclass(frozen=True)
class Batch:
    """The datums of one rollout, with the prompt each belongs to.

    ``normalization`` says how the per-token losses of one optimizer step are averaged:

    ==============  ====================================  ========================
    name            weight of token t of row i            used by
    ==============  ====================================  ========================
    sequence_mean   1 / (B n_i)                           GRPO, CPGD eq. 2, GSPO
    token_mean      1 / sum_j n_j                         DAPO, CISPO, REINFORCE++
    constant        1 / (B L)                             Dr. GRPO (L = max tokens)
    prompt_mean     1 / (P sum_{j in prompt(i)} n_j)      per-prompt token mean
    ==============  ====================================  ========================

    B, P count the rows and prompts of the step that train at all (``num_trained > 0``).
    """

    datums: tuple[Datum, ...]
    prompt_index: tuple[int, ...]
    normalization: Normalization = "sequence_mean"
    length_constant: int | None = None

    def __post_init__(self) -> None:
        if len(self.datums) != len(self.prompt_index):
            raise ValueError("datums and prompt_index differ in length")
        if self.normalization == "constant" and not self.length_constant:
            raise ValueError("normalization 'constant' needs length_constant (tokens)")

    def split(self, num_minibatches: int) -> Iterator[tuple[Datum, ...]]:
        """Yield minibatches, one optimizer step each, with their weights written.

        Whole prompts stay together and keep their order. Datums without trained tokens are left
        out. Yields fewer minibatches when there are fewer prompts than asked for.
        """
        rows = [i for i, datum in enumerate(self.datums) if datum.num_trained]
        prompts = list(dict.fromkeys(self.prompt_index[i] for i in rows))
        for chunk in np.array_split(np.array(prompts), min(num_minibatches, len(prompts)) or 1):
            chosen = set(chunk.tolist())
            members = [i for i in rows if self.prompt_index[i] in chosen]
            if members:
                yield tuple(self._weighted(members))

    def _weighted(self, rows: Sequence[int]) -> Iterator[Datum]:
        tokens = {i: self.datums[i].num_trained for i in rows}
        per_prompt: dict[int, int] = {}
        for i in rows:
            key = self.prompt_index[i]
            per_prompt[key] = per_prompt.get(key, 0) + tokens[i]
        for i in rows:
            match self.normalization:
                case "sequence_mean":
                    scale = 1.0 / (len(rows) * tokens[i])
                case "token_mean":
                    scale = 1.0 / sum(tokens.values())
                case "constant":
                    assert self.length_constant is not None
                    scale = 1.0 / (len(rows) * self.length_constant)
                case "prompt_mean":
                    scale = 1.0 / (len(per_prompt) * per_prompt[self.prompt_index[i]])
            datum = self.datums[i]
            yield replace(datum, weights=(datum.mask * scale).astype(np.float32))
