from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from render_fixtures import CHATML

from safeladder.render import Renderer, StreamDecoder, decode_after
from safeladder.types import Message, Prompt

FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@FIXTURE
@given(text=st.text(max_size=60), context=st.text("ab é€😀 ", max_size=8))
def test_streamed_text_is_the_text(tokenizer: Any, text: str, context: str) -> None:
    before = tokenizer(context, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoder = StreamDecoder(tokenizer, before)
    pieces = [decoder.push(i) for i in ids] + [decoder.flush()]
    assert "".join(pieces) == text == decode_after(tokenizer, before, ids)


def test_a_character_of_several_tokens_comes_whole(tokenizer: Any) -> None:
    ids = tokenizer("é😀", add_special_tokens=False)["input_ids"]
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(i) for i in ids]
    assert len(ids) == 6
    assert pieces == ["", "é", "", "", "", "😀"]


def test_bytes_that_make_no_character_appear_at_the_end(tokenizer: Any) -> None:
    ids = tokenizer("é", add_special_tokens=False)["input_ids"]
    decoder = StreamDecoder(tokenizer)
    assert decoder.push(ids[0]) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_the_blank_before_the_first_word_is_streamed(blank_dropping_tokenizer: Any) -> None:
    tokenizer = blank_dropping_tokenizer
    ids = tokenizer("it is four .", add_special_tokens=False)["input_ids"]
    decoder = StreamDecoder(tokenizer, ids[:1])
    assert "".join([*map(decoder.push, ids[1:]), decoder.flush()]) == " is four ."


def test_a_renderers_decoder_starts_behind_its_prompt(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=CHATML)
    rendered = renderer.render(Prompt(id="1", messages=(Message("user", "q"),)))
    decoder = renderer.stream_decoder(rendered)
    ids = tokenizer("four<|im_end|>", add_special_tokens=False)["input_ids"]
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == "four<|im_end|>"
