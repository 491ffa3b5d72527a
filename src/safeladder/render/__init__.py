"""Render: messages to token ids and back."""

from safeladder.render.decode import StreamDecoder, Tokenizer, decode_after
from safeladder.render.renderer import Demonstration, RenderedPrompt, Renderer
from safeladder.render.template import ChatTemplate, TurnMarks, read_template
from safeladder.render.think import Piece, ThinkSplit, ThinkStream, split_think

__all__ = [
    "ChatTemplate", "Demonstration", "Piece", "RenderedPrompt", "Renderer", "StreamDecoder",
    "ThinkSplit", "ThinkStream", "Tokenizer", "TurnMarks", "decode_after", "read_template",
    "split_think",
]
