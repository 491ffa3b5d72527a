"""Token ids back to text, exactly: a completion is decoded in the context of what precedes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

UNFINISHED = "\ufffd"
"""What decoders show for the first bytes of a character whose last bytes are still missing."""
CONTEXT_TOKENS = 4


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that rendering uses."""

    chat_template: Any

    @property
    def eos_token_id(self) -> Any:
        """The end-of-text token, or None."""
        ...

    @property
    def all_special_ids(self) -> list[int]:
        """Ids that are no text."""
        ...

    @property
    def added_tokens_decoder(self) -> Any:
        """Ids that are matched whole, before the tokenizer's own rules."""
        ...

    def __len__(self) -> int:
        """Number of ids, added ones included."""
        ...

    def __call__(self, text: Any, *, add_special_tokens: bool = True) -> Any:
        """``{"input_ids": [...]}``."""
        ...

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, *,
        clean_up_tokenization_spaces: bool = False,
    ) -> Any:
        """Ids to text."""
        ...

    def apply_chat_template(
        self, conversation: Any, *, chat_template: str | None = None,
        add_generation_prompt: bool = False, tokenize: bool = True, **kwargs: Any,
    ) -> Any:
        """Messages to text (``tokenize=False``)."""
        ...


def decode(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Decode to the letter: special tokens shown (a think tag may be one), no blank touched."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=False,
                                clean_up_tokenization_spaces=False))


def decode_after(tokenizer: Tokenizer, context: Sequence[int], token_ids: Sequence[int]) -> str:
    """The text that ``token_ids`` add behind ``context``.

    Sentencepiece-like decoders drop the blank in front of a text's first word; with some context
    in front, the completion's first word keeps it.
    """
    if not token_ids:
        return ""
    tail = context[-CONTEXT_TOKENS:]
    before = decode(tokenizer, tail) if tail else ""
    whole = decode(tokenizer, [*tail, *token_ids])
    return whole[len(before):] if whole.startswith(before) else decode(tokenizer, token_ids)


class StreamDecoder:
    """:func:`decode_after`, token by token; half characters are held back.

    Each step decodes a short window, so a long response costs linear time.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window = list(context[-CONTEXT_TOKENS:])
        self._done = len(self._window)

    def push(self, token_id: int) -> str:
        """Return the text that is certain after one more token (possibly none)."""
        self._window.append(token_id)
        text = self._pending()
        if text.endswith(UNFINISHED):
            return ""
        self._forget()
        return text

    def flush(self) -> str:
        """Return what was held back; the response is over."""
        text = self._pending()
        self._forget()
        return text

    def _pending(self) -> str:
        return decode_after(self._tokenizer, self._window[:self._done], self._window[self._done:])

    def _forget(self) -> None:
        self._window = self._window[-CONTEXT_TOKENS:]
        self._done = len(self._window)
