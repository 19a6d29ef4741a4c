"""Member k of a population is the network trained alone with the same seed, numbers and fold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import HalfL2, MaxNorm
from gpunn.schedules import ReduceOnPlateau
from tests.optimizers.runs import FORMS, several

MODELS, ROWS, FEATURES, CLASSES = 3, 45, 4, 3
SEEDS, RATES = (5, 11, 3), (0.1, 0.2, 0.3)
TOLERANCE = 1e-12
TIMES = ("seconds", "examples_per_second")

rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, FEATURES))
y = (X @ rng.normal(size=(FEATURES, CLASSES)) + 0.5 * rng.normal(size=(ROWS, CLASSES))).argmax(axis=1)
_order = rng.permutation(ROWS)
FOLDS = [(np.delete(_order, np.s_[15 * k : 15 * k + 15]), _order[15 * k : 15 * k + 15]) for k in range(MODELS)]

# A layer that BatchNorm follows has no bias: its gradient would be rounding errors, which most optimizers magnify.
NETWORKS: dict[str, Any] = {
    "plain": lambda rate: [gn.Dense(6, "tanh"), gn.Dense(CLASSES)],
    "batch norm": lambda rate: [gn.Dense(6, bias=False), gn.BatchNorm(activation="tanh"), gn.Dense(CLASSES)],
    "dropout": lambda rate: [gn.Dense(6, "tanh"), gn.Dropout(rate), gn.Dense(CLASSES)],
    "both": lambda rate: [
        gn.Dense(6, bias=False), gn.BatchNorm(activation="tanh"), gn.Dropout(rate), gn.Dense(CLASSES),
    ],
}  # fmt: skip

hosts = pytest.mark.parametrize("backend", ["cpu", "reference"], indirect=True)
devices = pytest.mark.parametrize(
    "backend", ["strict", pytest.param("cuda", marks=pytest.mark.cuda)], indirect=True
)  # fmt: skip


def population(backend: Any, layers: str = "plain") -> gn.Network:
    rates = RATES if layers in ("dropout", "both") else None
    return gn.Network(
        NETWORKS[layers](rates), FEATURES, device=backend, dtype="float64", models=MODELS, seed=SEEDS
    )  # fmt: skip


def single(backend: Any, k: int, layers: str = "plain") -> gn.Network:
    return gn.Network(NETWORKS[layers](RATES[k]), FEATURES, device=backend, dtype="float64", seed=SEEDS[k])


def train(net: gn.Network, optimizer: Any, X: Any = X, y: Any = y, **options: Any) -> gn.History:
    defaults = {"loss": gn.CrossEntropy(), "epochs": 3, "batch_size": 8, "metrics": ["accuracy"]}
    return net.fit(X, y, optimizer=optimizer, **(defaults | options))


def train_fold(net: gn.Network, k: int, optimizer: Any, **options: Any) -> gn.History:
    """What `folds=` does for model k, done to one network."""
    rows, held_out = FOLDS[k]
    return train(net, optimizer, X[rows], y[rows], validation=(X[held_out], y[held_out]), **options)


def compare(net: gn.Network, history: gn.History, k: int, one: gn.Network, alone: gn.History) -> None:
    """Weights, state, and what was measured while the single network trained."""
    member = net.member(k)
    for name, view in {**one.parameters, **one.state}.items():
        found = net.ops.to_host({**member.parameters, **member.state}[name])
        np.testing.assert_allclose(found, net.ops.to_host(view), rtol=0, atol=TOLERANCE, err_msg=name)
    assert set(history.names) == set(alone)
    for name in set(alone) - set(TIMES):
        np.testing.assert_allclose(history[name][: alone.epochs, k], alone[name], rtol=1e-12, atol=TOLERANCE)
    assert history.best_epoch[k] == alone.best_epoch
    assert history.stopped[k] == alone.stopped


def check(backend: Any, layers: str, optimizer: Any, **options: Any) -> gn.History:
    """All members, each on its fold, against single networks."""
    net = population(backend, layers)
    before = net.ops.to_host(net.vector)
    history = train(net, optimizer, folds=FOLDS, **options)
    for k in range(MODELS):
        one = single(backend, k, layers)
        np.testing.assert_array_equal(net.ops.to_host(one.vector), before[k])
        compare(net, history, k, one, train_fold(one, k, optimizer.of_model(k), **options))
    moved = net.ops.to_host(net.vector) - before
    for k in range(MODELS):  # otherwise one network three times would do
        assert np.abs(moved[k] - moved[k - 1]).max() > 1e-4
    return history


@hosts
@pytest.mark.parametrize("layers", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_a_population_trains_with_every_optimizer_as_its_members_do_alone(backend: Any, form: str, layers: str) -> None:
    """Each model has its own rate (one a schedule), weight decay and other numbers."""
    check(backend, layers, several(FORMS[form]))


@devices
@pytest.mark.parametrize("form", ["SGD nesterov", "Adam", "Lion"])
def test_a_population_on_a_device_trains_as_its_members_do_alone(backend: Any, form: str) -> None:
    check(backend, "both", several(FORMS[form]), epochs=2, batch_size=15)


@hosts
@pytest.mark.parametrize("sampling", ["shuffle", "replacement", "sequential"])
@pytest.mark.parametrize("with_folds", [True, False])
def test_a_population_trains_with_every_sampling_as_its_members_do_alone(
    backend: Any, sampling: str, with_folds: bool
) -> None:
    optimizer = gn.Adam((0.01, 0.02, 0.03))
    if with_folds:
        check(backend, "both", optimizer, sampling=sampling)
        return
    net = population(backend, "both")
    history = train(net, optimizer, sampling=sampling, validation=(X[:9], y[:9]))
    for k in range(MODELS):
        one = single(backend, k, "both")
        alone = train(one, optimizer.of_model(k), sampling=sampling, validation=(X[:9], y[:9]))
        compare(net, history, k, one, alone)


@hosts
def test_a_population_with_penalties_and_weights_trains_as_its_members_do_alone(backend: Any) -> None:
    """Weights of examples and classes, accumulated batches, penalties, clipping, limits and a plateau."""
    net, weight = population(backend), np.random.default_rng(1).uniform(0.5, 2.0, ROWS)
    numbers = {"strength": (0.1, 0.0, 0.3), "limit": (0.5, 1.0, 0.7), "clip_norm": (0.2, 0.4, 9.0),
               "clip_value": (0.1, 0.3, 0.05)}  # fmt: skip
    shared: dict[str, Any] = {
        "sample_weight": weight, "class_weight": "balanced", "accumulate": 2, "epochs": 6,
        "plateau": ReduceOnPlateau(0.5, patience=0, threshold=0.05),
    }  # fmt: skip

    def options(of: Any) -> dict[str, Any]:
        regularization = [HalfL2(of("strength")), MaxNorm(of("limit"))]
        return {"regularization": regularization, "clip_norm": of("clip_norm"), "clip_value": of("clip_value")}

    optimizer = gn.SGD((0.3, 0.5, 0.8), momentum=0.8)
    history = train(net, optimizer, **shared, **options(lambda name: numbers[name]))
    factors = np.array(history["rate"]) / np.array([0.3, 0.5, 0.8])
    assert len(np.unique(factors[-1])) > 1  # the plateaus came at different times
    for k in range(MODELS):
        one = single(backend, k)
        alone = train(one, optimizer.of_model(k), **shared, **options(lambda name, k=k: numbers[name][k]))
        compare(net, history, k, one, alone)


# Members that end at different epochs

STOPPING = {
    "early": (gn.EarlyStopping(patience=2), gn.SGD((0.5, 0.0, 4.0))),
    "early on accuracy": (
        gn.EarlyStopping(patience=3, monitor="validation_accuracy"), gn.SGD((0.5, 0.02, 2.0), momentum=0.9),
    ),
    "loss": (gn.LossTolerance(3e-3), gn.SGD((0.01, 0.3, 0.03))),
    "gradient": (gn.GradientTolerance(0.55), gn.SGD((0.1, 0.3, 0.6))),
}  # fmt: skip


def check_ends(backend: Any, case: str, layers: str, keep: str) -> None:
    criterion, optimizer = STOPPING[case]
    if layers == "both" and case == "gradient":
        criterion = replace(criterion, tolerance=0.6)
    net = population(backend, layers)
    options: dict[str, Any] = {"stopping": criterion, "epochs": 12, "keep": keep}
    history = train(net, optimizer, folds=FOLDS, **options)
    ends = []
    for k in range(MODELS):
        one = single(backend, k, layers)
        alone = train_fold(one, k, optimizer.of_model(k), **options)
        compare(net, history, k, one, alone)
        ends.append(alone.epochs)
    assert history.epochs == max(ends) and len(set(ends)) > 1


@hosts
@pytest.mark.parametrize("layers", ["plain", "both"])
@pytest.mark.parametrize("case", STOPPING)
def test_models_of_a_population_stop_at_different_epochs(backend: Any, case: str, layers: str) -> None:
    check_ends(backend, case, layers, "best")


@hosts
@pytest.mark.parametrize("case", ["early", "gradient"])
def test_a_model_that_has_stopped_keeps_its_last_weights(backend: Any, case: str) -> None:
    check_ends(backend, case, "both", "last")


@devices
def test_models_of_a_population_on_a_device_stop_at_different_epochs(backend: Any) -> None:
    criterion, optimizer = STOPPING["early"]
    net = population(backend)
    options: dict[str, Any] = {"stopping": criterion, "epochs": 5, "batch_size": 15}
    history = train(net, optimizer, folds=FOLDS, **options)
    for k in (1, 2):
        one = single(backend, k)
        alone = train_fold(one, k, optimizer.of_model(k), **options)
        compare(net, history, k, one, alone)
    assert history.stopped[1] == "EarlyStopping(patience=2)" != history.stopped[0]


# A member that is lost

LOST = "non-finite loss at epoch "


@hosts
@pytest.mark.parametrize("layers", NETWORKS)
@pytest.mark.parametrize("make", [gn.SGD, gn.Adam, gn.Lion])
def test_a_diverging_model_does_not_change_the_others(backend: Any, layers: str, make: Any) -> None:
    """The weights of SGD overflow; Adam and Lion, whose steps have the size of the rate, stay finite."""
    optimizer = make((0.05, 1e30, 0.1), weight_decay=0.1)
    net = population(backend, layers)
    history = train(net, optimizer, folds=FOLDS, epochs=20)
    for k in range(MODELS):
        one = single(backend, k, layers)
        compare(net, history, k, one, train_fold(one, k, optimizer.of_model(k), epochs=20))
    assert np.isfinite(net.ops.to_host(net.vector)).all()
    assert history.stopped[0] == history.stopped[2] == "finished 20 epochs"
    assert history.stopped[1].startswith(LOST) or (make is not gn.SGD and history.loss[-1, 1] > 1e20)
    assert np.isfinite(history.loss[:, [0, 2]]).all()


@devices
def test_a_diverging_model_on_a_device_does_not_change_the_others(backend: Any) -> None:
    optimizer = gn.SGD((0.05, 1e30, 0.1), weight_decay=0.1)
    net = population(backend)
    history = train(net, optimizer, folds=FOLDS, epochs=8, batch_size=15)
    one = single(backend, 0)
    compare(net, history, 0, one, train_fold(one, 0, optimizer.of_model(0), epochs=8, batch_size=15))
    assert history.stopped[1].startswith(LOST) and history.stopped[2] == "finished 8 epochs"
    assert np.isfinite(net.ops.to_host(net.vector)).all()
