"""Arrays of other libraries: those on the GPU are used without a copy, those on the host are uploaded once."""

import re
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ArrayTypeError, DataError
from gpunn.inputs import as_array
from tests.conftest import strict_backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
LABELS = RNG.integers(0, 2, 12)


class Column:
    """Like a column of cuDF or an array of Numba: the CUDA array interface and nothing else. The memory is the
    host's."""

    def __init__(self, host: np.ndarray, mask: Any = None, stream: int | None = None) -> None:
        self.host = host
        self.__cuda_array_interface__ = {
            "shape": host.shape, "typestr": host.dtype.str, "strides": host.strides, "version": 3,
            "data": (host.ctypes.data, True), "mask": mask, "stream": stream,
        }  # fmt: skip

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("copied by way of the host")


class Tensor:
    """Like a tensor of PyTorch or JAX on a GPU, with DLPack."""

    def __init__(self, host: np.ndarray, number: int = 0, kind: int = 2, **others: Any) -> None:
        self.host, self.place, self.streams = host, (kind, number), []
        vars(self).update(others)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place

    def __dlpack__(self, *, stream: Any, max_version: Any, copy: Any) -> Any:
        self.streams.append(stream)
        return self.host.__dlpack__(copy=False)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("copied by way of the host")


FOREIGN = {"interface": Column, "dlpack": Tensor}


OPTIONS: dict[str, Any] = {
    "loss": gn.CrossEntropy(), "optimizer": gn.SGD(0.1), "epochs": 2, "batch_size": 5, "class_weight": "balanced",
}  # fmt: skip


def network(ops: Any = "cpu", **options: Any) -> gn.Network:
    return gn.Network([gn.Dense(4, "tanh"), gn.Dense(2)], 3, device=ops, **options)


USES = {
    "predict": lambda net, X, y: net.predict(X),
    "probability": lambda net, X, y: net.predict_probability(X, loss=gn.CrossEntropy()),
    "gradients": lambda net, X, y: net.gradients(X, y, gn.CrossEntropy())[1]["0.W"],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_array_on_the_gpu_is_taken_without_a_copy(kind: str) -> None:
    ops = strict_backend()
    foreign = FOREIGN[kind](X)
    ops.xp.counters.reset()
    array = as_array("X", foreign, ops)
    assert set(ops.xp.counters.snapshot().values()) == {0}
    assert ops.owns(array) and array.host.ctypes.data == X.ctypes.data and array.shape == X.shape
    assert array.device.id == 0 and array.dtype == X.dtype


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_arrays_on_the_gpu_give_cupy_results(kind: str, use: str) -> None:
    ops = strict_backend()
    net, wrap = network(ops), FOREIGN[kind]
    expected = USES[use](net, X, LABELS)
    assert isinstance(expected, np.ndarray)
    result = USES[use](net, wrap(X), wrap(LABELS))
    assert ops.owns(result)
    np.testing.assert_array_equal(ops.to_host(result), expected)
    np.testing.assert_array_equal(USES[use](net, X, wrap(LABELS)), expected)
    assert ops.owns(USES[use](net, wrap(X), LABELS))


def test_predicting_for_a_foreign_array_on_the_gpu_copies_no_data() -> None:
    ops = strict_backend()
    net, foreign = network(ops), Tensor(X)
    net.predict(foreign)
    ops.xp.counters.reset()
    net.predict(foreign)
    assert ops.xp.counters.transfers == 2  # the smallest and the largest number, to know that all are finite


@pytest.mark.parametrize("kind", FOREIGN)
def test_training_on_foreign_arrays_on_the_gpu_equals_that_on_numpy_arrays(kind: str) -> None:
    ops = strict_backend()
    wrap = FOREIGN[kind]
    ours, theirs = network(ops), network(ops)
    ours.fit(X, LABELS, validation=(X, LABELS), sample_weight=np.arange(12.0), **OPTIONS)
    weight = wrap(np.arange(12.0))
    theirs.fit(wrap(X), wrap(LABELS), validation=(wrap(X), wrap(LABELS)), sample_weight=weight, **OPTIONS)
    np.testing.assert_array_equal(ops.to_host(ours.vector), ops.to_host(theirs.vector))
    assert ours.evaluate(X, LABELS) == theirs.evaluate(wrap(X), wrap(LABELS))


def test_strides_of_foreign_arrays_are_respected() -> None:
    ops = strict_backend()
    net, wide = network(ops), np.repeat(X, 2, axis=1)
    for view in (wide[:, ::2], np.asfortranarray(X)):
        assert not view.flags.c_contiguous
        for wrap in FOREIGN.values():
            array = as_array("X", wrap(view), ops)
            assert array.strides == view.strides
            np.testing.assert_array_equal(ops.to_host(net.predict(wrap(view))), net.predict(X))


def test_the_library_of_a_foreign_array_is_told_the_stream() -> None:
    ops = strict_backend()
    tensor, column = Tensor(X), Column(X, stream=7)
    as_array("X", tensor, ops)
    with ops.xp.cuda.Stream(non_blocking=True) as stream:
        as_array("X", tensor, ops)
        assert tensor.streams == [1, stream.ptr]
    ops.xp.counters.reset()
    as_array("X", column, ops)
    assert ops.xp.counters.synchronisations == 1  # CuPy waits for the stream that the interface names


@pytest.mark.parametrize("kind", [2, 13])
def test_managed_memory_counts_as_memory_of_the_gpu(kind: int) -> None:
    ops = strict_backend()
    assert ops.owns(as_array("X", Tensor(X, kind=kind), ops))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "bool"])
