"""Steps with layers of users: those that work through `t.ops` are recorded, and those that do not are found out."""

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends import formulas
from gpunn.frame import Buffer, Plan
from gpunn.opaque import Opaque
from gpunn.optimizers.base import OptimizerFrame
from gpunn.python_state import PythonState
from gpunn.recordable import Trial
from gpunn.regularization import MaxNorm, RegularizationFrame
from gpunn.testing import check_layer
from gpunn.types import Array
from tests import zoo
from tests.conftest import backend_named
from tests.offenders import FACTOR, OFFENDERS, CallsNumpyInBackward, CountsInItsFrame, Gain, Tempered

X = np.random.default_rng(0).normal(size=(64, 6))
Y = np.random.default_rng(1).integers(0, 3, 64)


@pytest.fixture(params=["cpu", "strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def ops(request: pytest.FixtureRequest) -> Any:
    return backend_named(request.param)


def network(ops: Any, layer: gn.Layer, models: int | None = None) -> gn.Network:
    return gn.Network([gn.Dense(5, "relu"), layer, gn.Dense(3)], 6, device=ops, dtype="float64", models=models)


def trial(net: gn.Network) -> Trial:
    return Trial(net, net.compile(16, gn.CrossEntropy()), net.ops.from_host(Y[:16]))


@pytest.mark.parametrize("kind", OFFENDERS, ids=lambda kind: kind.__name__)
def test_a_layer_that_a_record_would_not_repeat_is_found_out(ops: Any, kind: Any) -> None:
    if ops.name == "cuda" and kind is CallsNumpyInBackward:
        pytest.skip("the same call on arrays of CuPy")
    fault = trial(network(ops, kind())).fault()
    assert fault is not None and OFFENDERS[kind] in fault
    assert kind.__name__ in fault


@pytest.mark.parametrize("kind", OFFENDERS, ids=lambda kind: kind.__name__)
def test_check_layer_finds_it_out(kind: Any) -> None:
    with pytest.raises((AssertionError, TypeError, ValueError)):  # some cannot do models of a population
        check_layer(kind(), (5,))


def test_check_layer_says_what_a_record_would_not_repeat() -> None:
    with pytest.raises(AssertionError, match=r"CountsInItsFrame\(\) cannot be recorded: .* something else each time"):
        check_layer(CountsInItsFrame(), (5,))
    check_layer(Gain(), (5,))


@pytest.mark.parametrize("models", [None, 4])
def test_a_layer_that_works_through_ops_alone_may_be_recorded(ops: Any, models: int | None) -> None:
    tried = trial(network(ops, Gain(), models))
    assert tried.fault() is None
    assert tried.is_same()
    assert len(tried.first) > 10


@pytest.mark.parametrize("kind", OFFENDERS, ids=lambda kind: kind.__name__)
def test_a_trial_puts_back_what_it_has_counted_in_python(kind: Any) -> None:
    layer = kind()
    tried, before = trial(network("cpu", layer)), PythonState([layer]).now()
    assert tried.fault()
    assert PythonState([layer]).now() == before


class Tally:
    """What a layer may count in."""

    def __init__(self) -> None:
        self.steps, self.names = 0, {"a"}


def counts_everywhere() -> tuple[gn.Layer, list[Any]]:
    """A layer that counts in many places, and its places."""
    numbers, tally, cell = {"n": 0}, Tally(), 0
    table, draws, rng = np.zeros(3), random.Random(0), np.random.RandomState(0)

    def helper() -> None:
        nonlocal cell
        cell += 1
        numbers["n"] += 1

    @dataclass(frozen=True)
    class Counts(Gain):
        history: list[int] = field(default_factory=list)
        ticks = itertools.count()

        def forward(self, t: Any, X: Any, seen: Any = set()) -> Any:  # noqa: B006
            helper()
            tally.steps += 1
            tally.names.add(f"{tally.steps}")
            seen.add(cell)
            table[0] += 1
            self.history.append(draws.randrange(9) + next(self.ticks) + rng.randint(9))
            np.random.rand()
            random.random()
            return super().forward(t, X)

    layer = Counts()
    return layer, [numbers, tally.names, table, layer.history]


def test_a_trial_puts_back_counts_wherever_they_are() -> None:
    layer, places = counts_everywhere()
    before = PythonState([layer]).now()
    tried = trial(network("cpu", layer))
    assert "keeps count in Python" in str(tried.fault())
    assert PythonState([layer]).now() == before
    assert places[0] == {"n": 0} and places[1] == {"a"} and not places[2].any() and places[3] == []
    layer.history.append(1)
    assert PythonState([layer]).now() != before


def test_a_trial_changes_no_number() -> None:
    net = network("cpu", Gain())
    net.gradients(X[:16], Y[:16], gn.CrossEntropy())
    kept = net.vector.copy(), net.gradient_vector.copy()
    trial(net).fault()
    np.testing.assert_array_equal(net.vector, kept[0])
    np.testing.assert_array_equal(net.gradient_vector, kept[1])


@pytest.mark.parametrize("name", zoo.LAYERS)
def test_all_layers_of_gpunn_work_through_ops_alone(ops: Any, name: str) -> None:
    for activation in ("relu", "gelu", "softmax"):
        net = zoo.network(zoo.LAYERS[name](activation), gn.CrossEntropy(), device=ops, dtype="float64")
        for training in (True, False):
            batch_pass = net.compile(16, gn.CrossEntropy(), training=training)
            assert Trial(net, batch_pass, net.ops.from_host(Y[:16])).fault() is None


@pytest.mark.parametrize("loss", zoo.LOSSES, ids=repr)
def test_all_losses_of_gpunn_work_through_ops_alone(loss: Any) -> None:
    net = zoo.network(gn.Dense(4), loss, device="cpu")
    y = np.zeros((16, 3)) if loss.target not in ("classes", "one_hot") or type(loss) is gn.NLLM else Y[:16]
    assert Trial(net, net.compile(16, loss), y).fault() is None


def test_optimizers_and_regularizations_are_tried_too() -> None:
    net = network("cpu", Gain())
    tried = trial(net)
    optimizer, penalty = gn.AdamW(1e-3, weight_decay=0.1), MaxNorm(1.0)
    tried.also(optimizer, OptimizerFrame(net.ops, net.store, optimizer), optimizer.update)
    tried.also(penalty, RegularizationFrame(net.ops, net.store, penalty), penalty.after_update)
    assert tried.fault() is None
    assert len(tried.first) > len(trial_calls(network("cpu", Gain()))) + 1

    @dataclass(frozen=True)
    class Shrinks(gn.SGD):
        def update(self, t: Any) -> None:
            t.store.values *= 0.9

    tried.also(Shrinks(0.1), OptimizerFrame(net.ops, net.store, Shrinks(0.1)), Shrinks(0.1).update)
    assert "Shrinks.update" in (tried.fault() or "")


def trial_calls(net: gn.Network) -> Any:
    tried = trial(net)
    assert tried.fault() is None
    return tried.first


def test_a_step_that_has_become_another_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTOR, "now", 2.0)
    tried = trial(network("cpu", Tempered()))
    assert tried.fault() is None
    assert tried.is_same()
    monkeypatch.setitem(FACTOR, "now", 3.0)
    assert not tried.is_same()


def test_a_frame_may_hold_what_stays_the_same() -> None:
    @dataclass(frozen=True)
    class Keeps(Gain):
        def plan(self, shape: Any) -> Plan:
            plan = super().plan(shape)
            return Plan(shape, plan.parameters, buffers={**plan.buffers, "count": Buffer((1,), rows=False)},
                        backward=plan.backward)  # fmt: skip

        def forward(self, t: Any, X: Any) -> Any:
            t.rows = X.shape[-2]
            t.ops.elementwise(formulas.add, (t.count, 1.0), (t.count,))
            return super().forward(t, X)

    assert trial(network("cpu", Keeps())).fault() is None


VIEWS = {
    "part": lambda A: A[..., 1:3],
    "row": lambda A: A[0],
    "new axis": lambda A: A[:, None],
    "reshaped": lambda A: A.reshape(2, -1),
    "transposed": lambda A: A.mT.T,
    "swapped": lambda A: A.swapaxes(0, 1).transpose(1, 0),
}


@pytest.mark.parametrize("name", VIEWS)
def test_an_opaque_array_has_the_views_of_the_array(name: str) -> None:
    array = np.arange(12.0).reshape(3, 4)
    view, expected = VIEWS[name](Opaque(array)), VIEWS[name](array)
    assert (view.shape, view.ndim, view.size, len(view)) == (
        expected.shape, expected.ndim, expected.size, len(expected),
    )  # fmt: skip
    assert np.shares_memory(view._array, expected)


NUMBERS: Array = np.arange(3.0)
LOOKS = {
    "sum": lambda A: A + 1, "reflected": lambda A: 1 + A, "in NumPy": lambda A: np.float64(2) * A,
    "ufunc": lambda A: np.exp(A), "function": lambda A: np.concatenate([A, A]), "array": lambda A: np.array(A),
    "truth": lambda A: bool(A), "number": lambda A: float(A), "comparison": lambda A: A > 0, "loop": lambda A: list(A),
    "index": lambda A: A[NUMBERS > 1], "method": lambda A: A.mean(), "write": lambda A: A.__setitem__(0, 1),
    "matrix product": lambda A: A @ A, "fill": lambda A: A.fill(0), "copy": lambda A: A.copy(),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_an_opaque_array_does_not_show_its_numbers(name: str) -> None:
    array = np.arange(3.0)
    with pytest.raises(Exception, match="NumPy|calculates|looks|goes through|picks|asks|writes|hands"):
        LOOKS[name](Opaque(array))
    np.testing.assert_array_equal(array, np.arange(3.0))
