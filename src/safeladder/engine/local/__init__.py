"""The reference engine: one process, torch and a Hugging Face model."""

from safeladder.engine.local.models import (
    LoadedModel,
    LoraParams,
    build_model,
    load_model,
    save_checkpoint,
)
from safeladder.engine.local.trainer import LocalTrainer

__all__ = ["LoadedModel", "LocalTrainer", "LoraParams", "build_model", "load_model",
           "save_checkpoint"]
