"""Messages to token ids and back: the one place that knows chat templates.

Tokens in, tokens out: what was sampled is never tokenized again. The next turn's prompt is the
ids so far, plus the ids of what the template puts behind an assistant's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from safeladder.errors import DataError, ModelError
from safeladder.render.decode import StreamDecoder, Tokenizer, decode_after
from safeladder.render.template import ChatTemplate, read_template
from safeladder.render.think import CLOSE, OPEN
from safeladder.types import Completion, FloatArray, IntArray, Media, Message, Prompt

_TRAILING_THINK = re.compile(r"<think>\s*(?:</think>\s*)?\Z")


class Processor(Protocol):
    """The part of a Hugging Face processor that rendering uses."""

    image_token: str
    image_token_id: int


class RenderedPrompt(NamedTuple):
    """What a sampler is given. The ids hold one image token per image; engines expand them."""

    token_ids: tuple[int, ...]
    prefill: str
    """The assistant's own text at the end of the prompt; a response begins with it."""
    media: tuple[Media, ...] = ()


class Demonstration(NamedTuple):
    """A supervised row: the prompt as sampling sees it, then a response and its end of turn."""

    token_ids: IntArray
    """(T,)"""
    mask: FloatArray
    """(T,) 1 on the response and the token that ends it."""
    media: tuple[Media, ...] = ()


