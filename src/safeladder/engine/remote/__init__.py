"""The remote engine: sampling from any OpenAI-compatible endpoint (extra ``remote``)."""

from safeladder.engine.remote.endpoint import Endpoint, Usage
from safeladder.engine.remote.sampler import RemoteSampler

__all__ = ["Endpoint", "RemoteSampler", "Usage"]
