"""The stand-in for CuPy: what it refuses, counts and records."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.strict import names
from tests.strict.standin import CUDARuntimeError, OutOfMemoryError, make_cupy

IMPLICIT = r"Implicit conversion to a NumPy array is not allowed\. Please use `\.get\(\)`"
HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def cp() -> Any:
    """A fresh stand-in."""
    return make_cupy()


@pytest.fixture
def a(cp: Any) -> Any:
    """A device array holding `HOST`; the counters start behind it."""
    array = cp.asarray(HOST)
    cp.counters.reset()
    return array


def signatures() -> dict[str, Any]:
    """The stand-in's functions that have one, by name."""
    cp = make_cupy()
    return {k: inspect.signature(f) for k, f in vars(cp).items() if inspect.isfunction(f) and k not in names.UFUNCS}


@pytest.mark.parametrize("name", sorted(k for k in vars(make_cupy()) if k not in ("counters", "machine")))
def test_every_name_is_cupys(name: str) -> None:
    real = pytest.importorskip("cupy")
    assert hasattr(real, name)


@pytest.mark.parametrize("name", sorted(set(signatures()) - {"abs", "fuse", "einsum"}))
def test_every_argument_is_cupys(name: str) -> None:
    real = pytest.importorskip("cupy")
    theirs = {
        p.name: (i, p.kind, p.default) for i, p in enumerate(inspect.signature(getattr(real, name)).parameters.values())
    }
    places = []
    for p in signatures()[name].parameters.values():
        assert p.name in theirs, f"cupy.{name} has no argument {p.name}"
        place, kind, default = theirs[p.name]
        assert p.kind == kind
        assert p.default is default or p.default == default
        places.append(place)
    assert places == sorted(places)


@pytest.mark.parametrize("part", ["cuda", "cuda.runtime", "cuda.memory", "cuda.compiler"])
def test_every_part_of_cuda_is_cupys(part: str) -> None:
    real: Any = pytest.importorskip("cupy")
    ours: Any = make_cupy()
    for step in part.split("."):
        real, ours = getattr(real, step), getattr(ours, step)
    assert [k for k in vars(ours) if not hasattr(real, k)] == []


def test_every_method_is_cupys() -> None:
    real = pytest.importorskip("cupy")
    own = {"host", "machine", "functions", "view_of_host", "new", "__array_function__"}
    methods = [k for k in dir(make_cupy().ndarray) if k not in own and not (k.startswith("_") and k[1] != "_")]
    assert [k for k in methods if k not in dir(object) and not hasattr(real.ndarray, k)] in ([], ["__weakref__"])


