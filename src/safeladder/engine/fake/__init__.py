"""The fake engine: no network, instant, exact. Shipped, so that users test with it too.

:class:`FakeSampler` says what a script says; ``engine.fake.trainer`` (it needs torch) trains a
table of next-token logits.
"""

from safeladder.engine.fake.sampler import FakeSampler, LanguageModel, TableModel
from safeladder.engine.fake.script import Script
from safeladder.engine.fake.tokens import ByteTokenizer

__all__ = ["ByteTokenizer", "FakeSampler", "LanguageModel", "Script", "TableModel"]
