"""S12, weight decay: notes 002 §6.8.1.2, (6.60)–(6.63); 003; 004. λ‖W‖², ½λ‖W‖², and decoupled decay."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import L2, HalfL2
from tests.lecture.descent import LOSS, POINTS, Watch, X, Y, added, distance, network, values

ETA, DECAY = 0.03, 0.2
WEIGHTS, OFFSETS = ("0.W", "1.W"), ("0.b", "1.b")

# What the gradient of the whole objective has beside ∂L/∂W; offsets have nothing beside it.
FORMS: dict[str, Any] = {
    "λ‖W‖², (6.60)": ({"regularization": L2(DECAY)}, gn.SGD(ETA), 2 * DECAY),
    "½λ‖W‖², 004": ({"regularization": HalfL2(DECAY)}, gn.SGD(ETA), DECAY),
    "½λ‖W‖² in the optimizer": ({}, gn.SGD(ETA, weight_decay=DECAY), DECAY),
    "both": ({"regularization": [L2(DECAY), HalfL2(0.1)]}, gn.SGD(ETA), 2 * DECAY + 0.1),
}


def fit(net: gn.Network, optimizer: Any, steps: int = 1, **options: Any) -> list[Any]:
    watch = Watch()
    net.fit(
        X, Y, loss=LOSS, optimizer=optimizer, steps=steps, batch_size=POINTS, callbacks=[watch], keep="last", **options
    )
    return watch.seen


def decayed(w: Any, factor: float, eta: float = ETA) -> Any:
    """(6.63): W ← W (1 - 2 λ η) - η ∂L/∂W, with `factor` in the place of 2 λ; (6.62) has ‖W‖ where it means W."""
    g = added(w, range(POINTS))
    return {name: w[name] * (1 - eta * factor * (name in WEIGHTS)) - eta * g[name] for name in w}


@pytest.mark.parametrize("form", FORMS)
def test_one_step_with_weight_decay_is_that_of_the_notes(backend: Any, form: str) -> None:
    options, optimizer, factor = FORMS[form]
    net = network(backend)
    before = values(net)
    (after,) = fit(net, optimizer, **options)
    assert distance(after, decayed(before, factor)) < 1e-14
    assert distance(after, decayed(before, 0.9 * factor)) > 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_many_steps_with_weight_decay_are_those_of_the_notes(backend: Any, form: str) -> None:
    options, optimizer, factor = FORMS[form]
    net = network(backend)
    w = values(net)
    for after in fit(net, optimizer, 20, **options):
        w = decayed(w, factor)
        assert distance(after, w) < 1e-13


def test_weight_decay_does_not_change_offsets(backend: Any) -> None:
    """In the first step, whose gradient is the same with and without."""
    results = {}
    for decay in (0.0, DECAY):
        net = network(backend)
        (results[decay],) = fit(net, gn.SGD(ETA), regularization=L2(decay))
    for name in OFFSETS:
        np.testing.assert_array_equal(results[0.0][name], results[DECAY][name])
    for name in WEIGHTS:
        assert np.abs(results[0.0][name] - results[DECAY][name]).min() > 0


def test_weight_decay_adds_the_gradient_of_its_penalty() -> None:
    """(6.61): J = ΣL + λ‖W‖² by central differences, entry by entry, against the step that was taken."""
    net, h = network("cpu"), 1e-6
    before = values(net)

    def objective(w: Any) -> float:
        outputs = np.tanh(X @ w["0.W"] + w["0.b"]) @ w["1.W"] + w["1.b"]
        return float(np.square(outputs - Y).sum() + DECAY * sum(np.square(w[name]).sum() for name in WEIGHTS))

    (after,) = fit(net, gn.SGD(ETA), regularization=L2(DECAY))
    for name, W in before.items():
        slope = (before[name] - after[name]) / ETA
        for place in np.ndindex(W.shape):
            moved = [{**before, name: W.copy()} for _ in range(2)]
            moved[0][name][place] += h
            moved[1][name][place] -= h
            assert abs((objective(moved[0]) - objective(moved[1])) / (2 * h) - slope[place]) < 1e-7


@pytest.mark.parametrize("make", [gn.AdamW, gn.Lion, lambda *a, **k: gn.NAdam(*a, **k, decoupled_weight_decay=True)])
def test_decoupled_weight_decay_shrinks_weights_apart_from_the_gradient(backend: Any, make: Any) -> None:
    """W ← (1 - η λ) W - the step without decay: λ does not pass through moments and is not divided by any root."""
    results = {}
    for decay in (0.0, DECAY):
        net = network(backend)
        before = values(net)
        (results[decay],) = fit(net, make(ETA, weight_decay=decay))
    wanted = {name: results[0.0][name] - ETA * DECAY * before[name] * (name in WEIGHTS) for name in before}
    assert distance(results[DECAY], wanted) < 1e-15
    assert distance(results[DECAY], results[0.0]) > 1e-3


def test_coupled_weight_decay_of_adam_differs_from_decoupled_decay() -> None:
    """Adam divides g + λ W by its own size: its first step is η whatever λ is, where AdamW's shrinks W by η λ."""
    coupled, plain, decoupled = (network("cpu") for _ in range(3))
    fit(coupled, gn.Adam(ETA, weight_decay=DECAY, eps=1e-20))
    fit(plain, gn.Adam(ETA, eps=1e-20))
    fit(decoupled, gn.AdamW(ETA, weight_decay=DECAY, eps=1e-20))
    start = values(network("cpu"))
    np.testing.assert_allclose(np.abs(values(coupled)["0.W"] - start["0.W"]), ETA, rtol=1e-12)
    assert distance(values(decoupled), values(plain)) > 1e-3


def test_weight_decay_of_the_optimizer_equals_a_penalty_only_if_it_is_coupled() -> None:
    for make, same in ((gn.SGD, True), (gn.Adam, True), (gn.AdamW, False)):
        penalised, net = network("cpu"), network("cpu")
        fit(penalised, make(ETA, **({} if make is not gn.AdamW else {"weight_decay": 0.0})), 5,
            regularization=HalfL2(DECAY))  # fmt: skip
        fit(net, make(ETA, weight_decay=DECAY), 5)
        assert (distance(values(net), values(penalised)) < 1e-13) == same


def test_a_larger_weight_decay_leaves_smaller_weights(backend: Any) -> None:
    """ "We push the weights towards 0": the more, the larger λ."""
    lengths = []
    for decay in (0.0, 0.1, 1.0, 10.0):
        net = network(backend)
        fit(net, gn.SGD(0.02), 60, regularization=L2(decay))
        lengths.append(sum(float(np.square(values(net)[name]).sum()) for name in WEIGHTS))
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < 0.05 * lengths[0]
