"""The embedded model: a stock architecture from a config, a BPE tokenizer from the corpus.

No model hub is needed: weights start random and the first rung is language pretraining. What it
leaves is an ordinary Hugging Face checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

USER, ASSISTANT, END, PAD, UNKNOWN = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "<|unk|>"
IMAGE_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}" + ASSISTANT + " {{ message['content'] }}" + END +
    "{% else %}" + USER + " {{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + " <think>{% endif %}"
)
"""One special token opens each turn; the assistant's turn is pre-filled with its think tag."""


def train_tokenizer(corpus: Iterable[str], vocab_size: int) -> Any:
    """Train a byte-level BPE tokenizer and wrap it as a ``PreTrainedTokenizerFast``.

    The alphabet is printable ASCII (what the corpus is written in); other bytes become the
    unknown token, which keeps the vocabulary, and with it the output layer, small.

    Args:
        corpus: the texts, in a fixed order (training is deterministic).
        vocab_size: upper bound; fewer are made when the corpus has no further pairs.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    # A word is a blank and what follows it up to the next blank, and so "Ann+" may become one
    # token; a claim ("Bob knave") is a word of its own, as fixed expressions are for large BPEs.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s?\w+ (?:knight|knave)\b|\s?\S+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # Tags and turn marks swallow the blank before them, so that every word of a text is the same
    # token wherever it stands: with one blank in front.
    special = [AddedToken(token, lstrip=True, normalized=False, special=True)
               for token in (PAD, END, USER, ASSISTANT, UNKNOWN)]
    alphabet = ["\u0120", "\u010a", *(chr(code) for code in range(33, 127))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(TAGS), special_tokens=special,
                                  initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((_without_tags(text) for text in corpus), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False)
    # The tags are ordinary tokens: decoding a response keeps them.
    wrapped.add_tokens([AddedToken(tag, lstrip=True, normalized=False, special=False)
                        for tag in TAGS])
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VERIFIER_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}" + ASSISTANT + "{% else %}" + USER + " {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGE + " {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}" + END + "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)
"""Turns as in :data:`CHAT_TEMPLATE`, with images and without a think tag to fill in."""


SEEING_TEMPLATE = VERIFIER_TEMPLATE.replace(
    "{% if message['role'] == 'assistant' %}" + ASSISTANT + "{% else %}",
    "{% if message['role'] == 'assistant' %}" + ASSISTANT + " {% else %}").replace(
    "{% if add_generation_prompt %}" + ASSISTANT, "{% if add_generation_prompt %}" + ASSISTANT
    + " <think>")
"""Turns as in :data:`CHAT_TEMPLATE`, with images."""


def train_seeing_tokenizer(corpus: Iterable[str], vocab_size: int) -> Any:
    """:func:`train_tokenizer` for a model that sees images."""
    tokenizer = _with_images(train_tokenizer(corpus, vocab_size - len(IMAGE_TOKENS)))
    tokenizer.chat_template = SEEING_TEMPLATE
    return tokenizer


def _with_images(tokenizer: Any) -> Any:
    from tokenizers import AddedToken

    tokens = [AddedToken(token, lstrip=True, normalized=False, special=True)
              for token in IMAGE_TOKENS]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return tokenizer


def train_verifier_tokenizer(
    corpus: Iterable[str], vocab_size: int, labels: Iterable[str], images: bool,
) -> Any:
    """:func:`train_tokenizer` for a verifier: every label is one token, images are allowed.

    One-token labels are compared by a single position's outputs.
    """
    from tokenizers import AddedToken

    labels = list(labels)
    tokenizer = train_tokenizer(corpus, vocab_size - len(labels) - len(IMAGE_TOKENS) * images)
    tokenizer.add_tokens([AddedToken(label, single_word=True, normalized=False, special=False)
                          for label in labels])
    if images:
        tokenizer = _with_images(tokenizer)
    tokenizer.chat_template = VERIFIER_TEMPLATE
    return tokenizer


def _without_tags(text: str) -> str:
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text
