"""A tokenizer of bytes: no files, no training, every text comes back to the letter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")
SPECIAL_TOKENS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|image|>")


class ByteTokenizer:
    """UTF-8 bytes are ids 0-255; the chat marks follow, ``<|end|>`` (256) being the stop token.

    It does what :class:`~safeladder.render.Renderer` asks of a Hugging Face tokenizer.
    """

    image_token = "<|image|>"

    def __init__(self, chat_template: str | None = CHAT_TEMPLATE) -> None:
        self.chat_template = chat_template
        self._ids = {token: 256 + i for i, token in enumerate(SPECIAL_TOKENS)}
        self._tokens = {i: token for token, i in self._ids.items()}
        self._split = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")

    @property
    def eos_token_id(self) -> int:
        """``<|end|>``."""
        return self._ids["<|end|>"]

    @property
    def image_token_id(self) -> int:
        """``<|image|>``."""
        return self._ids[self.image_token]

    @property
    def all_special_ids(self) -> list[int]:
        """The chat marks."""
        return list(self._tokens)

    @property
    def added_tokens_decoder(self) -> Mapping[int, str]:
        """The chat marks by id."""
        return dict(self._tokens)

    def __len__(self) -> int:
        return 256 + len(SPECIAL_TOKENS)

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """``{"input_ids": [...]}``; nothing is ever added."""
        ids: list[int] = []
        for piece in self._split.split(text):
            ids += [self._ids[piece]] if piece in self._ids else list(piece.encode())
        return {"input_ids": ids}

    def decode(
        self, token_ids: Sequence[int], skip_special_tokens: bool = False, *,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """Ids to text; bytes that make no character become U+FFFD."""
        pieces = [b"" if skip_special_tokens and i in self._tokens
                  else self._tokens[i].encode() if i in self._tokens else bytes([i])
                  for i in token_ids]
        return b"".join(pieces).decode(errors="replace")

    def apply_chat_template(
        self, conversation: Any, *, chat_template: str | None = None,
        add_generation_prompt: bool = False, tokenize: bool = True, **kwargs: Any,
    ) -> Any:
        """Messages to text, or to ids with ``tokenize=True``."""
        from jinja2 import Environment

        template = Environment().from_string(chat_template or self.chat_template or "")
        text = template.render(
            messages=conversation, add_generation_prompt=add_generation_prompt, **kwargs)
        return self(text)["input_ids"] if tokenize else text
