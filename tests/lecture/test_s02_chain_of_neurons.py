"""S2, a chain of one-neuron layers of any depth: notes 002 (6.10)–(6.29)."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.lecture.notes import load, sigmoid, sigmoid_slope

DEPTHS = range(1, 21)
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "sigmoid": (sigmoid, sigmoid_slope),
    "relu": (lambda z: max(z, 0.0), lambda z: float(z >= 0)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "identity": (lambda z: z, lambda z: 1.0),
}
CHAINS = {**{name: (name,) for name in FUNCTIONS}, "mixed": tuple(FUNCTIONS)}


class Chain:
    """z^ℓ = w^ℓ a^(ℓ-1) + w0^ℓ, a^ℓ = f^ℓ(z^ℓ), one number each."""

    def __init__(self, names: list[str], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.names, self.x = names, rng.uniform(0.5, 1.0)
        depth = len(names)
        sign = [1.0 if name == "relu" else rng.choice([-1.0, 1.0]) for name in names]  # so that no ReLU is dead
        self.w, self.w0 = sign * rng.uniform(0.6, 1.1, depth), sign * rng.uniform(0.0, 0.3, depth)
        self.a, self.z = [self.x], []
        for name, w, w0 in zip(names, self.w, self.w0):
            self.z.append(w * self.a[-1] + w0)
            self.a.append(FUNCTIONS[name][0](self.z[-1]))

    def gradient(self, layer: int, loss_slope: float) -> tuple[float, float]:
        """(6.29) term by term for w and, with ∂z/∂w0 = 1 as its last term, for w0; layers count from 0."""
        product = loss_slope
        for k in range(len(self.names) - 1, layer, -1):
            product *= FUNCTIONS[self.names[k]][1](self.z[k]) * self.w[k]
        product *= FUNCTIONS[self.names[layer]][1](self.z[layer])
        return product * self.a[layer], product  # a[layer] is the input of this layer

    def network(self, backend: Any) -> gn.Network:
        net = gn.Network([gn.Dense(1, name) for name in self.names], 1, device=backend, dtype="float64")
        weights = {f"{k}.W": [[w]] for k, w in enumerate(self.w)}
        return load(net, weights | {f"{k}.b": [[w0]] for k, w0 in enumerate(self.w0)})


def compare(chain: Chain, backend: Any, y: float, loss: Any, loss_slope: float) -> None:
    net = chain.network(backend)
    np.testing.assert_allclose(net.predict([[chain.x]]), [[chain.a[-1]]], rtol=1e-12)
    _, gradients = net.gradients([[chain.x]], [[y]], loss)
    for layer in range(len(chain.names)):
        of_w, of_w0 = chain.gradient(layer, loss_slope)
        assert of_w != 0  # so that a relative comparison says something
        np.testing.assert_allclose(gradients[f"{layer}.W"], [[of_w]], rtol=1e-12)
        np.testing.assert_allclose(gradients[f"{layer}.b"], [[of_w0]], rtol=1e-12)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", CHAINS)
def test_the_gradient_of_a_chain_of_neurons_with_square_loss_is_that_of_the_notes(
    backend: Any, kind: str, depth: int
) -> None:
    chain = Chain([CHAINS[kind][k % len(CHAINS[kind])] for k in range(depth)], depth)
    y = chain.a[-1] - 0.7
    compare(chain, backend, y, gn.SquaredError(), 2 * (chain.a[-1] - y))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_gradient_of_a_chain_of_neurons_with_log_loss_is_that_of_the_notes(
    backend: Any, depth: int, y: float
) -> None:
    chain = Chain([["tanh", "identity"][k % 2] for k in range(depth - 1)] + ["sigmoid"], 100 + depth)
    a = chain.a[-1]
    compare(chain, backend, y, gn.NLL(), -(y / a - (1 - y) / (1 - a)))
