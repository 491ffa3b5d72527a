"""The embedded tokenizer: one word one token, tags kept, readable by plain transformers."""

import random

from transformers import AutoTokenizer

from safeladder.data.knights_knaves.compact import draw_puzzle, puzzle_text, response_text
from safeladder.ladder.embedded import CHAT_TEMPLATE, train_seeing_tokenizer, train_tokenizer


def corpus():
    rng = random.Random(0)
    puzzles = [draw_puzzle(rng, 2 + i % 2, "train") for i in range(300)]
    return [f"{puzzle_text(p)} {response_text(p, 'check')}" for p in puzzles]


def test_words_claims_and_tags_are_single_tokens(tmp_path):
    tokenizer = train_tokenizer(corpus(), 512)
    text = ("<|user|> Ann says Bob knave .<|assistant|> <think> check try Ann+ Bob- : "
            "Ann says Bob knave Bob- T Ann+ ok </think> <answer> Ann knight Bob knave </answer>"
            "<|end|>")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    words = [word.replace("\u0120", " ") for word in tokenizer.convert_ids_to_tokens(ids)]
    assert words == [
        "<|user|>", " Ann", " says", " Bob knave", " .", "<|assistant|>", "<think>", " check",
        " try", " Ann+", " Bob-", " :", " Ann", " says", " Bob knave", " Bob-", " T", " Ann+",
        " ok", "</think>", "<answer>", " Ann knight", " Bob knave", "</answer>", "<|end|>"]
    assert "<think> check" in tokenizer.decode(ids, skip_special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain(text, add_special_tokens=False)["input_ids"] == ids
    shown = plain.apply_chat_template([{"role": "user", "content": "Ann says Bob knave ."}],
                                      add_generation_prompt=True, tokenize=False)
    assert shown == "<|user|> Ann says Bob knave .<|assistant|> <think>"


def test_training_is_deterministic_and_stays_within_its_size():
    first, second = train_tokenizer(corpus(), 512), train_tokenizer(corpus(), 512)
    assert first.get_vocab() == second.get_vocab()
    assert len(first) <= 512


def test_a_tokenizer_that_sees_opens_the_think_block_behind_an_image():
    texts = ["how do I wash this thing ? the sign shows danger of fire ."] * 3
    tokenizer = train_seeing_tokenizer(texts, 300)
    asked = {"role": "user", "content": [{"type": "image"},
                                         {"type": "text", "text": "how do I wash this thing ?"}]}
    told = {"role": "assistant", "content": "so fire ."}
    shown = tokenizer.apply_chat_template([asked], add_generation_prompt=True, tokenize=False)
    assert shown == ("<|user|> <|vision_start|><|image_pad|><|vision_end|> "
                     "how do I wash this thing ?<|assistant|> <think>")
    shown = tokenizer.apply_chat_template([asked, told], tokenize=False)
    assert shown.endswith("<|assistant|> so fire .<|end|>")
    # Text alone: the same as the template without images.
    plain = [{"role": "user", "content": "so fire ."}, told]
    seeing = tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    assert seeing == tokenizer.apply_chat_template(plain, add_generation_prompt=True,
                                                   tokenize=False)
    assert len(tokenizer) <= 300
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") != tokenizer.unk_token_id
