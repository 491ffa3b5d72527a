"""A language model whose output layer has one row per class.

Such a model is trained by the ordinary trainer: a training row is the prompt followed by ONE
trained token, the number of its class, and the log-probability of that token is that of the class.
The last token's hidden state is what the head sees.

On disk a text classifier is what ``AutoModelForSequenceClassification`` loads, where the family has
such a class; of other models (image-text ones) the backbone is saved as ``AutoModel`` loads it, and
the head beside it in ``classifier_head.safetensors`` (``score.weight``, (classes, hidden)).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from safeladder.engine.local.models import LoadedModel, load_backbone, quiet, save_tokenizer
from safeladder.errors import CheckpointError, ModelError
from safeladder.files import atomic_folder

HEAD_FILE, HEAD_KEY = "classifier_head.safetensors", "score.weight"


@dataclass(frozen=True)
class Classifier:
    """A model with a classification head, and what its outputs are called."""

    loaded: LoadedModel
    """Its "vocabulary" of outputs is the classes; its tokenizer is the backbone's."""
    classes: tuple[str, ...]


def with_head(
    loaded: LoadedModel, classes: Sequence[str], seed: int,
    token_ids: Sequence[int] | None = None,
) -> Classifier:
    """Replace the output layer of ``loaded`` (in place), a row per class.

    Args:
        loaded: a language model.
        classes: what the rows are called.
        seed: of random rows.
        token_ids: (classes,) tokens whose output rows the head begins with, for a model that has
            learned to write them (a bias of the output layer is left out); None: random rows.

    Raises:
        ModelError: the model has no output layer that could be replaced.
    """
    model: Any = loaded.model
    old = getattr(model, "get_output_embeddings", lambda: None)()
    if not isinstance(old, nn.Linear):
        raise ModelError(f"{loaded.config.model_type} has no linear output layer to put a head on")
    head = nn.Linear(old.in_features, len(classes), bias=False, device=old.weight.device,
                     dtype=old.weight.dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if token_ids is None:
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.02)
        else:
            head.weight.copy_(old.weight[list(token_ids)])
    model.set_output_embeddings(head)
    return Classifier(loaded, tuple(classes))


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write the folder that the module's docstring describes, tokenizer included.

    Raises:
        StorageError: ``path`` exists or cannot be written.
    """
    loaded = classifier.loaded
    model: Any = loaded.model
    if loaded.adapters is not None:
        adapters: Any = copy.deepcopy(loaded.adapters)
        model = adapters.merge_and_unload()
    head: Tensor = model.get_output_embeddings().weight.detach()
    whole = _sequence_classifier(model, head, classifier.classes)
    with atomic_folder(Path(path)) as folder, quiet():
        if whole is not None:
            whole.save_pretrained(folder)
        else:
            model.base_model.save_pretrained(folder)
            save_file({HEAD_KEY: head.contiguous()}, folder / HEAD_FILE)
        save_tokenizer(loaded, folder)


def load_classifier(
    path: str | Path, classes: Sequence[str], device: str | torch.device = "cpu",
) -> Classifier:
    """Load what :func:`save_classifier` wrote, or any sequence-classification checkpoint of a
    decoder (its head is ``score.weight``).

    Raises:
        CheckpointError: a file is missing or damaged, there is no head, or it has other classes.
    """
    folder = Path(path)
    loaded = load_backbone(folder)
    head = _read_head(folder)
    if len(head) != len(classes):
        raise CheckpointError(f"{path}: its head has {len(head)} outputs, "
                              f"not {len(classes)} ({', '.join(classes)})")
    labels = AutoConfig.from_pretrained(folder).id2label
    named = [labels.get(i) for i in range(len(classes))]
    own_form = (folder / HEAD_FILE).exists()  # its config says nothing of classes
    if not own_form and named != list(classes) and not _unnamed(named):
        raise CheckpointError(f"{path}: its outputs are {', '.join(map(str, named))}, "
                              f"not {', '.join(classes)}")
    classifier = with_head(loaded, classes, seed=0)
    model: Any = loaded.model
    with torch.no_grad():
        model.get_output_embeddings().weight.copy_(head)
    loaded.model.to(device).eval()
    return replace(classifier, loaded=loaded)


def _sequence_classifier(model: Any, head: Tensor, classes: Sequence[str]) -> Any:
    """The same weights as transformers' own classifier of the family; None where it has none."""
    config = copy.deepcopy(model.config)
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: i for i, name in enumerate(classes)}
    if getattr(config, "pad_token_id", None) is None:
        return None
    factory: Any = AutoModelForSequenceClassification
    try:
        with torch.random.fork_rng(devices=[]):
            whole = factory.from_config(config, dtype=head.dtype)
    except ValueError:  # the family has no such class
        return None
    score = getattr(whole, "score", None)
    if not isinstance(score, nn.Linear) or type(whole.base_model) is not type(model.base_model):
        return None
    whole.base_model.load_state_dict(model.base_model.state_dict())
    with torch.no_grad():
        score.weight.copy_(head)
    return whole


def _read_head(folder: Path) -> Tensor:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if HEAD_KEY in tensors.keys():  # noqa: SIM118  # no mapping, it has keys() alone
                head: Tensor = tensors.get_tensor(HEAD_KEY)
                return head
    raise CheckpointError(f"{folder}: no classification head ({HEAD_KEY}) in its weights")


def _unnamed(labels: Sequence[object]) -> bool:
    return all(str(label).startswith("LABEL_") for label in labels)
