"""Optimizers against PyTorch's on the configurations that PyTorch tests its own with, 1,000 steps in float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpunn import optimizers
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.errors import ConfigurationError
from gpunn.optimizers.base import OptimizerFrame
from tests.optimizers.runs import SHAPES, before_step, new_store

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `peers`)")
pytest.importorskip("expecttest", reason="expecttest, which PyTorch's test data import, is not installed")
if not torch.__version__.startswith("2.13."):
    pytest.skip(f"written for the private test data of PyTorch 2.13, not {torch.__version__}", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import optim_db

STEPS, TOLERANCE, DTYPE = 1000, 1e-12, torch.float64
NAMES = ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam")
INFOS = {info.optim_cls.__name__: info for info in optim_db if info.optim_cls.__name__ in NAMES}
# PyTorch's own configurations leave these at their defaults.
MORE: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.7, "dampening": 0.3, "weight_decay": 0.2}, {"momentum": 0.5, "nesterov": True}],
    "Adagrad": [{"eps": 1e-3, "lr_decay": 0.01}],
    "Adadelta": [{"rho": 0.7, "eps": 1e-3}, {"rho": 0.3}],
    "RMSprop": [{"alpha": 0.7, "eps": 1e-3, "momentum": 0.6}, {"alpha": 0.0, "eps": 0.1}],
    "Adam": [
        {"betas": (0.7, 0.95), "eps": 1e-3},
        {"betas": (0.0, 0.0), "eps": 0.1},
        {"betas": (0.95, 0.7), "amsgrad": True},
    ],
    "AdamW": [{"betas": (0.7, 0.95), "eps": 1e-3}, {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True}],
    "Adamax": [{"betas": (0.7, 0.95), "eps": 1e-3}, {"betas": (0.0, 0.0)}],
    "NAdam": [{"betas": (0.7, 0.95), "eps": 1e-3}, {"betas": (0.0, 0.5), "momentum_decay": 0.5}],
    "RAdam": [{"betas": (0.7, 0.95), "eps": 1e-3}, {"betas": (0.5, 0.6)}, {"betas": (0.9, 0.3)}],
}

# Bad configurations that cannot be written down here, by PyTorch's own description of them.
PARAMETERS = "an optimizer takes no parameters: the network has them, each once and each with its name"
EXCUSED = {
    "invalid param type": PARAMETERS,
    "a param group cannot have duplicate parameters": PARAMETERS,
    "duplicate parameters should not occur across param groups either": PARAMETERS,
    "all optimizer params should be with/without names": PARAMETERS,
    "all optimizer param groups should be with/without names.": PARAMETERS,
}


def configurations() -> list[Any]:
    found = []
    for name, info in INFOS.items():
        given = [(i.desc, i.kwargs) for i in info.optim_inputs_func("cpu")]
        given += [(str(kwargs), kwargs) for kwargs in MORE[name]]
        found += [pytest.param(name, kwargs, id=f"{name}: {what}") for what, kwargs in given]
    return found


def bad_configurations() -> list[tuple[str, str, dict[str, Any]]]:
    """The optimizer, what PyTorch says is bad, and the arguments."""
    bad = [(n, b.optimizer_error_input) for n, i in INFOS.items() for b in i.optim_error_inputs_func("cpu", DTYPE)]
    return [(name, given.desc, given.kwargs) for name, given in bad]


def ours(name: str, kwargs: dict[str, Any]) -> Any:
    """The optimizer with PyTorch's arguments, and the sign that `maximize` gives the gradient."""
    given = {("rate" if key == "lr" else key): value for key, value in kwargs.items()}
    maximize = given.pop("maximize", False)
    if isinstance(given.get("rate"), torch.Tensor) and given["rate"].ndim == 0:
        given["rate"] = given["rate"].item()
    return getattr(optimizers, name)(**given), -1.0 if maximize else 1.0


@pytest.fixture
def double_precision() -> Iterator[None]:
    """PyTorch keeps NAdam's product of momenta in its default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("name", "kwargs"), configurations())
def test_a_thousand_steps_of_an_optimizer_agree_with_pytorch(name: str, kwargs: dict[str, Any]) -> None:
    backend = NumpyBackend()
    store = new_store(backend)
    optimizer, sign = ours(name, kwargs)
    t = OptimizerFrame(backend, store, optimizer)
    tensors = {n: torch.nn.Parameter(torch.tensor(view.copy())) for n, view in store.views.items()}
    still = [tensors[n] for n in SHAPES if n.endswith("b")]
    moving = [tensors[n] for n in SHAPES if not n.endswith("b")]
    theirs = INFOS[name].optim_cls([{"params": moving}, {"params": still, "weight_decay": 0.0}], **kwargs)
    for step in range(STEPS):
        before_step(backend, t, step)
        for n, tensor in tensors.items():
            tensor.grad = torch.tensor(store.gradient_views[n])
        store.gradients *= sign
        optimizer.update(t)
        theirs.step()
        if step < 10 or step % 50 == 49:
            for n, tensor in tensors.items():
                expected = tensor.detach().numpy()
                atol = TOLERANCE * max(1.0, np.abs(expected).max())
                np.testing.assert_allclose(store.views[n], expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [pytest.param(n, kwargs, id=f"{n}: {what}") for n, what, kwargs in bad_configurations() if what not in EXCUSED],
)
def test_an_optimizer_refuses_what_pytorch_refuses(name: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, TypeError), match="expected|unexpected keyword"):
        ours(name, kwargs)


def test_all_configurations_of_pytorch_optimizers_are_met() -> None:
    """No configuration is lost by a change of names, and every excuse belongs to a configuration."""
    assert set(INFOS) == set(NAMES)
    own = sum(len(more) for more in MORE.values())
    assert len(configurations()) - own >= 58
    bad = [what for _, what, _ in bad_configurations()]
    assert len(bad) >= 75
    assert set(EXCUSED) <= set(bad)
    assert sum(what not in EXCUSED for what in bad) >= 30
