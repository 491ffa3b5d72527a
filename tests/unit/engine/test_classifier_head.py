"""A classification head: on disk as transformers has it, trained by the ordinary trainer."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_decoders import tiny, tiny_with_images
from transformers import AutoModel, AutoModelForSequenceClassification

from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.engine.base import OptimParams
from safeladder.engine.local.classifier import (
    HEAD_FILE,
    Classifier,
    load_classifier,
    save_classifier,
    with_head,
)
from safeladder.engine.local.models import LoadedModel, build_model
from safeladder.engine.local.scorer import LocalScorer
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.errors import CheckpointError
from safeladder.ladder.embedded import train_verifier_tokenizer
from safeladder.train.sft import training_row
from safeladder.types import Datum, Media

CLASSES = ("yes", "no", "maybe")
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 128}
IMAGE = Media(pixels=np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))


def text_model() -> LoadedModel:
    tokenizer = train_verifier_tokenizer(["is it so ?"], 300, CLASSES, images=False)
    return build_model({"model_type": "qwen3", "head_dim": 8, **TEXT}, tokenizer, seed=0)


def image_model() -> LoadedModel:
    tokenizer = train_verifier_tokenizer(["is it so ?"], 300, CLASSES, images=True)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 1, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2,
              "intermediate_size": 32, "patch_size": 4, "spatial_merge_size": 2,
              "temporal_patch_size": 1, "window_size": 16, "fullatt_block_indexes": [0]}
    return build_model({"model_type": "qwen2_5_vl", "tie_word_embeddings": True,
                        "text_config": {**TEXT, "rope_parameters": rope},
                        "vision_config": vision}, tokenizer, seed=0)


def score(classifier: Classifier, ids: list[int], *media: Media) -> np.ndarray:
    return asyncio.run(LocalScorer(classifier.loaded).score(ids, media))


def test_a_text_classifier_is_loaded_by_plain_transformers(tmp_path: Path) -> None:
    classifier = with_head(text_model(), CLASSES, seed=1)
    ids = [5, 6, 7, 8]
    ours = score(classifier, ids)
    save_classifier(classifier, tmp_path / "c")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "c")
    assert plain.config.id2label == dict(enumerate(CLASSES))
    with torch.no_grad():
        theirs = plain(input_ids=torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    again = load_classifier(tmp_path / "c", CLASSES)
    np.testing.assert_array_equal(score(again, ids), ours)


def test_an_image_text_classifier_keeps_backbone_head_and_processor(tmp_path: Path) -> None:
    loaded = image_model()
    classifier = with_head(loaded, CLASSES, seed=1)
    ids = [5, loaded.processor.image_token_id, 7]  # type: ignore[union-attr]  # image model
    ours = score(classifier, ids, IMAGE)
    save_classifier(classifier, tmp_path / "c")
    assert (tmp_path / "c" / HEAD_FILE).exists()
    assert type(AutoModel.from_pretrained(tmp_path / "c")).__name__ == "Qwen2_5_VLModel"
    again = load_classifier(tmp_path / "c", CLASSES)
    np.testing.assert_allclose(score(again, ids, IMAGE), ours, atol=1e-6)


def test_a_head_can_begin_with_the_rows_of_label_tokens() -> None:
    loaded = text_model()
    ids = [loaded.tokenizer.convert_tokens_to_ids(name) for name in CLASSES]
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1, ids]
    classifier = with_head(loaded, CLASSES, 0, ids)
    np.testing.assert_allclose(score(classifier, [5, 6, 7]), logits.numpy(), atol=1e-5)


def test_other_classes_or_no_head_are_refused(tmp_path: Path) -> None:
    save_classifier(with_head(text_model(), CLASSES, seed=1), tmp_path / "c")
    with pytest.raises(CheckpointError, match="its outputs are yes, no, maybe, not no, yes, maybe"):
        load_classifier(tmp_path / "c", ("no", "yes", "maybe"))
    with pytest.raises(CheckpointError, match="3 outputs, not 2"):
        load_classifier(tmp_path / "c", ("yes", "no"))


def class_row(ids: list[int], number: int, media: tuple[Media, ...] = ()) -> Datum:
    mask = np.zeros(len(ids) + 1, np.float32)
    mask[-1] = 1
    return training_row([*ids, number], mask, media)


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_the_loss_is_the_cross_entropy_of_the_classes(name: str) -> None:
    classifier = with_head(tiny(name), CLASSES, seed=2)
    trainer = LocalTrainer(classifier.loaded)
    rows = [class_row([5, 6, 7], 2), class_row([9, 10], 0)]
    z = [score(classifier, [5, 6, 7]), score(classifier, [9, 10])]
    expected = sum(math.log(np.exp(v).sum()) - v[k] for v, k in zip(z, (2, 0), strict=True))
    stats = asyncio.run(trainer.forward_backward(rows, NegativeLogLikelihood()))
    assert stats.sums["loss"] == pytest.approx(expected, abs=1e-4)
    assert trainer.is_packed == (name == "qwen3")


def test_training_moves_head_and_backbone_with_images() -> None:
    loaded = tiny_with_images("qwen2.5-vl")
    classifier = with_head(loaded, CLASSES, seed=2)
    trainer = LocalTrainer(loaded)
    image = Media(pixels=IMAGE.pixels[:8, :8])  # type: ignore[index]  # has pixels
    rows = [class_row([5, 58, 7], 1, (image,)), class_row([5, 6, 7], 0)]
    seen = loaded.model.model.visual.patch_embed.proj.weight  # type: ignore[union-attr]
    before = seen.detach().clone()  # type: ignore[operator]

    async def train() -> None:
        for _ in range(12):
            await trainer.forward_backward(rows, NegativeLogLikelihood())
            await trainer.optim_step(OptimParams(3e-3))
    asyncio.run(train())
    assert not torch.equal(before, seen)  # type: ignore[arg-type]
    assert score(classifier, [5, 58, 7], image).argmax() == 1
    assert score(classifier, [5, 6, 7]).argmax() == 0
