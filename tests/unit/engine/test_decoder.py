"""The hand-written forward against the models' own."""

from __future__ import annotations

import pytest
import torch
from tiny_decoders import KNOWN, UNKNOWN, VOCAB, prompts, tiny
from torch import nn

from safeladder.engine.local.decoder import FastDecoder
from safeladder.engine.local.families import DecoderSpec, agrees


@torch.no_grad()
def own_logits(model: nn.Module, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def spec_of(name: str) -> tuple[DecoderSpec, nn.Module]:
    loaded = tiny(name)
    spec = DecoderSpec.from_model(loaded.model)
    assert spec is not None
    return spec, loaded.model


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("packed", [True, False])
@torch.inference_mode()
def test_encode_and_step_equal_the_model(
    name: str, packed: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not packed:
        monkeypatch.setattr("safeladder.engine.local.decoder._PACKED_LIMIT", 0)
    spec, model = spec_of(name)
    decoder = FastDecoder(spec)
    assert decoder.owns_weights == packed
    rows = prompts(5, 9, 2)
    encoded = decoder.encode(rows)
    for p, row in enumerate(rows):
        torch.testing.assert_close(decoder.logits(encoded.hidden[p, : len(row)]),
                                   own_logits(model, row), atol=2e-4, rtol=1e-4)
    cache = decoder.new_cache()
    cache.admit(encoded.spans, [1, 1, 1])
    for step in range(4):
        for row in rows:
            row.append((11 * len(row) + step) % VOCAB)
        logits = decoder.step(torch.tensor([row[-1] for row in rows]), cache)
        for r, row in enumerate(rows):
            torch.testing.assert_close(logits[r], own_logits(model, row)[-1], atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_encoding_after_a_cached_prefix_equals_encoding_all() -> None:
    spec, _ = spec_of("qwen3")
    decoder = FastDecoder(spec)
    long, short = prompts(12, 7)
    whole = decoder.encode([long, short])
    rest = decoder.encode([long[8:], short], [whole.spans[0].first(8), None])
    torch.testing.assert_close(rest.hidden[0, :4], whole.hidden[0, 8:])
    torch.testing.assert_close(rest.hidden[1, :7], whole.hidden[1, :7])
    for part, full in zip(rest.spans, whole.spans, strict=True):
        torch.testing.assert_close(tuple(part), tuple(full))


def test_spec_reads_live_parameters_and_gradients_flow_into_them() -> None:
    spec, model = spec_of("qwen3")
    assert spec.tied and spec.layers[0].q_norm is not None and spec.vocab_size == VOCAB
    spec.layers[1].down(torch.ones(1, 48)).sum().backward()
    gradient = model.get_submodule("model.layers.1.mlp.down_proj").weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_models_have_no_spec(name: str) -> None:
    assert DecoderSpec.from_model(tiny(name).model) is None


def test_changed_layers_have_no_spec() -> None:
    model = tiny("qwen3").model
    handle = model.get_submodule("model.layers.0").register_forward_hook(lambda *_: None)
    assert DecoderSpec.from_model(model) is None
    handle.remove()
    assert DecoderSpec.from_model(model) is not None
    nn.utils.parametrizations.weight_norm(model.get_submodule("model.layers.0.mlp.up_proj"))
    assert DecoderSpec.from_model(model) is None


def test_lora_has_no_spec() -> None:
    peft = pytest.importorskip("peft")
    model = tiny("qwen3").model
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    assert DecoderSpec.from_model(wrapped) is None
    assert DecoderSpec.from_model(model) is None


def test_agrees_notices_a_wrong_forward() -> None:
    spec, model = spec_of("llama")
    decoder = FastDecoder(spec)
    assert agrees(spec, model, decoder.sequence_logits)
    assert not agrees(spec, model, lambda ids: decoder.sequence_logits(ids).roll(1, -1))


def test_a_packed_decoder_keeps_its_version() -> None:
    spec, model = spec_of("llama")
    decoder = FastDecoder(spec)
    row = prompts(6)[0]
    before = own_logits(model, row)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    with torch.inference_mode():
        after = decoder.logits(decoder.encode([row]).hidden[0])
    torch.testing.assert_close(after, before, atol=2e-4, rtol=1e-4)
    assert (own_logits(model, row) - before).abs().max() > 0.1


@torch.inference_mode()
def test_bf16_stays_near_fp32() -> None:
    _, model = spec_of("qwen3")
    row = prompts(20)[0]
    exact = own_logits(model, row).log_softmax(-1)
    half = tiny("qwen3")
    half.model.to(torch.bfloat16)
    rounded = DecoderSpec.from_model(half.model)
    assert rounded is not None
    ours = FastDecoder(rounded).sequence_logits(torch.tensor(row)).log_softmax(-1)
    theirs = own_logits(half.model, row).float().log_softmax(-1)
    # Both round to 8 bits of mantissa, in different places.
    assert (ours - exact).abs().mean() < 2 * (theirs - exact).abs().mean()