@pytest.mark.parametrize("name", ["errstate", "insert", "block", "vecdot", "geomspace"])
def test_a_name_that_cupy_lacks_is_missing(cp: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'cupy' has no attribute '{name}'"):
        getattr(cp, name)


@pytest.mark.parametrize("convert", [np.asarray, np.array, np.sum, lambda x: np.add(x, x), lambda x: np.exp(x)])
def test_implicit_conversion_is_refused(a: Any, convert: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=IMPLICIT):
        convert(a)


@pytest.mark.parametrize("other", [HOST, [1, 2, 3], "x", HOST[0, 0:1]])
@pytest.mark.parametrize(
    "mix", [lambda cp, a, x: a + x, lambda cp, a, x: cp.maximum(a, x), lambda cp, a, x: cp.where(a > 0, a, x)]
)
def test_mixing_is_refused(cp: Any, a: Any, other: Any, mix: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"Unsupported type <class"):
        mix(cp, a, other)


def test_mixing_is_refused_from_the_left_and_in_assignments(a: Any) -> None:
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        HOST + a
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        a[...] = HOST
    with pytest.raises(TypeError, match=r"Unsupported type <class 'list'>"):
        a[0] = [1, 2, 3]
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        a[np.array([0, 1])]


@pytest.mark.parametrize("scalar", [2, 2.0, True, np.float32(2)])
def test_scalars_are_taken_from_both_sides(a: Any, scalar: Any) -> None:
    np.testing.assert_array_equal((a * scalar).get(), HOST * scalar)
    np.testing.assert_array_equal((scalar - a).get(), scalar - HOST)
    assert (a * scalar).dtype == np.float32


def test_a_float64_scalar_promotes(a: Any) -> None:
    assert (a * np.float64(2)).dtype == np.float64


@pytest.mark.parametrize("function", ["add", "exp", "maximum"])
def test_where_is_refused_by_ufuncs(cp: Any, a: Any, function: str) -> None:
    arguments = (a,) if function == "exp" else (a, a)
    with pytest.raises(TypeError, match="Wrong arguments {'where'"):
        getattr(cp, function)(*arguments, where=a > 0)


@pytest.mark.parametrize(
    ("function", "argument"), [("sum", "where"), ("sum", "initial"), ("max", "initial"), ("take", "mode")]
)
def test_arguments_that_cupy_lacks_are_refused(cp: Any, a: Any, function: str, argument: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{argument}'"):
        getattr(cp, function)(a, **({"indices": a} if function == "take" else {}), **{argument: 0})
    with pytest.raises(TypeError, match="missing a required argument: 'a_max'"):
        cp.clip(a, 0)


def test_wrong_outputs_are_refused(cp: Any, a: Any) -> None:
    with pytest.raises(ValueError, match="Out shape is mismatched"):
        cp.add(a, a, out=cp.empty((3, 2), "f4"))
    with pytest.raises(TypeError, match="Cannot cast output operand from dtype"):
        cp.add(a, a, out=cp.empty((2, 3), "i4"))
    with pytest.raises(TypeError, match=r"Output arguments type must be cupy\.ndarray"):
        cp.add(a, a, out=HOST.copy())
    with pytest.raises(ValueError, match="Output array must be C-contiguous"):
        cp.dot(a, a.T, out=cp.empty((2, 2), "f4").T)
    with pytest.raises(ValueError, match="Output array has dtype float64"):
        cp.dot(a, a.T, out=cp.empty((2, 2)))
    with pytest.raises(ValueError, match="Output array has an invalid size"):
        cp.dot(a, a.T, out=cp.empty((2, 3), "f4"))
    with pytest.raises(TypeError, match="Only cupy arrays can be concatenated"):
        cp.concatenate([a, HOST])


def test_values_are_numpys(cp: Any, a: Any) -> None:
    for name in ("sum", "mean", "max", "min", "argmax", "var", "std", "cumsum"):
        np.testing.assert_array_equal(getattr(cp, name)(a, axis=1).get(), getattr(np, name)(HOST, axis=1))
    np.testing.assert_allclose((a @ a.mT).get(), HOST @ HOST.T)
    np.testing.assert_array_equal(cp.clip(a, 1, 3).get(), HOST.clip(1, 3))
    np.testing.assert_array_equal(cp.take(a, cp.asarray([4, -1, 7])).get(), [4, 5, 1])
    np.testing.assert_array_equal(a[cp.asarray([3, -1])].get(), HOST[[1, 1]])
    np.testing.assert_array_equal(a[a > 2].get(), HOST[HOST > 2])
    np.testing.assert_array_equal(cp.concatenate([a, a], axis=1).get(), np.concatenate([HOST, HOST], axis=1))
    np.testing.assert_array_equal(cp.argsort(-a, axis=1).get(), [[2, 1, 0]] * 2)
    np.testing.assert_array_equal(cp.arange(3).get(), np.arange(3))
    assert cp.sum(a).shape == () and isinstance(cp.sum(a), cp.ndarray)
    a -= 1
    a[:, 1] += 10
    np.testing.assert_array_equal(a.get(), HOST - 1 + np.array([0, 10, 0]))


def test_fresh_memory_is_poisoned(cp: Any) -> None:
    assert np.isnan(cp.empty(3).get()).all()
    assert (cp.empty(3, "i4").get() == 0x55).all()


def test_views_share_memory_and_cost_nothing(cp: Any, a: Any) -> None:
    views = [a[0], a[:, 1], a.T, a.mT, a.reshape(3, 2), a.ravel(), a.view(np.int32), cp.expand_dims(a, 0), a[None]]
    assert cp.counters.snapshot() == dict.fromkeys(("launches", "transfers", "synchronisations", "allocations"), 0)
    assert all(cp.may_share_memory(a, v) for v in views)
    a.T.ravel()
    assert cp.counters.allocations == 1
    second = cp.ndarray((3,), "f4", a.data + 12)
    second.fill(7)
    np.testing.assert_array_equal(a.get()[1], [7, 7, 7])
    interface = a.__cuda_array_interface__
    assert interface["data"] == (a.data.ptr, False) and interface["version"] == 3 and interface["strides"] is None


@pytest.mark.parametrize(
    ("use", "cost"),
    [
        (lambda cp, a: a + 1, (1, 0, 0, 1)),
        (lambda cp, a: cp.add(a, 1, out=a), (1, 0, 0, 0)),
        (lambda cp, a: a.__iadd__(1), (1, 0, 0, 0)),
        (lambda cp, a: a.__setitem__(..., 1), (1, 0, 0, 0)),
        (lambda cp, a: a.__setitem__(slice(0, 1), a[0:1]), (0, 0, 0, 0)),
        (lambda cp, a: a.__setitem__(slice(0, 1), a[1:2]), (1, 0, 0, 0)),
        (lambda cp, a: a.sum(), (1, 0, 0, 1)),
        (lambda cp, a: cp.add(a[0:1], 1, out=a[0:1]), (2, 0, 0, 1)),
        (lambda cp, a: a.get(), (0, 1, 1, 0)),
        (lambda cp, a: a.set(HOST), (0, 1, 0, 0)),
        (lambda cp, a: cp.asarray(HOST), (0, 1, 0, 1)),
        (lambda cp, a: cp.asarray(a), (0, 0, 0, 0)),
        (lambda cp, a: float(a[0, 0]), (0, 1, 1, 0)),
        (lambda cp, a: bool(a[0, 0]), (0, 1, 1, 0)),
        (lambda cp, a: int(a[0, 0]), (0, 1, 1, 0)),
        (lambda cp, a: a[0, 0].item(), (0, 1, 1, 0)),
        (lambda cp, a: a[cp.ndarray((2, 3), bool)], (1, 1, 1, 2)),
        (lambda cp, a: cp.cuda.Device(0).synchronize(), (0, 0, 1, 0)),
        (lambda cp, a: cp.fuse()(lambda x: cp.exp(x) * 2 + 1)(a), (1, 0, 0, 1)),
    ],
)
def test_costs(cp: Any, a: Any, use: Callable[..., Any], cost: tuple[int, ...]) -> None:
    use(cp, a)
    assert tuple(cp.counters.snapshot().values()) == cost


def test_machines_do_not_share_counters(cp: Any, a: Any) -> None:
    other = make_cupy()
    other.zeros(3)
    assert cp.counters.allocations == 0 and other.counters.allocations == 1


def test_memory_runs_out_and_comes_back() -> None:
    cp = make_cupy(memory=1000)
    x = cp.zeros(100, "f8")
    with pytest.raises(OutOfMemoryError, match=r"Out of memory allocating 400 bytes \(allocated so far: 800 bytes\)"):
        cp.zeros(50, "f8")
    assert cp.get_default_memory_pool().used_bytes() == 800 and cp.cuda.Device().mem_info == (200, 1000)
    del x
    assert cp.zeros(50, "f8").shape == (50,)


def test_devices() -> None:
    cp = make_cupy(devices=2)
    assert cp.cuda.runtime.getDeviceCount() == 2 and cp.cuda.Device(1).compute_capability == "90"
    with cp.cuda.Device(1):
        assert cp.cuda.get_device_id() == 1
        x = cp.zeros(3)
    assert x.device == x[1:].device == x.reshape(3, 1).device == cp.cuda.Device(1) != cp.zeros(3).device
    assert cp.cuda.get_device_id() == 0
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidDevice: invalid device ordinal") as caught:
        cp.cuda.Device(2).use()
    assert caught.value.status == 101
    assert not make_cupy(devices=0).cuda.is_available()


# Half precision


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_arrays(cp: Any, half: str) -> None:
    a = cp.asarray(HOST).astype(half)
    np.testing.assert_array_equal(a.get(), HOST.astype(half))
    assert np.isnan(cp.empty(3, half).get().astype("f4")).all()
    b = cp.zeros((2, 3), half)
    cp.copyto(b, cp.asarray(HOST), casting="unsafe")
    b[1, 1] = 0.1
    b.set(b.get())
    assert b[1, 1].item() == np.array(0.1, half)
    assert bool(cp.isfinite(b).all()) and (a + 1).dtype == half


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_added_in_float(cp: Any, half: str) -> None:
    """A running sum in half precision would stop at 2048 or 256."""
    a = cp.ones((5000, 2), half)
    assert cp.sum(a, axis=0).get().tolist() == np.array([5000, 5000]).astype(half).tolist()
    assert cp.mean(a).dtype == half and float(cp.mean(a)) == 1
    assert float(cp.sum(a, dtype="f4")) == 10000


def test_what_half_precision_is_refused(cp: Any) -> None:
    a, b = cp.ones(3, "bfloat16"), cp.ones(3, "float16")
    with pytest.raises(NotImplementedError, match="Sorting arrays with dtype 'bfloat16' is not supported"):
        cp.sort(a)
    assert cp.add(a, b).dtype == "float32"
    with pytest.raises(TypeError, match="Cannot cast"):
        cp.copyto(b, a)
    with pytest.raises(TypeError, match="invert"):
        cp.invert(a)
