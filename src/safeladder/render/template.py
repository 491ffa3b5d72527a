"""What a chat template does around an assistant's turn, found out by rendering probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safeladder.errors import ConfigError, DataError, ModelError
from safeladder.render.decode import Tokenizer
from safeladder.render.think import OPEN
from safeladder.types import Message

# Words that no template writes by itself.
_USER, _ASSISTANT, _AGAIN = "probeuserprobe", "probeassistantprobe", "probeagainprobe"

NO_TEMPLATE = (
    "the model has no chat template: set chat_template in the recipe (a Jinja text or a .jinja "
    "file), use the model's instruct version, or give prompts that are already rendered")


@dataclass(frozen=True)
class TurnMarks:
    """The text around an assistant's turn."""

    header: str
    """Opens the turn (``<|im_start|>assistant\\n``)."""
    prefill: str
    """What the generation prompt adds of the assistant's own text (``<think>\\n``), often none."""
    ending: str
    """Stands right behind the assistant's text (``<|im_end|>\\n``)."""


def read_template(text_or_file: str) -> str:
    """A Jinja text as it is; anything else is the path of a file that holds one.

    Raises:
        ConfigError: the file cannot be read.
    """
    if "{%" in text_or_file or "{{" in text_or_file:
        return text_or_file
    try:
        return Path(text_or_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat_template: {text_or_file} is neither a Jinja text nor a file that "
                          f"can be read ({error})") from None


class ChatTemplate:
    """A tokenizer's chat template: messages to text, and its marks."""

    def __init__(
        self, tokenizer: Tokenizer, template: str | None, kwargs: Mapping[str, Any],
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._kwargs = dict(kwargs)

    @property
    def exists(self) -> bool:
        """Whether there is a template at all."""
        return bool(self._template or self._tokenizer.chat_template)

    def render(
        self, messages: Sequence[Message], generation_prompt: bool, where: str = "messages",
    ) -> str:
        """Apply the template once.

        Raises:
            DataError: the template refuses these messages; ``where`` names them.
            ModelError: there is no template, or it is broken.
        """
        return self._apply([self._wire(message) for message in messages], generation_prompt, where)

    @cached_property
    def marks(self) -> TurnMarks:
        """The text around an assistant's turn.

        A turn in the middle of a conversation begins with the header, the generation prompt is
        header and pre-fill. Whatever both share is the header, but a think tag is no part of it.

        Raises:
            ModelError: the template does not show what an assistant said.
        """
        asked = [Message("user", _USER)]
        answered = [*asked, Message("assistant", _ASSISTANT)]
        started, plain = self.render(asked, True), self.render(asked, False)
        generation = started[_shared_start(started, plain):]
        history = self.render([*answered, Message("user", _AGAIN)], False)
        closed = self.render(answered, False)
        if _ASSISTANT not in history or _ASSISTANT not in closed:
            raise ModelError("the chat template leaves out what the assistant said: mend it, or "
                             "set chat_template in the recipe")
        before = history.partition(_USER)[2].partition(_ASSISTANT)[0].partition(OPEN)[0]
        header = next(generation[:n] for n in range(len(generation), -1, -1)
                      if before.endswith(generation[:n]))
        ending = closed[closed.index(_ASSISTANT) + len(_ASSISTANT):]
        return TurnMarks(header, generation[len(header):], ending)

    def continuation(self, messages: Sequence[Message], where: str) -> str:
        """What follows an assistant's text when others speak and the assistant is asked again."""
        before = [Message("user", _USER), Message("assistant", _ASSISTANT)]
        text = self.render([*before, *messages], True, where)
        if _ASSISTANT not in text:
            raise ModelError("the chat template leaves out what the assistant said")
        return text[text.index(_ASSISTANT) + len(_ASSISTANT):]

    @cached_property
    def _takes_strings(self) -> bool:
        """Templates of image models may want every content as a list of parts."""
        return _USER in self._apply([{"role": "user", "content": _USER}], False, "a probe")

    def _wire(self, message: Message) -> dict[str, Any]:
        has_image = not isinstance(message.content, str) and any(
            part["type"] != "text" for part in message.content)
        if has_image:
            return message.to_dict()
        if self._takes_strings:
            return {"role": message.role, "content": message.text}
        return {"role": message.role, "content": [{"type": "text", "text": message.text}]}

    def _apply(self, wire: list[dict[str, Any]], generation_prompt: bool, where: str) -> str:
        from jinja2 import TemplateError, TemplateSyntaxError

        if not self.exists:
            raise ModelError(NO_TEMPLATE)
        try:
            return str(self._tokenizer.apply_chat_template(
                wire, chat_template=self._template, tokenize=False,
                add_generation_prompt=generation_prompt, **self._kwargs))
        except TemplateSyntaxError as error:
            raise ModelError(f"the chat template is not valid Jinja, line {error.lineno}: "
                             f"{error.message}") from error
        except TemplateError as error:
            raise DataError(f"{where}: the chat template refuses it: {error.message}") from error


def _shared_start(one: str, other: str) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)
