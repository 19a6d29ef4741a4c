"""Examples that are held out: given, or drawn from the training set."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import engine
from tests.faults import contents
from tests.training.small_set import INPUTS, LABELS, RICH, ROWS, WEIGHT, X, batches, flat, hosts, network, plain, train


@pytest.mark.parametrize("weighted", [False, True])
def test_fit_evaluates_on_the_given_validation_set(backend: Any, weighted: bool) -> None:
    net = plain(backend)
    held_out = (INPUTS[:20], LABELS[:20], *([WEIGHT[:20]] if weighted else []))
    history = train(net, INPUTS[20:], LABELS[20:], validation=held_out, metrics=["accuracy"])
    found = net.evaluate(
        INPUTS[:20], LABELS[:20], metrics=["accuracy"], sample_weight=WEIGHT[:20] if weighted else None
    )
    for name, number in found.items():
        np.testing.assert_allclose(history[f"validation_{name}"][-1], number, rtol=1e-13)
    other = net.evaluate(INPUTS[:20], LABELS[:20], sample_weight=None if weighted else WEIGHT[:20])["loss"]
    assert abs(other - found["loss"]) > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_a_large_validation_set_is_evaluated_in_chunks(backend: Any, weighted: bool, monkeypatch: Any) -> None:
    """Chunks of about 15 of 50 rows give the figures of one chunk, and of `evaluate` in batches of 7."""
    held_out = (INPUTS, LABELS, *([WEIGHT] if weighted else []))
    options: dict[str, Any] = {"validation": held_out, "metrics": ["accuracy"], "batch_size": 25}
    whole, parts = plain(backend), plain(backend)
    a = train(whole, INPUTS, **options)
    monkeypatch.setattr(engine, "CHUNK_BYTES", engine.CHUNK_BYTES * 15 // parts.chunk(None))
    assert 10 < parts.chunk(None) < 20
    b = train(parts, INPUTS, **options)
    for name in ("validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-13)
    weight = WEIGHT if weighted else None
    found = parts.evaluate(INPUTS, LABELS, metrics=["accuracy"], sample_weight=weight, batch_size=7)
    for name, number in found.items():
        np.testing.assert_allclose(b[f"validation_{name}"][-1], number, rtol=1e-13)


@hosts
@pytest.mark.parametrize(("fraction", "count"), [(0.2, 10), (0.5, 25), (1e-9, 1), (0.999, 49)])
def test_validation_as_a_fraction_holds_out_that_many_rows(backend: Any, fraction: float, count: int) -> None:
    net = network(backend)
    history = train(net, validation=fraction, batch_size=20, epochs=3, optimizer=gn.SGD(0.0), sample_weight=WEIGHT)
    rows = flat(batches())
    assert len(rows) == 3 * (ROWS - count)
    kept = sorted(set(rows))
    left_out = sorted(set(range(ROWS)) - set(rows))
    assert len(left_out) == count  # and so the same rows in every epoch
    for name, part in (("loss", kept), ("validation_loss", left_out)):
        wanted = net.evaluate(X[part], LABELS[part], sample_weight=WEIGHT[part])["loss"]
        np.testing.assert_allclose(history[name], wanted, rtol=1e-12)


def test_the_seed_decides_which_rows_are_held_out() -> None:
    kept = []
    for seed in (0, 0, 1):
        train(network("cpu", seed=seed), validation=0.2, epochs=1)
        kept.append(sorted(flat(batches())))
    assert kept[0] == kept[1] != kept[2]
    assert kept[0] != list(range(40))


def test_validation_does_not_change_the_trained_weights(backend: Any) -> None:
    """It draws no random numbers and changes no running statistics."""
    with_it, without = plain(backend, *RICH), plain(backend, *RICH)
    train(with_it, INPUTS, validation=(INPUTS[:11], LABELS[:11]), metrics=["accuracy"], batch_size=15)
    train(without, INPUTS, batch_size=15)
    assert contents(with_it) == contents(without)