def test_foreign_arrays_of_every_dtype_of_numbers_are_taken(dtype: str) -> None:
    ops = strict_backend()
    net, given = network(ops), (10 * X).astype(dtype) if dtype != "bool" else X > 0
    for wrap in (Tensor, Column):
        np.testing.assert_array_equal(ops.to_host(net.predict(wrap(given))), net.predict(given))


# Refused


def moved(message: str, ops: Any, value: Any, kind: type[Exception] = ArrayTypeError) -> None:
    with pytest.raises(kind, match=rf"^X: {message}"):
        as_array("X", value, ops)


def test_foreign_arrays_on_another_gpu_are_refused() -> None:
    ops = strict_backend(devices=2)
    cure = r"move it to cuda:0, or make the network with device='cuda:1'"
    moved(rf"expected an array on cuda:0, got a tests\.test_interchange\.Tensor on cuda:1; {cure}", ops, Tensor(X, 1))
    column = Column(X.copy())
    ops.xp.machine.homes[column.host.ctypes.data] = 1
    moved(rf"expected an array on cuda:0, got a tests\.test_interchange\.Column on cuda:1; {cure}", ops, column)
    managed = Tensor(X, 1, kind=13)
    moved(rf"expected an array on cuda:0, got a .*Tensor on cuda:1; {cure}", ops, managed)
    with ops.xp.cuda.Device(1):
        cupy = ops.xp.zeros((2, 3))
    moved(rf"expected an array on cuda:0, got a .*ndarray on cuda:1; {cure}", ops, cupy)


def test_foreign_arrays_with_nulls_or_gradients_are_refused() -> None:
    ops = strict_backend()
    nulls = Column(X, mask=Column(np.zeros(12, np.uint8)))
    moved("expected a number everywhere, got a column with nulls; fill them or drop their rows", ops, nulls, DataError)
    moved(
        r"expected an array on cuda:0, got a .*Tensor on a device that is not CUDA's; move it to cuda:0", ops,
        Tensor(X, kind=10),
    )  # fmt: skip

    class Strange(Tensor):
        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("four bits")

    moved(
        r"expected an array that CuPy can read, got a .*Strange \(four bits\); convert it to float32 in its",
        ops, Strange(X),
    )  # fmt: skip
    moved(r"expected plain numbers, got a .*Tensor that requires grad; pass x\.detach\(\)", ops,
          Tensor(X, requires_grad=True))  # fmt: skip
    assert as_array("X", Tensor(X, requires_grad=False), ops) is not None


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("torch", "x.cpu()"), ("jaxlib.xla", "jax.device_get(x)"), ("cudf.core", "x.to_numpy()"),
        ("numba.cuda", "x.copy_to_host()"), ("cupy", "x.get()"), ("elsewhere", "x.get()"),
    ],
)  # fmt: skip
def test_a_network_on_the_cpu_refuses_foreign_arrays_on_the_gpu(library: str, call: str) -> None:
    kind = type("Tensor", (Tensor,), {"__module__": library})
    cure = re.escape(f"move one of the two: net = gn.Network(..., device='cuda'), or {call}")
    message = rf"expected an array on cpu, got a {library}\.Tensor on a GPU; {cure}"
    moved(message, network().ops, kind(X))
    moved(message, network().ops, kind(X, kind=8))


def test_a_data_frame_on_the_gpu_is_refused_with_advice() -> None:
    class Frame:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise TypeError("Implicit conversion to a host NumPy array via __array__ is not allowed")

        def to_cupy(self) -> Any: ...

    moved(
        r"expected a rectangular table of numbers, got Frame \(Implicit .*; pass x\.to_cupy\(\)", network().ops, Frame()
    )


# In host memory


