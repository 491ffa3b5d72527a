"""A model, its tokenizer and its processor: loading, building from a config, saving.

Nothing here depends on how a model is run: samplers and trainers both start from a
:class:`LoadedModel`.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from safeladder.config import near_miss
from safeladder.engine.local.processors import IMAGE_TOKENS, load_processor, make_processor
from safeladder.errors import CheckpointError, ConfigError, MissingExtra, ModelError
from safeladder.files import atomic_folder


@dataclass(frozen=True)
class LoraParams:
    """Low-rank adapters (arXiv 2106.09685): W x + (alpha / rank) B A x, B starts at zero.

    There is no dropout: log-probabilities of one set of weights must be one thing.
    """

    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] | str = "all-linear"
    """Names of the modules to adapt, as peft takes them."""
    seed: int = 0
    """Of the random A."""


@dataclass
class LoadedModel:
    """A Hugging Face model in evaluation mode, with what turns text and images into its inputs."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None = None
    """Only models that take images have one."""
    adapters: nn.Module | None = None
    """peft's wrapper around ``model`` where it has adapters; needed to merge them."""

    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration."""
        return cast(PretrainedConfig, self.model.config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.model.parameters()).dtype



def load_model(
    path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu",
    lora: LoraParams | None = None,
) -> LoadedModel:
    """Load a Hugging Face folder or hub id; image-text models come with their processor.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit the config.
        MissingExtra: ``lora`` is given and peft is not installed.
    """
    return _finish(_load(str(path), dtype, headless=False), device, lora)


def load_backbone(path: str | Path) -> LoadedModel:
    """As :func:`load_model` (fp32, CPU), for a folder whose output layer is missing or another.

    The output layer of the model returned is random where the folder has none.

    Raises:
        CheckpointError: anything else is missing or damaged.
    """
    return _finish(_load(str(path), torch.float32, headless=True), "cpu", None)


def _load(name: str, dtype: torch.dtype, headless: bool) -> LoadedModel:
    if (Path(name).is_absolute() or name.startswith(".")) and not Path(name).is_dir():
        raise CheckpointError(f"there is no model folder {name}: check the path")
    with _readable(name), quiet(warnings=not headless):
        config = AutoConfig.from_pretrained(name)
        multimodal = _takes_images(config)
        factory: Any = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        model, info = factory.from_pretrained(name, dtype=dtype, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
        processor = load_processor(name, tokenizer) if multimodal else None
    problems = [key for key in (*info["missing_keys"], *info["mismatched_keys"])
                if not (headless and str(key).startswith("lm_head."))]
    if problems:
        # transformers would go on with random weights in these places
        raise CheckpointError(
            f"{name}: {len(problems)} weights are missing or have another shape than the config "
            f"says, the first is {problems[0]}; copy the checkpoint again")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # transformers makes an empty one where the files are missing
        raise CheckpointError(f"cannot load the model {name}: its tokenizer files are missing; "
                              "copy the checkpoint again")
    return LoadedModel(model, tokenizer, processor)


def build_model(
    config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int,
    processor: ProcessorMixin | None = None,
) -> LoadedModel:
    """Make a stock architecture with random weights (fp32, CPU), e.g. ``{"model_type": "qwen3",
    "hidden_size": 128, ...}``.

    Vocabulary size and special tokens come from the tokenizer where the config does not say. An
    image-text model whose tokenizer has Qwen2.5-VL's image tokens gets its processor made.
    The same seed gives the same weights, and the caller's random state is left alone.

    Raises:
        ConfigError: unknown ``model_type`` or key, or fewer embeddings than the tokenizer has ids.
    """
    settings = dict(config)
    model_type = settings.pop("model_type", None)
    text = settings.get("text_config")
    target = dict(text) if isinstance(text, Mapping) else settings
    target.setdefault("vocab_size", len(tokenizer))
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        target.setdefault(key, getattr(tokenizer, key))
    if target["vocab_size"] < len(tokenizer):
        raise ConfigError(f"model.vocab_size {target['vocab_size']} is less than the tokenizer's "
                          f"{len(tokenizer)} ids: leave it out or enlarge it")
    own_processor = processor is None and IMAGE_TOKENS[0] in tokenizer.get_vocab()
    if text is not None:
        settings["text_config"] = target
        if own_processor:
            settings = _image_token_ids(tokenizer) | settings
    _check_keys(model_type, settings)
    full = AutoConfig.for_model(model_type, **settings)
    factory: Any = AutoModelForImageTextToText if _takes_images(full) else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = factory.from_config(full, dtype=torch.float32)
    if own_processor and _takes_images(full):
        processor = make_processor(full, tokenizer)
    return _finish(LoadedModel(model, tokenizer, processor), "cpu", None)


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise :class:`ModelError` when ``tokenizer`` cannot render chat messages."""
    if not tokenizer.chat_template:
        raise ModelError(f"{name} has no chat template: use its instruct version, or put a "
                         "chat_template.jinja into its folder")


