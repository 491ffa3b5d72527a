"""The Hugging Face decoder families whose layers this engine computes itself.

:meth:`DecoderSpec.from_model` exposes the live parameters of a Llama-shaped decoder (Llama,
Mistral, Qwen2, Qwen3, alone or as the language model inside LLaVA, InternVL, Qwen2-VL and
Qwen2.5-VL, whose images :mod:`.vision` turns into embeddings). The hand-written sampler and the
packed training forward read them; nothing is copied.

A model is recognised by the classes of its parts, and everything that the fast paths do not
compute makes ``from_model`` return ``None`` (the caller then goes through
the model's own ``forward``): LoRA and quantised linears, forward hooks, parametrisations, sliding
windows, rotary frequencies that depend on the sequence length, activations other than SiLU,
mixed dtypes or devices. :func:`agrees` compares the two paths in numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_DECODERS = {
    "LlamaModel": "llama",
    "MistralModel": "mistral",
    "Qwen2Model": "qwen2",
    "Qwen3Model": "qwen3",
    "Qwen2VLTextModel": "qwen2_vl",
    "Qwen2_5_VLTextModel": "qwen2_5_vl",
}
_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "Qwen2VLRMSNorm",
          "Qwen2_5_VLRMSNorm"}
_ATTENTIONS = {"LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention",
               "Qwen2VLAttention", "Qwen2_5_VLAttention"}
_MLPS = {"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"}
_CAUSAL_LMS = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
               "LlavaForConditionalGeneration", "InternVLForConditionalGeneration",
               "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"}
# Their frequencies are fixed when the model is made; "dynamic" and "longrope" follow the length.
_STATIC_ROPE = {"default", "linear", "llama3", "yarn"}


@dataclass(frozen=True)
class Affine:
    """The live parameters of one ``nn.Linear``: weight (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """``x @ weight.T + bias``."""
        return nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class LayerSpec:
    """The live parameters of one decoder layer."""

    input_norm: Tensor
    """(hidden,) RMSNorm before attention."""
    q: Affine
    """(heads * head_dim, hidden)."""
    k: Affine
    """(kv_heads * head_dim, hidden)."""
    v: Affine
    o: Affine
    q_norm: Tensor | None
    """(head_dim,) RMSNorm of each query head (Qwen3), applied before the rotation."""
    k_norm: Tensor | None
    post_norm: Tensor
    """(hidden,) RMSNorm before the MLP."""
    gate: Affine
    """(intermediate, hidden); the MLP is ``down(silu(gate(x)) * up(x))``."""
    up: Affine
    down: Affine


@dataclass(frozen=True)
class DecoderSpec:
    """A pre-norm decoder with grouped-query attention, rotary positions and a SiLU-gated MLP.

    All tensors are the model's own parameters: what the optimizer writes is seen here at once,
    and gradients flow into them.
    """

    family: str
    layers: tuple[LayerSpec, ...]
    embedding: Tensor
    """(vocabulary, hidden)."""
    final_norm: Tensor
    lm_head: Affine
    tied: bool
    """``lm_head.weight`` is ``embedding``."""
    eps: float
    """Of every RMSNorm."""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scaling: float
    """Factor on q.k, ``head_dim ** -0.5``."""
    attention_dropout: float
    """Applied by the model in training mode; the fast paths compute without dropout."""
    _rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.embedding.shape[1]

    @property
    def intermediate_size(self) -> int:
        """Width of the MLP."""
        return self.layers[0].gate.weight.shape[0]

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self.lm_head.weight.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Of every parameter."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Of every parameter."""
        return self.embedding.device

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return (cos, sin), each (T, head_dim), at integer ``positions`` (T,).

        Families that count along three axes take (3, T) too.

        Computed by the model's own rotary module, scaling included. The rotation is
        ``x * cos + rotate_half(x) * sin`` with ``rotate_half([a, b]) = [-b, a]``.
        """
        probe = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self._rotary(probe, positions[..., None, :])
        return cos[0], sin[0]

    @classmethod
    def from_model(cls, model: nn.Module) -> DecoderSpec | None:
        """Read a Hugging Face model; None where its own forward must be used (see above)."""
        if not _is_one_of(_CAUSAL_LMS, model) or _has_hooks(model):
            return None
        base: Any = model.model
        decoder: Any = getattr(base, "language_model", base)
        head: Any = model.lm_head
        if not _is_one_of(_DECODERS, decoder):
            return None
        config: Any = decoder.config
        norms: list[Any] = [m for m in decoder.modules() if _is_one_of(_NORMS, m)]
        eps = {float(norm.variance_epsilon) for norm in norms}
        tensors = {(p.dtype, p.device) for p in decoder.parameters()}
        if (not _plain_linear(head) or type(decoder.embed_tokens) is not nn.Embedding
                or decoder.embed_tokens.max_norm is not None
                or not _config_supported(config) or len(eps) != 1 or len(tensors) != 1
                or not _is_one_of(_NORMS, decoder.norm)):
            return None
        layers = [_read_layer(layer) for layer in decoder.layers]
        if not layers or any(layer is None for layer in layers):
            return None
        attention = decoder.layers[0].self_attn
        embedding = decoder.embed_tokens.weight
        return cls(
            family=_DECODERS[type(decoder).__name__],
            layers=tuple(layer for layer in layers if layer is not None),
            embedding=embedding, final_norm=decoder.norm.weight, lm_head=_affine(head),
            tied=head.weight is embedding, eps=eps.pop(),
            num_heads=config.num_attention_heads, num_kv_heads=config.num_key_value_heads,
            head_dim=attention.head_dim, scaling=attention.scaling,
            attention_dropout=float(getattr(config, "attention_dropout", 0.0)),
            _rotary=decoder.rotary_emb,
        )


def _config_supported(config: Any) -> bool:
    """Nothing in the config changes the computation beyond what the fast paths know."""
    rope = getattr(config, "rope_parameters", None) or {}
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    mistral_window = config.model_type == "mistral" and config.sliding_window is not None
    return (rope.get("rope_type", "default") in _STATIC_ROPE
            and layer_types == {"full_attention"} and not mistral_window
            and config.hidden_act == "silu")


def _is_one_of(names: Collection[str], *modules: nn.Module) -> bool:
    """All modules are transformers' own classes of these names, not remote code's namesakes."""
    return all(type(m).__name__ in names and type(m).__module__.startswith("transformers.models.")
               for m in modules)


def _has_hooks(model: nn.Module) -> bool:
    """A hook may read or change activations; only the model's own forward honours it.

    Transformers' own output recorders change nothing; accelerate wraps ``forward`` itself.
    """
    recorders = "transformers.utils.output_capturing"
    return any(
        hasattr(module, "_hf_hook") or module._forward_pre_hooks
        or any(getattr(hook, "__module__", "") != recorders
               for hook in module._forward_hooks.values())
        for module in model.modules())


def _plain_linear(module: object) -> bool:
    return type(module) is nn.Linear


def _affine(module: nn.Linear) -> Affine:
    return Affine(module.weight, module.bias)


def _linears(attention: Any, mlp: Any) -> Iterator[nn.Module]:
    yield from (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    yield from (mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _read_layer(layer: Any) -> LayerSpec | None:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    norms += [norm for norm in (q_norm, k_norm) if norm is not None]
    if (not _is_one_of(_ATTENTIONS, attention) or not _is_one_of(_MLPS, mlp)
            or not _is_one_of(_NORMS, *norms)
            or not all(_plain_linear(linear) for linear in _linears(attention, mlp))):
        return None
    return LayerSpec(
        input_norm=layer.input_layernorm.weight,
        q=_affine(attention.q_proj), k=_affine(attention.k_proj), v=_affine(attention.v_proj),
        o=_affine(attention.o_proj),
        q_norm=None if q_norm is None else q_norm.weight,
        k_norm=None if k_norm is None else k_norm.weight,
        post_norm=layer.post_attention_layernorm.weight,
        gate=_affine(mlp.gate_proj), up=_affine(mlp.up_proj), down=_affine(mlp.down_proj),
    )


@torch.no_grad()
def agrees(
    spec: DecoderSpec, model: nn.Module, logits_fn: Callable[[Tensor], Tensor], length: int = 7,
) -> bool:
    """Compare a hand-written forward with the model's own, once, on one short row.

    Args:
        spec: what ``logits_fn`` was built from.
        model: the Hugging Face model.
        logits_fn: maps token ids (T,) to logits (T, vocabulary).
        length: T.

    Returns:
        True if no log-probability differs by more than 1e-3 in fp32 or 0.25 in a 16-bit dtype
        (rounding of the residual stream; a wrong layer is off by far more on any trained model).
    """
    ids = torch.arange(length, device=spec.device) * 7919 % spec.vocab_size
    training = model.training
    model.eval()
    try:
        theirs = model(input_ids=ids[None], use_cache=False).logits[0]
        ours = logits_fn(ids)
    finally:
        model.train(training)
    return near(spec, ours, theirs)


def near(spec: DecoderSpec, ours: Tensor, theirs: Tensor) -> bool:
    """Whether logits are equal as far as rounding allows, as :func:`agrees` has it."""
    gap = (ours.float().log_softmax(-1) - theirs.float().log_softmax(-1)).abs().max().item()
    return bool(gap <= (1e-3 if spec.dtype in (torch.float32, torch.float64) else 0.25))
