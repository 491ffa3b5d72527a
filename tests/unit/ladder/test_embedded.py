"""The embedded tokenizer: one word one token, tags kept, readable by plain transformers."""

import random

from transformers import AutoTokenizer

from safeladder.data.knights_knaves.compact import draw_puzzle, puzzle_text, response_text
from safeladder.ladder.embedded import train_tokenizer


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
