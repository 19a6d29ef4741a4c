"""Arrays of another device than the network's: refused with the way to move them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.formula import formulas
from gpunn.errors import ArrayTypeError, ConfigurationError
from tests.conftest import backend_named, strict_backend
from tests.faults import exactly, unchanged
from tests.refusals import CROSS, LABELS, X, network_on


def test_a_network_on_the_cpu_refuses_an_array_on_a_gpu(strict: Any) -> None:
    network, foreign = network_on(backend_named("cpu")), strict.from_host(X)
    expected = (
        r"expected an array on cpu, got a [\w.]+\.ndarray on a GPU; "
        r"move one of the two: net = gn\.Network\(\.\.\., device='cuda'\), or x\.get\(\)$"
    )
    with unchanged(network), pytest.raises(ArrayTypeError, match=f"^X: {expected}"):
        network.predict(foreign)
    with unchanged(network), pytest.raises(ArrayTypeError, match=f"^y: {expected}"):
        network.gradients(X, strict.from_host(LABELS), CROSS)


def test_a_network_refuses_an_array_on_another_gpu() -> None:
    backend = strict_backend(devices=2)
    network = network_on(backend)
    with backend.xp.cuda.Device(1):
        foreign = backend.xp.ones((4, 3), "float32")
    with pytest.raises(
        ArrayTypeError,
        match=r"^X: expected an array on cuda:0, got a .*ndarray on cuda:1; "
        r"move it to cuda:0, or make the network with device='cuda:1'$",
    ):
        network.predict(foreign)


def test_a_network_refuses_a_list_of_device_arrays(strict: Any) -> None:
    network, rows = network_on(strict), [strict.from_host(row) for row in X]
    with pytest.raises(ArrayTypeError, match=r"^X: expected a rectangular table of numbers, got list .* NumPy array$"):
        network.predict(rows)


def square(backend: Any, size: int, on_device: bool) -> Any:
    host = np.ones((size, size), "float32")
    return backend.from_host(host) if on_device else host


OPERATIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "matmul": (3, lambda ops, A, B, out: ops.matmul(A, B, out=out)),
    "elementwise": (3, lambda ops, A, B, out: ops.elementwise(formulas.add, (A, B), (out,))),
    "affine": (3, lambda ops, X, W, out: ops.affine(X, W, None, None, out=out)),
    "affine with bias": (4, lambda ops, X, W, b, out: ops.affine(X, W, b, gn.ReLU(), out=out)),
    "affine_gradients": (3, lambda ops, X, dZ, dW: ops.affine_gradients(X, dZ, dW=dW, db=None)),
    "copy": (2, lambda ops, source, out: ops.copy(source, out=out)),
    "sum_product": (3, lambda ops, X, Y, out: ops.sum_product(X, Y, -1, out=out[:, :1])),
    "softmax": (2, lambda ops, Z, out: ops.softmax(Z, out=out)),
}


@pytest.mark.parametrize(
    ("operation", "wrong"), [(name, i) for name, (count, _) in OPERATIONS.items() for i in range(count)]
)
@pytest.mark.parametrize("size", [1, 2])
def test_operations_on_a_gpu_refuse_numpy_arrays(strict: Any, operation: str, wrong: int, size: int) -> None:
    """A kernel would take the number in a NumPy array of one element for an address."""
    count, call = OPERATIONS[operation]
    arrays = [square(strict, size, on_device=i != wrong) for i in range(count)]
    expected = r"\w+: expected arrays on cuda:0, got numpy\.ndarray; move it with backend\.from_host\(array\)$"
    with pytest.raises(ArrayTypeError, match=expected):
        call(strict, *arrays)
    if wrong < min(2, count - 1):
        assert (strict.to_host(arrays[-1]) == 1).all()


def test_a_compiled_pass_on_a_gpu_refuses_a_numpy_batch(strict: Any) -> None:
    network = network_on(strict)
    run = network.compile(4, CROSS)
    with unchanged(network), pytest.raises(ArrayTypeError, match="expected arrays on cuda:0, got numpy"):
        run.forward(X)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "CPU", "", None, 0])
def test_a_network_refuses_an_unknown_device(device: Any) -> None:
    message = (
        f'device: expected "auto", "cpu", "cuda" or "cuda:" and a number, got {device!r}; '
        "gpunn.backends.available_devices() lists those of this machine"
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        gn.Network([gn.Dense(2)], 3, device=device)
