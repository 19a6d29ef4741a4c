"""Arguments that optimizers refuse, with their messages."""

from typing import Any

import pytest

from gpunn import optimizers as o
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.errors import ConfigurationError
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from tests.optimizers.runs import new_store


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: o.SGD(-0.1), r"SGD rate: expected a number with 0 <= value, got -0.1"),
        (lambda: o.Adam(float("nan")), r"Adam rate: expected a number with 0 <= value, got nan"),
        (lambda: o.Adam([0.1, -0.1]), r"Adam rate\[1\]: expected a number with 0 <= value, got -0.1"),
        (lambda: o.Adam("fast"), r"Adam rate: expected a number with 0 <= value, got 'fast'"),
        (lambda: o.Adam(betas=(0.9, 1.0)), r"Adam betas\[1\]: expected a number with 0 <= value < 1, got 1.0"),
        (lambda: o.AdamW(betas=((0.9, 2.0), 0.9)), r"AdamW betas\[0\]\[1\]: expected a number with 0 <= value < 1"),
        (lambda: o.Lion(betas=0.9), r"Lion betas: expected two numbers, got 0.9"),
        (lambda: o.NAdam(betas=(0.9,)), r"NAdam betas: expected two numbers, got \(0.9,\)"),
        (lambda: o.Adam(eps=0.0), r"Adam eps: expected a number with 1e-30 <= value, got 0.0"),
        (lambda: o.Adam(epsilon="keras"), r"Adam epsilon: expected one of 'pytorch', 'hat', got 'keras'"),
        (lambda: o.AdamW(amsgrad=1), r"AdamW amsgrad: expected one of False, True, got 1"),
        (lambda: o.SGD(momentum=1.0), r"SGD momentum: expected a number with 0 <= value < 1"),
        (lambda: o.SGD(dampening=1.5), r"SGD dampening: expected a number with 0 <= value <= 1"),
        (lambda: o.SGD(nesterov=True), r"SGD nesterov: expected momentum > 0 and no dampening, got momentum=0.0"),
        (lambda: o.SGD(0.1, (0.9, 0.0), True), r"SGD nesterov: expected momentum > 0 and no dampening"),
        (lambda: o.SGD(0.1, 0.9, True, 0.1), r"SGD nesterov: expected momentum > 0 and no dampening"),
        (lambda: o.SGD(nesterov=None), r"SGD nesterov: expected one of False, True, got None"),
        (lambda: o.SGD(weight_decay=-1), r"SGD weight_decay: expected a number with 0 <= value, got -1"),
        (lambda: o.Adagrad(lr_decay=-1), r"Adagrad lr_decay: expected a number with 0 <= value, got -1"),
        (lambda: o.Adagrad(initial_accumulator_value=-1), r"Adagrad initial_accumulator_value: expected a number"),
        (lambda: o.Adadelta(rho=1.1), r"Adadelta rho: expected a number with 0 <= value <= 1, got 1.1"),
        (lambda: o.RMSprop(alpha=1.0), r"RMSprop alpha: expected a number with 0 <= value < 1, got 1.0"),
        (lambda: o.RMSprop(centered="yes"), r"RMSprop centered: expected one of False, True, got 'yes'"),
        (lambda: o.NAdam(momentum_decay=-1), r"NAdam momentum_decay: expected a number with 0 <= value, got -1"),
        (lambda: o.NAdam(decoupled_weight_decay=0), r"NAdam decoupled_weight_decay: expected one of False, True"),
        (lambda: o.RAdam(decoupled_weight_decay=0), r"RAdam decoupled_weight_decay: expected one of False, True"),
    ],
)
def test_optimizers_refuse_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("name", ["rate", "betas[1]", "eps", "weight_decay"])
def test_optimizers_refuse_another_count_of_numbers_than_of_models(name: str, models: int | None) -> None:
    three = (0.1, 0.2, 0.3)
    optimizer = o.Adam(betas=(0.9, three)) if name == "betas[1]" else o.Adam(**{name: three})
    wanted = f"one number or {models} of them" if models else "one number"
    backend = NumpyBackend()
    with pytest.raises(ConfigurationError, match=rf"Adam {name}: expected {wanted}, got 3".replace("[1]", r"\[1\]")):
        OptimizerFrame(backend, new_store(backend, models=models), optimizer)


def test_a_user_defined_optimizer_needs_all_methods() -> None:
    class Lazy(Optimizer, abstract=True):
        pass

    backend = NumpyBackend()
    with pytest.raises(NotImplementedError, match="Lazy needs a plan method"):
        OptimizerFrame(backend, new_store(backend), Lazy())
    t = OptimizerFrame(backend, new_store(backend), o.SGD())
    with pytest.raises(NotImplementedError, match="Lazy needs an update method"):
        Lazy().update(t)
    for named in (t, t.parts[0]):
        with pytest.raises(AttributeError, match="there is no 'velocity' here: name it in the optimizer's plan"):
            _ = named.velocity
