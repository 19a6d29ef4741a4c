"""PyTorch's side: its test data, run by PyTorch and compared with gpunn. Skips its importer without PyTorch 2.13."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from gpunn.backends.reference.backend import Backend
from tests.oracles import layer_expressions, loss_expressions  # noqa: F401  they fill EXPRESSIONS
from tests.oracles.calls import EXPRESSIONS, LOSSES, Call, Key
from tests.oracles.excused import excuses_for
from tests.oracles.modules import MODULES

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `peers`)")
pytest.importorskip("expecttest", reason="expecttest, which PyTorch's test data import, is not installed")
if not torch.__version__.startswith("2.13."):
    pytest.skip(f"written for the private test data of PyTorch 2.13, not {torch.__version__}", allow_module_level=True)
torch.set_num_threads(1)  # the samples are small: more threads would only wait for each other

DTYPES = {"float64": 1e-7, "float32": 1.3e-6}  # relative tolerances; the absolute ones are these times the size


@dataclass(frozen=True)
class Sample:
    """A call on tensors, and what PyTorch runs for it: the function itself or a module with the tensors inside."""

    name: str
    input: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run: Callable[..., Any]  # of the input
    training: bool = True

    def tensors(self) -> dict[Key, Any]:
        given = {"input": self.input, **dict(enumerate(self.args)), **self.kwargs}
        return {key: value for key, value in given.items() if isinstance(value, torch.Tensor)}

    def call(self) -> Call:
        """The same on copies as NumPy arrays."""
        kwargs = {key: plain(value) for key, value in self.kwargs.items()}
        return Call(self.name, plain(self.input), tuple(map(plain, self.args)), kwargs, self.training)


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy()
    return np.dtype(str(value).removeprefix("torch.")) if isinstance(value, torch.dtype) else value


@cache
def operation_named(name: str) -> Any:
    from torch.testing._internal.common_methods_invocations import op_db

    (found,) = [operation for operation in op_db if operation.full_name == name]
    return found


def operation_samples(name: str, dtype: str) -> Iterator[Sample]:
    """PyTorch's samples of one operation, the same every time."""
    operation = operation_named(name)
    torch.manual_seed(0)
    for s in operation.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True):
        yield Sample(name, s.input, s.args, s.kwargs, partial(run_operation, operation, s))


def run_operation(operation: Any, sample: Any, X: Any) -> Any:
    """The operation's output; of several, the first."""
    out = operation(X, *sample.args, **sample.kwargs)
    return out[0] if isinstance(out, tuple) else out


@cache
def module_named(name: str) -> Any:
    from torch.testing._internal.common_modules import module_db

    (found,) = [module for module in module_db if module.name == name]
    return found


def module_samples(name: str, dtype: str, training: bool) -> Iterator[Sample]:
    """PyTorch's inputs of one module, the same every time, with its function's arguments taken from the module."""
    info, kind = module_named(name), getattr(torch, dtype)
    torch.manual_seed(training)
    for inputs in info.module_inputs_func(info, device="cpu", dtype=kind, requires_grad=True, training=training):
        made, given = inputs.constructor_input, inputs.forward_input
        module = info.module_cls(*made.args, **made.kwargs).to(kind).train(training)
        X, *rest = (*given.args, *given.kwargs.values())
        function, args, kwargs = MODULES[name](module)
        if name == "nn.Embedding":  # the function's first argument is the table, for OpInfo's sake
            yield Sample(function, module.weight, (X,), kwargs, partial(run_embedding, module, X), training)
        else:
            yield Sample(function, X, (*rest, *args), kwargs, partial(run_module, module, rest), training)


def run_embedding(module: Any, indices: Any, table: Any) -> Any:
    return module(indices)


def run_module(module: Any, rest: list[Any], X: Any) -> Any:
    return module(X, *rest)


def below_threshold(sample: Sample) -> Sample:
    """Softplus on the elements where PyTorch computes it; above its threshold it returns the argument."""
    call = sample.call()
    beta, threshold = call.get(0, "beta", 1.0), call.get(1, "threshold", 20.0)
    kept = sample.input.detach()[beta * sample.input <= threshold]
    return replace(sample, input=kept.requires_grad_())


def check(sample: Sample, ops: Backend, dtype: str) -> None:
    """The output, the gradients of a random projection of it, and the tensors that the call changes."""
    if sample.name == "nn.functional.softplus":
        sample = below_threshold(sample)
    call, tensors = sample.call(), sample.tensors()
    out = sample.run(sample.input)
    r = np.random.default_rng(0).standard_normal(out.shape).astype(plain(out).dtype)
    leaves = {key: tensor for key, tensor in tensors.items() if tensor.requires_grad}
    if sample.name in LOSSES:
        leaves.pop(0, None)  # the target
    gradients = torch.autograd.grad((out * torch.from_numpy(np.asarray(r))).sum(), list(leaves.values()))
    answer = EXPRESSIONS[sample.name](ops, call, r)
    compare("output", answer.output, plain(out), dtype)
    for key, gradient in zip(leaves, gradients):
        compare(f"gradient of {key}", answer.gradients[key], plain(gradient), dtype, answer.sizes.get(key, 0.0))
    for key, value in answer.changed.items():
        compare(f"{key} afterwards", value, plain(tensors[key]), dtype, answer.sizes.get(key, 0.0))


def compare(what: str, actual: np.ndarray, expected: np.ndarray, dtype: str, size: float = 0.0) -> None:
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} instead of {expected.dtype}"
    assert np.isfinite(expected).all(), f"{what}: PyTorch gives {expected}"
    size, tolerance = max(size, float(np.abs(expected).max(initial=0.0))), DTYPES[dtype]
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * size, err_msg=what)


def check_all(samples: Iterator[Sample], ops: Backend, dtype: str) -> None:
    """Every sample that is not excused; all failures at once, by name."""
    failures, ran = [], 0
    for number, sample in enumerate(samples):
        call = sample.call()
        if excuses_for(call):
            continue
        ran += 1
        try:
            check(sample, ops, dtype)
        except Exception as error:  # whatever it is, it belongs to this sample: report it with the others
            failures.append(f"sample {number}, {call}: {type(error).__name__}: {error}")
    assert not failures, "\n\n".join([f"{len(failures)} of {ran} samples differ", *failures])
    assert ran, "all samples are excused"