class Renderer:
    """Chat rendering for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer.
        processor: of an image-text model; names the image token, and may bring the template.
        chat_template: replaces the model's own: a Jinja text, or a file that holds one.
        template_kwargs: variables for the template (``{"enable_thinking": False}``).
        stop_token_ids: further stop tokens (a model's generation config may list some).
    """

    def __init__(
        self, tokenizer: Tokenizer, processor: Any = None, chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None, stop_token_ids: Sequence[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._processor: Processor | None = processor
        template = read_template(chat_template) if chat_template else None
        self._template = ChatTemplate(
            tokenizer, template or getattr(processor, "chat_template", None),
            template_kwargs or {})
        self._more_stops = tuple(stop_token_ids)

    @cached_property
    def end_of_turn_id(self) -> int | None:
        """The token with which the template ends an assistant's turn, if it is one token."""
        if not self._template.exists:
            return None
        ids = self.encode(self._template.marks.ending)
        tokenizer = self._tokenizer
        known = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return ids[0] if ids and ids[0] in known else None

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """End of turn, end of text, and what the caller added."""
        ids = (self.end_of_turn_id, self._tokenizer.eos_token_id, *self._more_stops)
        return tuple(dict.fromkeys(i for i in ids if i is not None))

    def render(self, prompt: Prompt) -> RenderedPrompt:
        """Apply the template once and open the assistant's turn.

        ``Prompt.rendered`` goes to the tokenizer as it is: no template, no special tokens added.
        A last message of the assistant is continued, not closed.

        Raises:
            DataError: images and placeholders differ in number, or the template refuses.
            ModelError: there is no template, or the model takes no images.
        """
        if prompt.rendered is not None:
            text, prefill = prompt.rendered, self._own_text(prompt.rendered)
        else:
            text, prefill = self._render_messages(prompt)
        token_ids = self.encode(text)
        self._check_images(token_ids, prompt.media, prompt.id)
        return RenderedPrompt(token_ids, prefill, prompt.media)

    def response_text(self, rendered: RenderedPrompt, completion: Completion) -> str:
        """The assistant's text: the pre-fill and the decoded completion, without its stop token.

        Other special tokens stay visible.
        """
        ids = completion.token_ids
        if ids and ids[-1] in self.stop_token_ids:
            ids = ids[:-1]
        return rendered.prefill + decode_after(self._tokenizer, rendered.token_ids, ids)

    def stream_decoder(self, rendered: RenderedPrompt) -> StreamDecoder:
        """A decoder for tokens that arrive one by one (the pre-fill is not repeated)."""
        return StreamDecoder(self._tokenizer, rendered.token_ids)

    def continue_turn(
        self, rendered: RenderedPrompt, sampled_ids: Sequence[int], messages: Sequence[Message],
        media: Sequence[Media] = (),
    ) -> RenderedPrompt:
        """The next turn's prompt: ids so far + sampled ids + what the template puts behind them.

        Reasoning of earlier turns stays in the context, also where a template applied to the
        whole conversation would drop it: the policy goes on from the tokens it produced.

        Raises:
            DataError, ModelError: as :meth:`render`.
        """
        text = self._template.continuation(messages, "environment messages")
        suffix = self.encode(text)
        ids = (*rendered.token_ids, *sampled_ids)
        if suffix and ids[-1:] == suffix[:1] and suffix[0] == self.end_of_turn_id:
            suffix = suffix[1:]
        everything = (*rendered.media, *media)
        self._check_images(ids + suffix, everything, "environment messages")
        return RenderedPrompt(ids + suffix, self._own_text(text), everything)

    def render_demonstration(self, prompt: Prompt, response: str) -> Demonstration:
        """A supervised row: prompt ids as :meth:`render`, the response, the end of turn.

        ``response`` is a whole response: it begins with what the template pre-fills, which
        belongs to the prompt and is not trained on.

        Raises:
            DataError: the response does not begin with the pre-fill; and as :meth:`render`.
            ModelError: there is no token that ends a turn; and as :meth:`render`.
        """
        rendered = self.render(prompt)
        if not self.stop_token_ids:
            raise ModelError("no token ends a turn: give the tokenizer an eos_token")
        rest = _without_prefill(response, rendered.prefill, prompt.id)
        trained = (*self.encode(rest), self.stop_token_ids[0])
        token_ids = np.array(rendered.token_ids + trained, np.int64)
        mask = np.zeros(len(token_ids), np.float32)
        mask[len(rendered.token_ids):] = 1.0
        return Demonstration(token_ids, mask, rendered.media)

    def render_conversation(self, prompt: Prompt) -> Demonstration:
        """A supervised row of several turns: every message of the assistant is trained on, with
        the token that ends it; what the others say (tools, users) is not.

        The ids are those of a rollout in which the model says the same: each turn continues the
        tokens so far (:meth:`continue_turn`), and what a template pre-fills is not trained on.

        Raises:
            DataError: it does not end with the assistant, or the assistant speaks twice in a row;
                and as :meth:`render_demonstration`.
            ModelError: as :meth:`render_demonstration`.
        """
        first, *later = _turns_of(prompt)
        images = sum(map(_image_parts, first.asked))
        begin = replace(prompt, messages=first.asked, media=prompt.media[:images])
        ids, mask, media = self.render_demonstration(begin, first.response)
        for turn in later:
            count = sum(map(_image_parts, turn.asked))
            rendered = self.continue_turn(
                RenderedPrompt(tuple(ids[:-1].tolist()), "", media), (int(ids[-1]),), turn.asked,
                prompt.media[len(media):len(media) + count])
            rest = _without_prefill(turn.response, rendered.prefill, prompt.id)
            said = (*self.encode(rest), self.stop_token_ids[0])
            asked = len(rendered.token_ids) - len(ids)
            ids = np.array((*rendered.token_ids, *said), np.int64)
            mask = np.concatenate([mask, np.zeros(asked), np.ones(len(said))]).astype(np.float32)
            media = rendered.media
        return Demonstration(ids, mask, media)

    def sampled_image_token(self, completion: Completion) -> bool:
        """Whether the model itself emitted an image token: such a row has no image for it."""
        processor = self._processor
        return processor is not None and processor.image_token_id in completion.token_ids

    def _render_messages(self, prompt: Prompt) -> tuple[str, str]:
        messages, where = prompt.messages, f"prompt {prompt.id!r}"
        if not messages:
            raise DataError(f"{where}: it has no messages")
        images = sum(map(_image_parts, messages))
        if images != len(prompt.media):
            raise DataError(f"{where}: {images} image parts in its messages, but "
                            f"{len(prompt.media)} images: give one part per image, in order")
        own = messages[-1].text if messages[-1].role == "assistant" else ""
        asked = messages[:-1] if messages[-1].role == "assistant" else messages
        text = self._template.render(asked, True, where)
        prefill = self._own_text(text)
        opened = text[:len(text) - len(prefill)]
        if prefill.strip() and own.startswith(prefill.strip()):
            # the message writes the tag itself: it stands once, as the message has it
            prefill = ""
        return opened + prefill + own, prefill + own

    def _own_text(self, text: str) -> str:
        """What the end of a rendered chat holds of the assistant's own text."""
        if self._template.exists:
            marks = self._template.marks
            place = text.rfind(marks.header)
            if marks.header.strip() and place >= 0:
                own, ending = text[place + len(marks.header):], marks.ending.strip()
                return "" if ending and ending in own else own
            if marks.prefill and text.endswith(marks.prefill):
                return marks.prefill
        found = _TRAILING_THINK.search(text)
        return found.group() if found else ""

    def plain(self, text: str) -> str:
        """``text`` with a blank inside whatever spells a special token.

        For texts that are quoted to a judge: a response that spells an end of turn or an image
        must not end the judge's turn or show it an image.
        """
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        added: Mapping[int, Any] = self._tokenizer.added_tokens_decoder
        names = {str(token.content) for token in added.values() if token.special}
        if self._processor is not None:
            names.add(self._processor.image_token)
        longest_first = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as it is: no template, no special tokens added.

        Raises:
            DataError: the text holds half of a surrogate pair, which no tokenizer takes.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"character {error.start} is {text[error.start]!a}, half of a "
                            "surrogate pair: the text was cut or decoded wrongly") from None
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _check_images(self, ids: Sequence[int], media: Sequence[Media], where: str) -> None:
        if self._processor is None:
            if media:
                raise ModelError(f"{where}: it has images and the model takes none: "
                                 "use an image-text model")
            return
        found = sum(i == self._processor.image_token_id for i in ids)
        if found != len(media):
            raise DataError(f"{where}: {found} image tokens ({self._processor.image_token}) for "
                            f"{len(media)} images after rendering: give one part per image and "
                            "keep the image token out of the text")


class _Exchange(NamedTuple):
    asked: tuple[Message, ...]
    response: str


def _turns_of(prompt: Prompt) -> list[_Exchange]:
    """What others say and the assistant's response to it, turn by turn."""
    turns: list[_Exchange] = []
    asked: list[Message] = []
    for message in prompt.messages:
        if message.role != "assistant":
            asked.append(message)
        elif not asked:
            raise DataError(f"prompt {prompt.id!r}: the assistant speaks first or twice in a row; "
                            "between its messages stands what it answers")
        else:
            turns.append(_Exchange(tuple(asked), message.text))
            asked = []
    if asked or not turns:
        raise DataError(f"prompt {prompt.id!r}: the last message of a demonstration is the "
                        "assistant's")
    return turns


def _image_parts(message: Message) -> int:
    content = message.content
    return 0 if isinstance(content, str) else sum(part["type"] == "image" for part in content)


def _without_prefill(response: str, prefill: str, where: str) -> str:
    tag = prefill.strip()
    if response.startswith(prefill):
        return response[len(prefill):]
    if response.startswith(tag):
        # "<think>" + text where the template writes "<think>\n": the template's blank stands
        return response[len(tag):].lstrip()
    if _TRAILING_THINK.match(prefill) and tag.endswith(CLOSE) and OPEN not in response:
        return response  # the template writes an empty block: reasoning is switched off
    raise DataError(f"prompt {where!r}: the response must begin with {prefill!r}, which the chat "
                    f"template writes; it begins with {response[:20]!r}")