def save_checkpoint(loaded: LoadedModel, path: Path) -> None:
    """Write a folder that plain ``AutoModelForCausalLM``/``AutoTokenizer`` load.

    Adapters are merged into a copy of the weights, so training goes on unchanged. The folder
    appears whole or not at all.

    Raises:
        StorageError: ``path`` exists or cannot be written.
    """
    model: Any = loaded.model
    if loaded.adapters is not None:
        model = copy.deepcopy(cast(Any, loaded.adapters)).merge_and_unload()
    with atomic_folder(Path(path)) as folder, quiet():
        model.save_pretrained(folder)
        save_tokenizer(loaded, folder)


def save_tokenizer(loaded: LoadedModel, folder: Path) -> None:
    """Write the tokenizer, and the processor of a model that takes images, into ``folder``."""
    loaded.tokenizer.save_pretrained(folder)
    if loaded.processor is not None:
        loaded.processor.save_pretrained(folder)


def with_lora(loaded: LoadedModel, lora: LoraParams) -> LoadedModel:
    """Freeze the weights and add adapters, which alone are trained.

    B starts at zero, so the outputs are still the model's own.

    Raises:
        MissingExtra: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("peft", "peft", "LoRA") from error
    targets = lora.target_modules
    model: Any = loaded.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lora.seed)
        wrapped: Any = get_peft_model(model, LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0,
            target_modules=targets if isinstance(targets, str) else list(targets)))
    # the model inside now holds the adapters, and still has its own forward's signature
    return replace(loaded, model=wrapped.get_base_model(), adapters=wrapped)


def freeze(loaded: LoadedModel, modules: Sequence[str]) -> LoadedModel:
    """Take modules out of training, by a name on their path (``visual``, ``vision_tower``).

    Raises:
        ConfigError: no parameter is under that name.
    """
    for module in modules:
        mine = [parameter for name, parameter in loaded.model.named_parameters()
                if module in name.split(".")]
        if not mine:
            known = {part for name, _ in loaded.model.named_parameters()
                     for part in name.split(".")[:-1]}
            raise ConfigError(f"freeze: the model has no module {module!r}"
                              f"{near_miss(module, sorted(known))}")
        for parameter in mine:
            parameter.requires_grad_(False)
    return loaded


def _finish(
    loaded: LoadedModel, device: str | torch.device, lora: LoraParams | None,
) -> LoadedModel:
    if lora is not None:
        loaded = with_lora(loaded, lora)
    # evaluation mode for good: dropout would make trainer and sampler two different models
    loaded.model.to(device).eval()
    return loaded


def _takes_images(config: PretrainedConfig) -> bool:
    return (getattr(config, "vision_config", None) is not None
            and config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def _image_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = [tokenizer.convert_tokens_to_ids(token) for token in IMAGE_TOKENS]
    return dict(zip(names, ids, strict=True))


def _check_keys(model_type: object, settings: Mapping[str, Any], where: str = "model") -> None:
    try:
        known = {*AutoConfig.for_model(str(model_type)).to_dict(), "rope_theta"}
    except ValueError as error:
        raise ConfigError(f"{where}.model_type {model_type!r} is not an architecture that "
                          "transformers knows; 'qwen3' is one") from error
    for key, value in settings.items():
        # a config swallows any key, so a typing error would train another model unnoticed
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}.{key} is not a setting of {model_type}{hint}")
        if isinstance(value, Mapping) and "model_type" in value:
            _check_keys(value["model_type"], value, f"{where}.{key}")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what a damaged or missing checkpoint raises into one clear line."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{name}: the weights are damaged ({error}); "
                              "copy the checkpoint again") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        line = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointError(f"cannot load the model {name}: {line}") from error


@contextmanager
def quiet(warnings: bool = True) -> Iterator[None]:
    """Keep transformers' bars, and without ``warnings`` these too, off the caller's terminal."""
    bars: Any = transformers_logging
    shown, level = bars.is_progress_bar_enabled(), bars.get_verbosity()
    bars.disable_progress_bar()
    if not warnings:
        bars.set_verbosity_error()
    try:
        yield
    finally:
        bars.set_verbosity(level)
        if shown:
            bars.enable_progress_bar()
