"""A script as a language model: a distribution over whole responses, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from safeladder.errors import ConfigError, SamplingError
from safeladder.render.decode import Tokenizer, decode

Responses: TypeAlias = "str | Sequence[str] | Mapping[str, float]"
"""One response, several equally likely ones, or weights (any positive scale) by response."""
ScriptSource: TypeAlias = (
    "Mapping[str | tuple[int, ...], Responses] | Callable[[str], Responses]")

OFF_SCRIPT = -1e4
"""Logit of a token that no response has here: finite, and never drawn at any sane temperature."""


class Script:
    """What is answered to which prompt.

    ``source`` maps prompts to responses, or is a function of the prompt's text. A key of ids
    must equal the prompt's ids; a key of text must occur in the prompt's text, and the key whose
    occurrence ends last wins (the longer one if two end together): in a conversation the newest
    message decides. The key ``""`` answers everything else.

    The probability of a response is its weight over the sum of weights. A token's log-probability
    follows from the chain rule: the weight of the responses that agree up to this token, over the
    weight of those that agreed before it. Responses end with the tokenizer's end token.
    """

    def __init__(self, source: ScriptSource, tokenizer: Tokenizer) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError("a script needs a tokenizer with an eos_token: it ends responses")
        self._source = source
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}

    def begin(self, prompt_ids: Sequence[int]) -> None:
        """Look up the responses to a prompt.

        Raises:
            SamplingError: the script has none.
        """
        key = tuple(prompt_ids)
        if key not in self._known:
            self._known[key] = self._weights(self._find(key))

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float64]:
        """(V,) log of the next token's weight.

        Raises:
            SamplingError: the ids begin with no prompt that was sampled before.
        """
        ids = tuple(token_ids)
        prompt = max((p for p in self._known if ids[:len(p)] == p), key=len, default=None)
        result = np.full(len(self._tokenizer), OFF_SCRIPT)
        if prompt is None:
            if any(p[:len(ids)] == ids for p in self._known):
                return result
            raise SamplingError("the script knows log-probabilities only behind prompts that it "
                                "was asked to continue")
        said = ids[len(prompt):]
        mass: dict[int, float] = {}
        for response, weight in self._known[prompt].items():
            if response[:len(said)] == said and len(response) > len(said):
                token_id = response[len(said)]
                mass[token_id] = mass.get(token_id, 0.0) + weight
        if not mass:
            mass = {int(self._tokenizer.eos_token_id): 1.0}
        for token_id, weight in mass.items():
            result[token_id] = np.log(weight)
        return result

    def _find(self, prompt_ids: tuple[int, ...]) -> Responses:
        text = decode(self._tokenizer, prompt_ids)
        if not isinstance(self._source, Mapping):
            return self._source(text)
        if prompt_ids in self._source:
            return self._source[prompt_ids]
        keys = [key for key in self._source if isinstance(key, str)]
        places = [(text.rfind(key) + len(key) if key else 0, len(key), key)
                  for key in keys if key in text]
        if not places:
            raise SamplingError(f"the script has no response to {text[-60:]!r}; it knows {keys}")
        return self._source[max(places)[2]]

    def _weights(self, responses: Responses) -> dict[tuple[int, ...], float]:
        if isinstance(responses, str):
            responses = [responses]
        if not isinstance(responses, Mapping):
            responses = {text: float(responses.count(text)) for text in responses}
        if not responses or min(responses.values()) <= 0:
            raise ConfigError("a script needs responses with positive weights")
        end = int(self._tokenizer.eos_token_id)
        return {(*self._tokenizer(text, add_special_tokens=False)["input_ids"], end): weight
                for text, weight in responses.items()}
