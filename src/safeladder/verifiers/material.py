"""What a model that judges is shown beside the response."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safeladder.errors import DataError
from safeladder.types import Prompt


def reference_text(prompt: Prompt) -> str:
    """The reference as text: as it is, alternatives with " / " between them, a mapping's
    ``answer`` where nothing of it is needed to understand that (``options`` are), or JSON.

    Raises:
        DataError: there is none.
    """
    reference = prompt.reference
    if reference is None:
        raise DataError(f"prompt {prompt.id!r} has no reference, and this verifier shows one")
    if (isinstance(reference, Mapping) and "options" not in reference
            and isinstance(reference.get("answer"), str)):
        reference = reference["answer"]
    if isinstance(reference, str):
        return reference.strip()
    if isinstance(reference, list | tuple) and all(isinstance(item, str) for item in reference):
        return " / ".join(reference)
    return json.dumps(reference, ensure_ascii=False)
