import pytest

from safeladder.data.rendered import rendered_turns
from safeladder.types import Message

ASK = (Message("system", "Think."), Message("user", "Who?"))
USER = ASK[1:]
BAR, SPACE = "\uff5c", "\u2581"


@pytest.mark.parametrize(("text", "turns"), [
    ("<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
     "<|im_start|>assistant\n", ASK),
    ("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", USER),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
     "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant",
     (Message("user", "Hi"), Message("assistant", "Hello"), *USER)),
    ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nThink.<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n", ASK),
    ("<bos><start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n", USER),
    ("<|system|>\nThink.</s>\n<|user|>\nWho?</s>\n<|assistant|>\n", ASK),
    ("<|user|>\nWho?<|end|>\n<|assistant|>\n", USER),
    ("<s>[INST] Who? [/INST]", USER),
    (f"<{BAR}begin{SPACE}of{SPACE}sentence{BAR}><{BAR}User{BAR}>Who?<{BAR}Assistant{BAR}><think>\n",
     USER),
    ("Think.\n\nUser:Who?\nAssistant: <think>", ASK),
])
def test_chat_strings_are_recognised(text, turns):
    assert rendered_turns(text) == turns


@pytest.mark.parametrize("text", [
    "Who?", "", "What does <|im_start|>assistant mean?",
    # A whole conversation is no prompt: nothing is left open.
    "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nAnn<|im_end|>",
    "<|im_start|>assistant\n",
    "Explain: <|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n",
    "[INST] is a tag of which model?", "<|user|> is a tag", "<start_of_turn>user\nWho?",
    "User: hi\nAssistant: hello\nWho spoke last?",
])
def test_other_text_is_not(text):
    assert rendered_turns(text) is None
