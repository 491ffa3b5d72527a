"""The compiled parts of a decode step against torch operators."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_decoders import KNOWN, prompts, tiny
from torch.nn import functional

from safeladder.engine.local import native
from safeladder.engine.local.decoder import FastDecoder
from safeladder.engine.local.families import DecoderSpec
from safeladder.engine.local.native import CacheRows, HeadShape, Kernels


@pytest.fixture(scope="module")
def compiled() -> Kernels:
    kernels = native.kernels()
    if kernels is None:
        pytest.skip("no C compiler on this machine")
    return kernels


@pytest.mark.parametrize("width", [1, 7, 24, 128, 200])
def test_rms_norm_and_silu_mul(compiled: Kernels, width: int) -> None:
    torch.manual_seed(width)
    x, weight = 3 * torch.randn(5, width), torch.randn(width)
    out = torch.empty_like(x)
    compiled.rms_norm(x, weight, 1e-6, out)
    torch.testing.assert_close(out, functional.rms_norm(x, (width,), weight, 1e-6))
    gate, up = 8 * torch.randn(5, width), torch.randn(5, width)
    gate[0, 0], gate[1, 0] = 90.0, -90.0
    compiled.silu_mul(torch.cat((gate, up), dim=1), out)
    torch.testing.assert_close(out, functional.silu(gate) * up, atol=1e-6, rtol=2e-6)


@pytest.mark.parametrize(("dim", "heads", "kv_heads"), [
    (32, 4, 2), (32, 3, 1), (24, 4, 4), (6, 4, 2), (16, 2, 2), (64, 8, 2), (128, 5, 1), (40, 2, 1)])
@pytest.mark.parametrize("normed", [True, False])
def test_attend(compiled: Kernels, dim: int, heads: int, kv_heads: int, normed: bool) -> None:
    torch.manual_seed(dim)
    shape = HeadShape(heads, kv_heads, dim, 1e-6, dim**-0.5)
    columns, end = 150, 140
    lengths = [1, 2, 15, 16, 17, 63, 64, 65, 80, 140]
    starts = torch.tensor([end - length for length in lengths])
    keys = torch.randn(len(lengths), kv_heads, columns, dim)
    values = torch.randn(len(lengths), kv_heads, columns, dim)
    qkv = torch.randn(len(lengths), (heads + 2 * kv_heads) * dim)
    weight = torch.rand(heads + kv_heads, dim) + 0.5 if normed else None
    angles = torch.rand(columns, dim) * 6
    out = torch.empty(len(lengths), heads * dim)
    before = keys.clone(), values.clone()
    compiled.attend(shape, qkv, weight, (angles.cos(), angles.sin()),
                    CacheRows(keys, values, starts, end), out)
    qk, v = qkv.view(len(lengths), -1, dim).split([heads + kv_heads, kv_heads], dim=1)
    if weight is not None:
        qk = qk * (qk.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight
    position = torch.tensor(lengths) - 1
    swapped = torch.cat((qk[..., dim // 2:], qk[..., : dim // 2]), dim=-1)
    qk = qk * angles.cos()[position, None] + swapped * angles.sin()[position, None]
    for old, new, written in ((before[0], keys, qk[:, heads:]), (before[1], values, v)):
        torch.testing.assert_close(new[:, :, end - 1], written, atol=1e-5, rtol=1e-5)
        old[:, :, end - 1] = new[:, :, end - 1]
        assert torch.equal(old, new)
    for r, start in enumerate(starts.tolist()):
        expected = functional.scaled_dot_product_attention(
            qk[r, :heads, None], keys[r, :, start:end], values[r, :, start:end],
            scale=shape.scaling, enable_gqa=True)
        torch.testing.assert_close(out[r].view(heads, dim), expected[:, 0], atol=2e-5, rtol=1e-5)


def test_attention_survives_extreme_scores(compiled: Kernels) -> None:
    shape = HeadShape(2, 1, 32, 1e-6, 1.0)
    keys, values = torch.zeros(1, 1, 20, 32), torch.randn(1, 1, 20, 32)
    keys[0, 0, :19] = -1.0
    keys[0, 0, 3] = 1.0
    qkv, angles = torch.full((1, 4 * 32), 30.0), torch.zeros(20, 32)
    qkv[0, 2 * 32:3 * 32] = -30.0  # the new key
    out = torch.empty(1, 64)
    compiled.attend(shape, qkv, None, (angles.cos(), angles.sin()),
                    CacheRows(keys, values, torch.tensor([0]), 20), out)
    # one key scores 960, all others at most -960
    torch.testing.assert_close(out.view(2, 32), values[0, 0, 3].expand(2, -1))


@pytest.mark.parametrize("name", KNOWN)
@torch.inference_mode()
def test_steps_equal_those_of_torch_operators(compiled: Kernels, name: str) -> None:
    spec = DecoderSpec.from_model(tiny(name).model)
    assert spec is not None
    ours, torchs = FastDecoder(spec), FastDecoder(spec)
    torchs.use_native = False
    rows = prompts(3, 40, 11)
    caches = [decoder.new_cache() for decoder in (ours, torchs)]
    assert ours.use_native
    for cache in caches:
        cache.admit(ours.encode(rows).spans, [2, 1, 3])
    for step in range(70):
        if step == 20:
            assert caches[0].drop([0, 4]) == caches[1].drop([0, 4])
        ids = torch.arange(caches[0].num_rows) * 7 % 50 + step % 3
        torch.testing.assert_close(ours.step(ids, caches[0]), torchs.step(ids, caches[1]),
                                   atol=2e-4, rtol=1e-4)


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A fresh cache folder, and kernels that are looked up again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.kernels.cache_clear()
    yield tmp_path
    native.kernels.cache_clear()


def test_compiled_once_and_kept(compiled: Kernels, uncached: Path) -> None:
    assert native.kernels() is not None
    (library,) = (uncached / "safeladder").iterdir()
    stamp = library.stat().st_mtime_ns
    native.kernels.cache_clear()
    assert native.kernels() is not None
    assert library.stat().st_mtime_ns == stamp


def test_switched_off(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELADDER_NATIVE", "0")
    assert native.kernels() is None


def test_without_a_compiler_torch_operators_do_the_same(
    uncached: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(uncached))
    with caplog.at_level(logging.INFO):
        assert native.kernels() is None
    assert "no C compiler" in caplog.text
    spec = DecoderSpec.from_model(tiny("qwen3").model)
    assert spec is not None and not FastDecoder(spec).use_native


def test_a_compiler_that_fails_is_reported(
    uncached: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    assert native.kernels() is None
    assert "cannot compile" in caplog.text
