"""What does an optimizer's update of all parameters cost, by their number?

    python -m benchmarks.update

Four square layers with biases, gradients that do not change. gpunn updates one flat buffer, PyTorch eight tensors by
its fused and by its foreach form, optax eight arrays under jit with donated state. Whose tensors do not have gpunn's
mean size after 20 updates is not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import RATES
from benchmarks.command import alone
from benchmarks.harness import NOT_INSTALLED, Calls, MissingPeerError, Row, Setting, agreeing, compared, say
from benchmarks.peers import competing, ours
from gpunn.backends.formula import formulas
from gpunn.optimizers.base import OptimizerFrame

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
LAYERS, CHECKED, TOLERANCE = 4, 20, 1e-4
Arrays = list[np.ndarray[Any, Any]]
Update = tuple[Callable[[], None], Callable[[], None], Callable[[], Arrays]]  # one, wait for it, the tensors


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for size in SIZES[: 1 if setting.quick else None]:
        values, gradients = problem(size)
        count = sum(value.size for value in values)
        for name, rate in RATES.items():
            case = f"{name}, {count:,} parameters"
            say(f"update: {case}")
            rows += measure(case, values, gradients, (name, rate), setting)
    return rows


def problem(size: int) -> tuple[Arrays, Arrays]:
    """W and b of each layer, with their gradients."""
    width = round((size / LAYERS) ** 0.5)
    rng = np.random.default_rng(0)
    shapes = [(width, width), (1, width)] * LAYERS
    values, gradients = ([rng.standard_normal(shape, np.float32) for shape in shapes] for _ in range(2))
    return values, gradients


def measure(case: str, values: Arrays, gradients: Arrays, optimizer: Any, setting: Setting) -> list[Row]:
    """All competitors, each compared with gpunn before it is timed."""
    kind = ours.kind_of(setting.device)
    expected = after(flat(values, gradients, *optimizer, setting.device))
    makers: dict[str, Callable[[], Update]] = {
        "gpunn": lambda: flat(values, gradients, *optimizer, setting.device),
        "gpunn jit": lambda: flat(values, gradients, *optimizer, competing("numba", "jit_peer").device()),
        "torch fused": lambda: torch(values, gradients, *optimizer, kind, fused=True),
        "torch foreach": lambda: torch(values, gradients, *optimizer, kind, foreach=True),
        "optax jit": lambda: optax(values, gradients, *optimizer, kind),
    }

    if kind == "cuda":
        del makers["gpunn jit"]

    def contender(make: Callable[[], Update]) -> Calls:
        agreeing(expected, after(make()), TOLERANCE, "the mean size of tensor")
        one, wait, _ = make()
        return Calls(one, wait)

    return compared("update", case, {name: lambda m=make: contender(m) for name, make in makers.items()}, setting)


def after(made: Update) -> list[float]:
    """Each tensor's mean size after some updates."""
    one, wait, read = made
    for _ in range(CHECKED):
        one()
    wait()
    return [float(np.abs(value).mean()) for value in read()]


def flat(values: Arrays, gradients: Arrays, name: str, rate: float, device: Any) -> Update:
    """The update of a training step, with the count that it moves on."""
    width = values[0].shape[0]
    network = gn.Network([gn.Dense(width)] * LAYERS, width, device=device)
    ops, store = network.ops, network.store
    for key, value, gradient in zip(store.views, values, gradients):
        store.set(key, value)
        ops.copy(ops.from_host(gradient), out=store.gradient_views[key])
    optimizer = gn.Adam(rate) if name == "Adam" else gn.SGD(rate)
    frame = OptimizerFrame(ops, store, optimizer)

    def step() -> None:
        optimizer.update(frame)
        ops.elementwise(formulas.add, (frame.count, 1.0), (frame.count,))

    with ops.quiet():
        program = ops.program(step)
    return program, ops.synchronize, lambda: [ops.to_host(view) for view in store.views.values()]


def torch(values: Arrays, gradients: Arrays, name: str, rate: float, kind: str, **form: bool) -> Update:
    peer = competing("torch", "torch_peer")
    peer.require(kind)
    library = peer.torch
    tensors = [library.nn.Parameter(library.tensor(value, device=kind)) for value in values]
    for tensor, gradient in zip(tensors, gradients):
        tensor.grad = library.tensor(gradient, device=kind)
    optimizer = getattr(library.optim, name)(tensors, lr=rate, **form)

    def wait() -> None:
        if kind == "cuda":
            library.cuda.synchronize()

    return optimizer.step, wait, lambda: [tensor.detach().cpu().numpy() for tensor in tensors]


def optax(values: Arrays, gradients: Arrays, name: str, rate: float, kind: str) -> Update:
    peer = competing("jax", "jax_peer")
    try:
        apply, state, given = peer.updates(values, gradients, name, rate, kind)
    except ImportError as error:
        raise MissingPeerError(f"{NOT_INSTALLED}: {error}") from error

    def one() -> None:
        nonlocal state
        state = apply(state, given)

    return one, lambda: peer.jax.block_until_ready(state), lambda: [np.asarray(value) for value in state[0]]


if __name__ == "__main__":
    alone("update")
