"""Networks that compute in half precision around float32 values: bfloat16, float16 with its loss scale, and tf32."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cuda import backend as cupy_backend
from gpunn.errors import CheckpointError, ConfigurationError, DataError, DeviceError
from gpunn.loss_scale import FIRST, LARGEST, PATIENCE
from tests.conftest import backend_named
from tests.faults import exactly
from tests.strict.standin import make_cupy

pytest.importorskip("ml_dtypes")
HALVES = ("bfloat16", "float16")
# What rounding the weights and each activation once may change of a gradient, relative to its largest element.
TOLERANCE = {"bfloat16": 0.06, "float16": 0.008, "tf32": 0.008}
RNG = np.random.default_rng(11)
X, Y = RNG.normal(size=(48, 6)), RNG.integers(0, 3, 48)

NETWORKS = {
    "relu": [gn.Dense(16, "relu"), gn.Dense(16, "relu"), gn.Dense(3)],
    "tanh": [gn.Dense(16, "tanh", bias=False), gn.Dense(3)],
    "gelu": [gn.Dense(16, gn.GELU(approximate="tanh")), gn.Dense(16, "gelu"), gn.Dense(3)],
    "batch norm": [gn.Dense(16, bias=False), gn.BatchNorm(activation="tanh"), gn.Dense(3)],
    "layer norm": [gn.Dense(16), gn.LayerNorm(activation="silu"), gn.RMSNorm(), gn.Dense(3)],
    "dropout": [gn.Dense(16, "relu"), gn.Dropout(0.3), gn.Dense(3)],
    "noise": [gn.GaussianNoise(0.1), gn.Dense(16, "softplus"), gn.Dense(3)],
    "residual": [gn.Dense(16), gn.Residual([gn.Dense(16, "elu"), gn.Dense(16)]), gn.Dense(3)],
    "branch": [gn.Branch([[gn.Dense(8, "relu")], [gn.Dense(4, "sigmoid")]]), gn.Dense(3)],
    "softmax inside": [gn.Dense(16, "softmax"), gn.Dense(3, "log_softmax"), gn.Dense(3)],
}


@pytest.fixture(params=["strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Any:
    return backend_named(request.param)


def network(device: Any, dtype: str, layers: Any = "relu", **options: Any) -> gn.Network:
    return gn.Network(NETWORKS.get(layers, layers) if isinstance(layers, str) else layers, 6, device=device,
                      dtype=dtype, **options)  # fmt: skip


def assert_near(found: Any, expected: Any, dtype: str) -> None:
    size = max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(found / size, expected / size, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("layers", NETWORKS)
@pytest.mark.parametrize("dtype", [*HALVES, "tf32"])
def test_half_precision_outputs_and_gradients_agree_with_float64_to_rounding(
    device: Any, dtype: str, layers: str, models: int | None
) -> None:
    half, exact = (network(d, t, layers, models=models) for d, t in ((device, dtype), ("cpu", "float64")))
    exact.load_parameters({n: half.ops.to_host(a) for n, a in {**half.parameters, **half.state}.items()})
    assert half.predict(X).dtype == np.float32
    assert_near(half.predict(X), exact.predict(X), dtype)
    (value, gradients), (wanted, expected) = (net.gradients(X, Y, gn.CrossEntropy()) for net in (half, exact))
    np.testing.assert_allclose(value, wanted, rtol=TOLERANCE[dtype])
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        assert_near(gradient, expected[name], dtype)


@pytest.mark.parametrize("loss", [gn.SquaredError(), gn.Huber(), gn.AbsoluteError(), gn.BinaryCrossEntropy()], ids=repr)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_losses_of_numbers_agree_with_float64(device: Any, dtype: str, loss: gn.losses.Loss) -> None:
    y = RNG.uniform(size=(48, 3))
    half, exact = (network(d, t) for d, t in ((device, dtype), ("cpu", "float64")))
    (value, gradients), (wanted, expected) = (net.gradients(X, y, loss) for net in (half, exact))
    np.testing.assert_allclose(value, wanted, rtol=TOLERANCE[dtype])
    assert_near(gradients["0.W"], expected["0.W"], dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_gradients_of_an_embedding_agree_with_float64(device: Any, dtype: str) -> None:
    rows = RNG.integers(0, 200, (48, 2))
    layers = [gn.Embedding(200, 4), gn.Flatten(), gn.Dense(3)]
    half, exact = (gn.Network(layers, 2, device=d, dtype=t) for d, t in ((device, dtype), ("cpu", "float64")))
    expected = exact.gradients(rows, Y, gn.CrossEntropy())[1]
    assert_near(half.gradients(rows, Y, gn.CrossEntropy())[1]["0.E"], expected["0.E"], dtype)


def options(**more: Any) -> dict[str, Any]:
    defaults = {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-2), "epochs": 8, "batch_size": 16, "keep": "last"}
    return {**defaults, **more}


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("dtype", [*HALVES, "tf32"])
def test_a_half_precision_training_follows_that_in_float32(device: Any, dtype: str, models: int | None) -> None:
    losses = []
    for d, t in ((device, dtype), ("cpu", "float32")):
        history = network(d, t, "batch norm", models=models).fit(X, Y, **options(validation=(X, Y)))
        losses.append((history["loss"], history["validation_loss"]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert (losses[0][0][-1] < 0.9 * losses[0][0][0]).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_networks_keep_values_gradients_and_moments_in_float32(device: Any, dtype: str) -> None:
    net = network(device, dtype, "batch norm")
    seen = []
    net.fit(X, Y, **options(epochs=1, callbacks=[lambda epoch, record: seen.append(record)]))
    run = net.compile(16, gn.CrossEntropy())
    frame = run.frame.children
    assert net.dtype == net.vector.dtype == net.gradient_vector.dtype == net.state["1.mean"].dtype == np.float32
    assert frame["0"].W.dtype == frame["0"].A.dtype == frame["1"].Xhat.dtype == net.precision.compute
    assert frame["1"].G.dtype == frame["1"].inverse.dtype == run.loss_frame.dA.dtype == np.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_steps_too_small_for_half_precision_add_up(device: Any, dtype: str) -> None:
    """A hundred updates of a ten-thousandth of a weight each, too small to change a half-precision number."""
    net = network(device, dtype, [gn.Dense(3, bias=False, initializer=gn.initializers.Constant(1.0))])
    start = net.ops.to_host(net.vector)
    net.fit(X, Y, **options(optimizer=gn.SGD(1e-4), steps=100, epochs=None))
    moved = net.ops.to_host(net.vector) - start
    assert np.abs(moved).max() > 1e-3
    W = net.ops.to_host(net.parameters["0.W"])
    net.predict(X[:16])  # which brings the copy up to date
    copy = net.ops.to_host(net.compile(16).frame.children["0"].W)
    np.testing.assert_array_equal(copy, W.astype(copy.dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_of_a_half_precision_population_is_the_single_network(device: Any, dtype: str) -> None:
    many = network(device, dtype, "dropout", models=2, seed=[3, 4])
    history = many.fit(X, Y, **options())
    for k in range(2):
        single = network(device, dtype, "dropout", seed=3 + k)
        np.testing.assert_allclose(single.fit(X, Y, **options())["loss"], history["loss"][:, k], rtol=2e-3)


@pytest.mark.parametrize("dtype", HALVES)
def test_captured_half_precision_updates_equal_uncaptured_ones(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = []
    for captured in "01":
        monkeypatch.setenv("GPUNN_CAPTURE", captured)
        net = network(backend_named("strict"), dtype, "batch norm")
        net.fit(X, Y, **options(accumulate=2))
        vectors.append(net.ops.to_host(net.vector).tobytes())
    assert vectors[0] == vectors[1]


# The loss scale of float16


def scale_of(net: gn.Network) -> Any:
    return net.ops.to_host(net.loss_scale.scale)


@pytest.mark.parametrize("models", [None, 2])
def test_an_overflow_in_float16_skips_the_update_and_halves_the_loss_scale(device: Any, models: int | None) -> None:
    net = network(device, "float16", models=models)
    net.loss_scale.scale[...] = LARGEST
    history = net.fit(X, Y, **options(epochs=8, loss=gn.CrossEntropy(reduction="sum"), optimizer=gn.Adam(1e-3)))
    assert (history["skipped"][0] > 0).all()
    assert (history["skipped"][-1] == 0).all()
    assert (scale_of(net) < LARGEST).all()
    assert np.isfinite(net.ops.to_host(net.vector)).all()
    assert (history["loss"][-1] < history["loss"][0]).all()


@pytest.mark.parametrize("optimizer", [gn.Adam(0.1), gn.SGD(0.1, momentum=0.9), gn.NAdam(0.1), gn.Lion(0.1)], ids=repr)
def test_an_update_skipped_after_an_overflow_changes_nothing(device: Any, optimizer: Any) -> None:
    net = network(device, "float16")
    net.fit(X, Y, **options(epochs=2, optimizer=optimizer))
    kept: list[dict[str, bytes]] = []

    def remember(run: Any) -> None:
        state = {**run.step.frame.state(), "values": net.vector}
        kept.append({name: net.ops.to_host(array).tobytes() for name, array in state.items()})
        net.loss_scale.scale[...] = np.inf  # so that every gradient overflows from here on

    class Remember(gn.Callback):
        wants_steps = True

        def on_step(self, run: Any) -> None:
            remember(run)

    net.fit(X, Y, **options(steps=3, epochs=None, optimizer=optimizer, callbacks=[Remember()]))
    assert len(kept) == 3
    assert kept[0] == kept[1] == kept[2]


class Zeros(gn.Callback):
    def on_step(self, run: Any) -> None:
        run.network.vector[...] = 0.0


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_written_by_a_callback_are_used_by_the_next_half_precision_step(device: Any, dtype: str) -> None:
    net = network(device, dtype)
    first, others = net.loss_of(X[:16], Y[:16], gn.CrossEntropy()), np.log(3)  # of equal outputs for three classes
    assert abs(first - others) > 0.01
    history = net.fit(X, Y, **options(epochs=1, sampling="sequential", callbacks=[Zeros()]))
    np.testing.assert_allclose(history["loss"], [(first + 2 * others) / 3], rtol=1e-5)


def test_the_loss_scale_doubles_after_many_good_updates(device: Any) -> None:
    net = network(device, "float16")
    net.loss_scale.streak[...] = PATIENCE - 2
    net.loss_scale.scale[...] = 1024.0
    net.fit(X, Y, **options(steps=3, epochs=None))
    assert scale_of(net) == 2048.0
    assert net.ops.to_host(net.loss_scale.streak) == 1.0


def test_a_model_that_overflows_in_float16_does_not_stop_the_others(device: Any) -> None:
    net = network(device, "float16", models=2, seed=[1, 2])
    alone = network(device, "float16", seed=1)
    values = net.ops.to_host(net.vector)
    values[1] *= 3e4  # whose products leave float16's range
    net.vector[...] = net.ops.from_host(values)
    both, single = (n.fit(X, Y, **options(epochs=2)) for n in (net, alone))
    np.testing.assert_allclose(both["loss"][:, 0], single["loss"], rtol=2e-3)


def test_gradients_are_returned_without_the_loss_scale(device: Any) -> None:
    net, exact = network(device, "float16"), network("cpu", "float64")
    before = scale_of(net)
    for factor in (1.0, 1e3):
        loss = gn.SquaredError(reduction="sum")
        y = np.full((48, 3), factor)
        found, expected = (n.gradients(X, y, loss)[1]["0.W"] for n in (net, exact))
        assert_near(found, expected, "float16")
    assert before == scale_of(net) == FIRST


def test_a_resumed_float16_training_has_the_bits_of_an_uninterrupted_one(device: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.gpunn"
    whole, half, again = (network(device, "float16", "dropout") for _ in range(3))
    for net in (whole, half):
        net.loss_scale.scale[...] = LARGEST
    loss = gn.CrossEntropy(reduction="sum")
    expected = whole.fit(X, Y, **options(epochs=4, loss=loss, keep="best"))
    half.fit(X, Y, **options(epochs=2, loss=loss, keep="best", checkpoint=path))
    history = again.fit(X, Y, **options(epochs=4, loss=loss, keep="best", resume=path))
    np.testing.assert_array_equal(history["loss"], expected["loss"])
    np.testing.assert_array_equal(history["skipped"], expected["skipped"])
    assert whole.ops.to_host(whole.vector).tobytes() == again.ops.to_host(again.vector).tobytes()
    assert scale_of(whole) == scale_of(again)


# Files


@pytest.mark.parametrize("dtype", [*HALVES, "tf32"])
def test_a_half_precision_network_is_saved_and_loaded(device: Any, dtype: str, tmp_path: Path) -> None:
    net = network(device, dtype, "batch norm")
    net.fit(X, Y, **options(epochs=1))
    net.save(tmp_path / "net.gpunn")
    back = gn.load(tmp_path / "net.gpunn", device=device)
    assert back.precision == net.precision
    assert back.ops.to_host(back.vector).tobytes() == net.ops.to_host(net.vector).tobytes()
    np.testing.assert_array_equal(back.predict(X), net.predict(X))
    plain = gn.load(tmp_path / "net.gpunn", device="cpu", dtype="float32")
    assert plain.vector.tobytes() == net.ops.to_host(net.vector).tobytes()
    assert_near(plain.predict(X), net.predict(X), dtype)
    with pytest.raises(CheckpointError, match=r"expected 'float32' or 'float64' on cpu, got '" + dtype):
        gn.load(tmp_path / "net.gpunn", device="cpu")


# What is refused


@pytest.mark.parametrize("dtype", [*HALVES, "tf32"])
def test_the_cpu_refuses_half_precision(dtype: str) -> None:
    message = (
        f"Network dtype: expected 'float32' or 'float64' on cpu, got {dtype!r}; use device=\"cuda\", or "
        'dtype="float32": NumPy has no fast products of that kind'
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        network("cpu", dtype)


@pytest.mark.parametrize("dtype", [*HALVES, "tf32"])
def test_cuda_without_cublaslt_refuses_half_precision(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_backend, "load_cublaslt", lambda: None)
    ops = cupy_backend.CupyBackend(cupy=make_cupy())
    with pytest.raises(DeviceError, match=r"expected cuBLASLt's products, .*pip install nvmath-python$"):
        network(ops, dtype)


def test_bfloat16_without_ml_dtypes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(DeviceError, match=r"expected NumPy to know the type, .*pip install ml_dtypes$"):
        network(backend_named("strict"), "bfloat16")


def test_lbfgs_refuses_half_precision() -> None:
    with pytest.raises(ConfigurationError, match=r"^LBFGS: expected a network of float32 or float64, .*'bfloat16'"):
        network(backend_named("strict"), "bfloat16").fit(X, Y, **options(optimizer=gn.LBFGS()))


def test_deterministic_training_refuses_tf32() -> None:
    with pytest.raises(ConfigurationError, match=r'^fit deterministic: .*, got dtype="tf32"; make the network'):
        network(backend_named("strict"), "tf32").fit(X, Y, **options(deterministic=True))


def test_deterministic_training_refuses_tf32_of_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", "1")
    network(backend_named("strict"), "float32").fit(X, Y, **options(deterministic=True, epochs=1))
    monkeypatch.setattr(cupy_backend, "load_cublaslt", lambda: None)
    bare = network(cupy_backend.CupyBackend(cupy=make_cupy()), "float32")
    with pytest.raises(ConfigurationError, match=r"^fit deterministic: .*, got CUPY_TF32=1; unset it, or pip install"):
        bare.fit(X, Y, **options(deterministic=True))


def test_tf32_is_used_only_by_networks_that_ask_for_it(device: Any) -> None:
    plain, rounded = network(device, "float32"), network(device, "tf32")
    assert (plain.ops.tf32, rounded.ops.tf32) == (False, True)
    assert network(rounded.ops, "float32").ops is plain.ops
    assert network(plain.ops, "tf32").ops is rounded.ops
    assert rounded.dtype == np.float32


def test_inputs_beyond_the_range_of_float16_are_refused(device: Any) -> None:
    with pytest.raises(DataError, match=r"^X: expected numbers in the range of float16"):
        network(device, "float16").predict(np.full((2, 6), 1e5))
    assert np.isfinite(network(device, "bfloat16").predict(np.full((2, 6), 1e5))).all()


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 256), ("float16", 2048)])
def test_embeddings_whose_indices_half_precision_would_round_are_refused(device: Any, dtype: str, most: int) -> None:
    def layers(categories: int) -> list[gn.Layer]:
        return [gn.Branch([[gn.Embedding(categories, 2), gn.Flatten()], [gn.Dense(2)]]), gn.Dense(3)]

    gn.Network(layers(most), 2, device=device, dtype=dtype)
    with pytest.raises(ConfigurationError, match=rf"expected at most {most} categories beside layers of numbers"):
        gn.Network(layers(most + 1), 2, device=device, dtype=dtype)
