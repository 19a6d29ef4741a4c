"""Dense layers agree with the reference on every backend; on CUDA bias and activation are fused with the product."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cuda import backend as cupy_backend
from gpunn.backends.cuda.gemm_plan import mask_bytes
from gpunn.backends.reference.backend import Backend
from tests.conftest import strict_backend
from tests.strict.epilogues import Epilogue
from tests.strict.standin import make_cupy

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
ACTIVATIONS = (None, gn.ReLU(), gn.GELU("tanh"), gn.GELU(), gn.Tanh(), gn.LeakyReLU(-0.1), gn.Softmax())
# examples, width below, units, units of the layer above
SIZES = ((6, 3, 8, 5), (1, 1, 1, 1), (5, 4, 1, 3), (7, 2, 130, 1), (33, 16, 16, 10))


class Layer:
    """The arrays of one dense layer and the width of the layer above it, on a backend."""

    def __init__(
        self, ops: Any, dtype: str, sizes: tuple[int, ...], activation: Any, models: int | None, bias: bool = True
    ) -> None:
        self.ops, self.dtype, self.activation = ops, dtype, activation
        self.rng = np.random.default_rng([*sizes, models or 0])
        self.lead, (n, below, units, above) = () if models is None else (models,), sizes
        self.X, self.W, self.b = self.random(n, below), self.random(below, units), self.random(1, units)
        self.dZ, self.W_above = self.random(n, above), self.random(units, above)
        if not bias:
            self.b = None
        self.A, self.Z, self.dX, self.out = (self.empty(n, units) for _ in range(4))
        self.dW, self.db = self.empty(below, units), self.empty(1, units)
        bits = activation is not None and activation.ending == "relu" and ops.name == "cuda"
        self.aux = ops.empty((*self.lead, n, mask_bytes(units)), "uint8") if bits else None

    def random(self, *shape: int) -> Any:
        values = self.rng.standard_normal((*self.lead, *shape)).astype(np.float32)
        return self.ops.from_host(values.astype(self.dtype))

    def empty(self, *shape: int) -> Any:
        return self.ops.zeros((*self.lead, *shape), self.dtype)

    @property
    def kept(self) -> Any:
        return self.A if self.activation is None or self.activation.keeps_output else self.Z

    def forward(self) -> None:
        Z = self.Z if self.kept is self.Z else None
        assert self.ops.affine(self.X, self.W, self.b, self.activation, out=self.A, Z=Z, aux=self.aux) is self.A

    def on_to_below(self) -> Any:
        return self.ops.input_gradient(
            self.dZ, self.W_above, self.dX, self.activation, self.kept, self.aux, out=self.out
        )

    def run(self) -> list[np.ndarray]:
        """Forward and backward through the layer: A and Z, dZ from the layer above, dW and db."""
        self.forward()
        kept = [self.ops.to_host(self.A), self.ops.to_host(self.kept)]
        dZ = self.on_to_below()
        assert dZ is (self.dX if self.activation is None else self.out)
        self.ops.affine_gradients(self.X, dZ, dW=self.dW, db=self.db)
        return [*kept, *map(self.ops.to_host, (dZ, self.dW, self.db))]


def assert_close(got: list[np.ndarray], wanted: list[np.ndarray], dtype: str) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        size = max(1.0, float(np.abs(theirs).max(initial=0)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * size)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_a_dense_layer_forward_and_backward_agrees_with_the_reference(
    backend: Any, activation: Any, models: int | None, dtype: str
) -> None:
    for sizes in SIZES:
        for bias in (True, False):
            expected = Layer(Backend(), "float64", sizes, activation, models, bias).run()
            assert_close(Layer(backend, dtype, sizes, activation, models, bias).run(), expected, dtype)


def test_a_dense_layer_takes_inputs_and_biases_shared_by_all_models(backend: Any) -> None:
    for activation in ACTIVATIONS:
        layers = [Layer(ops, "float64", (6, 3, 8, 5), activation, 3) for ops in (backend, Backend())]
        for layer in layers:
            layer.X, layer.b = layer.X[0], layer.b[0]
        assert_close(layers[0].run(), layers[1].run(), "float64")


def test_the_derivative_of_relu_at_zero_is_zero(backend: Any) -> None:
    layer = Layer(backend, "float32", (6, 3, 8, 5), gn.ReLU(), None)
    layer.X, layer.b = backend.zeros((6, 3), "float32"), backend.zeros((1, 8), "float32")
    assert not layer.run()[2].any()


def test_a_subclass_of_relu_is_not_fused_as_relu() -> None:
    class Clipped(gn.ReLU):
        name = ""

    class Steeper(gn.GELU):
        name = ""

    assert [f.ending for f in (gn.ReLU(), gn.GELU("tanh"))] == ["relu", "gelu"]
    assert [f.ending for f in (Clipped(), Steeper("tanh"), gn.GELU(), gn.Tanh())] == [None] * 4


# How many launches

ONE = {"launches": 1, "transfers": 0, "synchronisations": 0, "allocations": 0}


def launches(layer: Layer, work: Any) -> list[Epilogue]:
    """The epilogues of the products that a second run launches; it must launch nothing else."""
    counters, lt = layer.ops.xp.counters, layer.ops.cublaslt.module
    work()
    counters.reset()
    before = len(lt.launched)
    work()
    assert counters.snapshot() == ONE
    return list(lt.launched[before:])


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("units", [8, 1])
def test_a_fused_dense_layer_takes_one_launch_forward_and_two_backward(
    strict: Any, models: int | None, units: int
) -> None:
    for activation, bias, forward, backward in (
        (None, True, Epilogue.BIAS, Epilogue.DEFAULT),
        (gn.ReLU(), True, Epilogue.RELU_AUX_BIAS, Epilogue.DRELU),
        (gn.ReLU(), False, Epilogue.RELU_AUX, Epilogue.DRELU),
        (gn.GELU("tanh"), True, Epilogue.GELU_AUX_BIAS, Epilogue.DGELU),
        (gn.GELU("tanh"), False, Epilogue.GELU_AUX, Epilogue.DGELU),
    ):
        if units == 1 and activation == gn.GELU("tanh"):
            continue  # its argument would need rows of eight
        layer = Layer(strict, "float32", (6, 3, units, 5), activation, models, bias)
        assert launches(layer, layer.forward) == [forward]
        assert launches(layer, layer.on_to_below) == [backward]
        sums = lambda layer=layer: layer.ops.affine_gradients(layer.X, layer.out, dW=layer.dW, db=layer.db)  # noqa: E731
        assert launches(layer, sums) == [Epilogue.BGRADA]


def test_relu_keeps_no_mask_if_no_backward_pass_follows(strict: Any) -> None:
    layer = Layer(strict, "float32", (6, 3, 8, 5), gn.ReLU(), None)
    layer.aux = None
    assert launches(layer, layer.forward) == [Epilogue.RELU_BIAS]


def test_the_bias_is_added_in_the_launch_of_an_activation_that_is_not_fused(strict: Any) -> None:
    layer = Layer(strict, "float32", (6, 3, 8, 5), gn.Tanh(), None)
    layer.forward()
    strict.xp.counters.reset()
    layer.forward()
    assert strict.xp.counters.launches == 2


# Where cuBLASLt has no such ending


@pytest.fixture
def own() -> Any:
    """A new backend: no other test has made it remember refusals."""
    return strict_backend()


@pytest.mark.parametrize("refused", [
    set(Epilogue) - {Epilogue.DEFAULT}, {Epilogue.RELU_AUX_BIAS}, {Epilogue.DRELU, Epilogue.DGELU}, {Epilogue.BGRADA},
])  # fmt: skip
def test_a_fused_ending_that_cublaslt_refuses_changes_no_number(own: Any, refused: set[Epilogue]) -> None:
    own.cublaslt.module.refused = refused
    for models in (None, 3):
        for activation in ACTIVATIONS:
            layer = Layer(own, "float64", (6, 3, 8, 5), activation, models)
            expected = Layer(Backend(), "float64", (6, 3, 8, 5), activation, models).run()
            assert_close(layer.run(), expected, "float64")
            heuristics = own.cublaslt.module.heuristic_calls
            assert_close(layer.run(), expected, "float64")
            assert own.cublaslt.module.heuristic_calls == heuristics  # settled the first time
    assert not refused & set(own.cublaslt.module.launched)


def test_relu_is_fused_without_its_mask_if_cublaslt_refuses_the_mask(own: Any) -> None:
    own.cublaslt.module.refused = {Epilogue.RELU_AUX_BIAS}
    layer = Layer(own, "float32", (6, 3, 8, 5), gn.ReLU(), None)
    assert launches(layer, layer.forward) == [Epilogue.RELU_BIAS]


def test_a_relu_mask_of_an_earlier_run_is_not_read(own: Any) -> None:
    layer = Layer(own, "float64", (6, 3, 8, 5), gn.ReLU(), None)
    layer.run()  # with bits
    layer.X = own.from_host(-own.to_host(layer.X))
    layer.b = own.from_host(np.full((6, 8), 0.5))  # one for each row, which no ending has
    layer.run()
    A = own.to_host(layer.A)
    dX = own.to_host(layer.dZ) @ own.to_host(layer.W_above).T
    np.testing.assert_allclose(own.to_host(layer.out), dX * (A > 0), rtol=1e-12)


def test_dense_layers_without_cublaslt_agree_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_backend, "load_cublaslt", lambda: None)
    backend = cupy_backend.CupyBackend(cupy=make_cupy())
    for models in (None, 3):
        for activation in ACTIVATIONS:
            expected = Layer(Backend(), "float64", (6, 3, 8, 5), activation, models).run()
            assert_close(Layer(backend, "float64", (6, 3, 8, 5), activation, models).run(), expected, "float64")


@pytest.mark.parametrize("cublaslt", [True, False])
def test_half_precision_products_into_float32_keep_the_digits_of_their_sums(
    cublaslt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_backend, "load_cublaslt", lambda: None)
    backend = strict_backend() if cublaslt else cupy_backend.CupyBackend(cupy=make_cupy())
    X = backend.from_host(np.full((4000, 2), 10, "float16"))
    dW = backend.zeros((2, 2), "float32")
    backend.matmul(X.mT, X, out=dW)
    np.testing.assert_array_equal(backend.to_host(dW), 400000)  # float16 ends at 65504
