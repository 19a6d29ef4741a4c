"""Which rows make the batches of an epoch, and in which order."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import L2
from tests.faults import contents
from tests.training.small_set import INPUTS, RICH, ROWS, WEIGHT, batches, flat, hosts, network, plain, train, vector


@hosts
@pytest.mark.parametrize("size", [1, 7, 25, 49, ROWS, 128])
def test_batches_have_the_size_asked_for_and_the_last_one_the_rest(backend: Any, size: int) -> None:
    train(network(backend), batch_size=size, epochs=1)
    last = ROWS % size if size < ROWS else 0
    assert [len(batch) for batch in batches()] == [min(size, ROWS)] * max(1, ROWS // size) + [last] * (last > 0)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("size", "rest"), [(49, 1), (48, 2), (25, 0)])
def test_a_short_last_batch_is_used_unless_dropped_or_too_small_for_batch_norm(
    size: int, rest: int, drop_last: bool, normalized: bool
) -> None:
    """BatchNorm cannot train on a single row."""
    net = network("cpu", *([gn.Dense(5), gn.BatchNorm()] if normalized else []))
    history = train(net, batch_size=size, drop_last=drop_last, epochs=2)
    used = rest > 1 or (rest == 1 and not normalized)
    epoch = [size] * (ROWS // size) + [rest] * (used and not drop_last)
    assert [len(batch) for batch in batches()] == 2 * epoch
    assert np.isfinite(history.loss).all()
    if sum(epoch) < ROWS:  # another row is left out in each epoch
        middle = len(epoch)
        first, second = (set(flat(half)) for half in (batches()[:middle], batches()[middle:]))
        assert first != second


@hosts
def test_shuffled_batches_take_every_row_once_in_an_epoch(backend: Any) -> None:
    train(network(backend), epochs=3, batch_size=20)
    epochs = [flat(batches()[i : i + 3]) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert all(epoch != other for epoch, other in pairwise([list(range(ROWS)), *epochs]))


@hosts
def test_sampling_with_replacement_draws_every_row_equally_often(backend: Any) -> None:
    """50 draws miss 18.2 rows on average, with a deviation of 2.2; no row is preferred in 2,000 draws."""
    train(network(backend), epochs=40, batch_size=25, sampling="replacement")
    assert [len(batch) for batch in batches()] == [25] * 80
    epochs = [flat(batches()[i : i + 2]) for i in range(0, 80, 2)]
    missed = [ROWS - len(set(epoch)) for epoch in epochs]
    assert abs(np.mean(missed) - 18.2) < 5 * 2.2 / 40**0.5
    counts = np.bincount(flat(epochs), minlength=ROWS)
    assert len(counts) == ROWS and np.square(counts - 40).sum() / 40 < 95  # χ² with 49 degrees of freedom
    assert len({tuple(epoch) for epoch in epochs}) == 40


@hosts
def test_sequential_batches_keep_the_order_of_rows(backend: Any) -> None:
    train(network(backend), batch_size=20, sampling="sequential")
    assert flat(batches()) == 2 * list(range(ROWS))


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
def test_the_same_seed_trains_to_the_same_bits(backend: Any, sampling: str) -> None:
    results = []
    for seed in (4, 4, 5):
        net = plain(backend, *RICH, seed=seed)
        history = train(net, INPUTS, batch_size=15, sampling=sampling, validation=0.2, deterministic=True)
        results.append((contents(net), history.loss.tolist(), history["validation_loss"].tolist()))
    assert results[0] == results[1] != results[2]


def test_every_backend_trains_to_the_same_weights(backend: Any) -> None:
    options: dict[str, Any] = {"batch_size": 15, "validation": 0.2, "optimizer": gn.Adam(0.01), "clip_norm": 0.5}
    net, wanted = plain(backend, *RICH), plain("cpu", *RICH)
    found, history = (train(one, INPUTS, **options) for one in (net, wanted))
    np.testing.assert_allclose(vector(net), vector(wanted), rtol=0, atol=1e-12)
    for name in set(history.names) - {"seconds", "examples_per_second"}:
        np.testing.assert_allclose(found[name], history[name], rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("size", "accumulate"), [(5, 4), (4, 5), (20, 1), (3, 7)])
def test_accumulated_batches_train_as_one_large_batch(backend: Any, size: int, accumulate: int, reduction: str) -> None:
    """Batches of 4 make 20, 20 and 4 + 4 + 2 rows: the last batch counts in proportion to its rows."""
    many, one = plain(backend), plain(backend)
    shared: dict[str, Any] = {
        "loss": gn.CrossEntropy(reduction=reduction), "optimizer": gn.SGD(0.02, momentum=0.5), "sample_weight": WEIGHT,
        "regularization": L2(0.1), "clip_norm": 0.4,
    }  # fmt: skip
    a = train(many, INPUTS, batch_size=size, accumulate=accumulate, **shared)
    b = train(one, INPUTS, batch_size=size * accumulate, **shared)
    np.testing.assert_allclose(vector(many), vector(one), rtol=0, atol=1e-13)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-13)