class Bare:
    """An array that has DLPack and nothing else."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        return X.__dlpack__(**options)


@pytest.mark.parametrize("device", ["cpu", "strict"])
def test_dlpack_arrays_in_host_memory_are_taken_without_a_copy(device: str, request: pytest.FixtureRequest) -> None:
    net = network(device if device == "cpu" else request.getfixturevalue("strict"))
    result = net.predict(Bare())
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, net.predict(X))
    assert np.may_share_memory(as_array("X", Bare(), net.ops), X)


def test_bfloat16_inputs_become_float32(strict: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    short = X.astype(ml_dtypes.bfloat16)
    net = network()
    np.testing.assert_array_equal(net.predict(short), net.predict(short.astype(np.float32)))
    assert as_array("X", short, net.ops).dtype == np.float32
    on_device = as_array("X", strict.xp.asarray(X).astype(ml_dtypes.bfloat16), strict)
    assert on_device.dtype == np.float32
    np.testing.assert_array_equal(strict.to_host(on_device), short.astype(np.float32))


@pytest.mark.parametrize("use", USES)
def test_torch_tensors_in_host_memory_are_taken_as_numpy_arrays(backend: Any, use: str) -> None:
    torch = pytest.importorskip("torch")
    net = network(backend)
    expected = USES[use](net, X, LABELS)
    result = USES[use](net, torch.from_numpy(X), torch.from_numpy(LABELS))
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, expected)


def test_a_torch_tensor_in_host_memory_is_uploaded_once() -> None:
    torch = pytest.importorskip("torch")
    ops = strict_backend()
    net = network(ops)
    net.predict(X)
    ops.xp.counters.reset()
    net.predict(torch.from_numpy(X))
    assert ops.xp.counters.transfers == 2  # there, and the outputs back
    assert np.may_share_memory(as_array("X", torch.from_numpy(X), ops), X)


def test_training_on_torch_tensors_equals_that_on_numpy_arrays(backend: Any) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = network(backend), network(backend)
    ours.fit(X, LABELS, validation=0.25, **OPTIONS)
    theirs.fit(torch.from_numpy(X), torch.from_numpy(LABELS), validation=0.25, **OPTIONS)
    np.testing.assert_array_equal(backend.to_host(ours.vector), backend.to_host(theirs.vector))


TENSORS = {
    "that requires grad": (
        "torch.ones(2, 3, requires_grad=True)",
        r"expected plain numbers, got a torch\.Tensor that requ",
    ),
    "a parameter": ("torch.nn.Parameter(torch.ones(2, 3))", r".* that requires grad; pass x\.detach\(\)"),
    "of bfloat16": (
        "torch.ones(2, 3).bfloat16()",
        r"expected a rectangular .*, got Tensor \(Got unsupported ScalarType BF",
    ),
    "without memory": ("torch.ones(2, 3, device='meta')", r"expected .*, got Tensor \(.*meta"),
    "sparse": ("torch.ones(2, 3).to_sparse()", r"expected .*, got Tensor \(.*Use Tensor\.to_dense\(\) first"),
    "complex": ("torch.ones(2, 3, dtype=torch.complex64)", "expected real numbers, got dtype complex64"),
}


@pytest.mark.parametrize("tensor", TENSORS)
def test_torch_tensors_that_cannot_be_read_are_refused(backend: Any, tensor: str) -> None:
    torch = pytest.importorskip("torch")
    made, message = TENSORS[tensor]
    with pytest.raises(ArrayTypeError, match=rf"^X: {message}"):
        network(backend).predict(eval(made, {"torch": torch}))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_torch_tensors_on_the_gpu_are_taken(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    from tests.conftest import backend_named

    ops = backend_named("cuda")
    tensor = (10 * torch.from_numpy(X)).to("cuda").to(getattr(torch, dtype))
    array = as_array("X", tensor, ops)
    assert ops.owns(array) and (dtype == "bfloat16" or array.data.ptr == tensor.data_ptr())
    net = network(ops)
    result = net.predict(tensor)
    assert ops.owns(result)
    np.testing.assert_array_equal(ops.to_host(result), net.predict(tensor.float().cpu()))
    strided = tensor.repeat(1, 2)[:, :3].T.contiguous().T
    np.testing.assert_array_equal(ops.to_host(net.predict(strided)), ops.to_host(result))


@pytest.mark.cuda
def test_arrays_with_the_cuda_array_interface_are_taken() -> None:
    from tests.conftest import backend_named

    ops = backend_named("cuda")

    class Only:
        def __init__(self, array: Any) -> None:
            self.array, self.__cuda_array_interface__ = array, array.__cuda_array_interface__

    held = ops.from_host(X)
    array = as_array("X", Only(held), ops)
    assert ops.owns(array) and array.data.ptr == held.data.ptr
