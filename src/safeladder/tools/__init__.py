"""Tools: what an environment lets a policy use."""

from safeladder.tools.search import SearchTool

__all__ = ["SearchTool"]
