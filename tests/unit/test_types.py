"""Batch.split writes the whole normalisation; Datum refuses what would be silently wrong."""

import numpy as np
import pytest

from safeladder.types import Batch, Datum, Media, Verdict


def row(trained: int, untrained: int = 2) -> Datum:
    mask = np.array([0] * untrained + [1] * trained, np.float32)
    return Datum(token_ids=np.arange(len(mask)), mask=mask, advantages=np.zeros_like(mask),
                 weights=mask)


def weights(batch: Batch, minibatches: int = 1) -> list[list[list[float]]]:
    return [[[round(float(w), 6) for w in d.weights[d.mask > 0]] for d in minibatch]
            for minibatch in batch.split(minibatches)]


# Rows of 1, 3 and 4 trained tokens; the first two belong to prompt 0, the third to prompt 1.
ROWS, PROMPTS = (row(1), row(3), row(4)), (0, 0, 1)


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("sequence_mean", [1 / 3, 1 / 9, 1 / 12]),  # 1 / (3 rows x own length)
        ("token_mean", [1 / 8, 1 / 8, 1 / 8]),  # 8 tokens
        ("constant", [1 / 30, 1 / 30, 1 / 30]),  # 1 / (3 rows x 10)
        ("prompt_mean", [1 / 8, 1 / 8, 1 / 8]),  # 1 / (2 prompts x 4 tokens each)
    ],
)
def test_weights_of_each_normalization(normalization, expected):
    (minibatch,) = weights(Batch(ROWS, PROMPTS, normalization, length_constant=10))
    assert [w[0] for w in minibatch] == pytest.approx(expected, abs=1e-6)
    assert all(len(set(w)) == 1 for w in minibatch)


def test_minibatches_keep_prompts_whole_and_are_normalised_apart():
    first, second = weights(Batch(ROWS, PROMPTS, "token_mean"), 2)
    assert first == [[0.25], [0.25, 0.25, 0.25]]
    assert second == [[0.25] * 4]


def test_rows_without_trained_tokens_count_nowhere():
    silent = row(0)
    (minibatch,) = weights(Batch((silent, *ROWS), (7, *PROMPTS), "sequence_mean"))
    assert len(minibatch) == 3
    assert minibatch[0] == [pytest.approx(1 / 3)]
    assert list(Batch((silent,), (0,)).split(2)) == []


def test_more_minibatches_than_prompts_gives_as_many_as_prompts():
    assert len(weights(Batch(ROWS, PROMPTS), 5)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantages": np.zeros(2, np.float32)}, "Datum.advantages has shape"),
        ({"old_logprobs": np.full(3, np.nan, np.float32)}, "Datum.old_logprobs holds"),
        ({"mask": np.ones(3, np.float32)}, "mask\\[0\\] is 0"),
    ],
)
def test_a_datum_refuses_arrays_that_do_not_fit(changes, message):
    fields = {"token_ids": np.arange(3), "mask": np.array([0, 1, 1], np.float32),
              "advantages": np.zeros(3, np.float32), "weights": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=message):
        Datum(**{**fields, **changes})


def test_a_verdict_is_a_finite_number_or_says_why_not():
    with pytest.raises(ValueError, match="finite"):
        Verdict("judge", float("nan"))
    with pytest.raises(ValueError, match="must say why"):
        Verdict("judge", None)


def test_media_are_equal_when_their_content_is(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert Media(pixels=pixels) == Media(pixels=pixels.copy())
    assert Media(pixels=pixels) != Media(pixels=pixels[::-1].copy())
    (tmp_path / "a.png").write_bytes(b"same")
    (tmp_path / "b.png").write_bytes(b"same")
    assert Media(path=str(tmp_path / "a.png")) == Media(path=str(tmp_path / "b.png"))
