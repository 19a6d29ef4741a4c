"""Networks saved and loaded: the same bits, the same predictions, on any device; and files that are not networks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from gpunn.checkpoint import load_network, network_of, network_parts, read, write
from gpunn.errors import CheckpointError, ConfigurationError
from gpunn.layers.base import Layer
from tests.conftest import BACKENDS, backend_named
from tests.zoo import LAYERS, LOSSES, network

LAYER_LIST = [gn.Dense(5, "relu"), gn.BatchNorm(), gn.Dropout(0.3), gn.Residual([gn.Dense(5, "tanh")]), gn.Dense(3)]
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {"dtype": "float64", "seed": 2**62 + 1},
    "population": {"models": 3, "seed": [5, 1, 9]},
    "population of one": {"models": 1},
}


def trained(device: Any = "cpu", **options: Any) -> gn.Network:
    """A network in which every array has changed since it was made."""
    net = gn.Network(LAYER_LIST, 4, device=device, **options)
    rng = np.random.default_rng(0)
    for view in (*net.parameters.values(), *net.state.values()):
        values = rng.uniform(0.1, 1.0, view.shape).astype(net.dtype)
        net.ops.copy(net.ops.from_host(values), out=view)
    net.ops.copy(net.ops.from_host(np.array([2**64 - 1], np.uint64)), out=net.step)
    net.loss = gn.CrossEntropy(0.1)
    return net


def contents(net: gn.Network) -> dict[str, bytes]:
    arrays = {**net.parameters, **net.state, "vector": net.vector, "step": net.step}
    return {name: net.ops.to_host(array).tobytes() for name, array in arrays.items()}


def assert_same(a: gn.Network, b: gn.Network) -> None:
    assert contents(a) == contents(b)
    assert a.to_json() == b.to_json() and a.network == b.network
    assert (a.loss, a.models, a.seeds, a.dtype, a.inputs) == (b.loss, b.models, b.seeds, b.dtype, b.inputs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network.gpunn"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_saved_network_is_loaded_with_the_same_bits_and_predictions(
    backend: Any, path: Path, options: dict[str, Any]
) -> None:
    net = trained(backend, **options)
    net.save(path)
    loaded = load_network(path, backend)
    assert_same(net, loaded)
    X = np.random.default_rng(1).normal(size=(7, 4))
    assert net.predict(X).tobytes() == loaded.predict(X).tobytes()
    assert net.predict_probability(X).tobytes() == loaded.predict_probability(X).tobytes()


@pytest.mark.parametrize("target", [pytest.param(n, marks=pytest.mark.cuda if n == "cuda" else ()) for n in BACKENDS])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_network_saved_on_one_device_is_loaded_on_another(
    backend: Any, target: str, path: Path, options: dict[str, Any]
) -> None:
    net = trained(backend, **options)
    net.save(path)
    loaded = load_network(path, backend_named(target))
    assert_same(net, loaded)
    X = np.random.default_rng(1).normal(size=(7, 4))
    np.testing.assert_allclose(net.predict(X), loaded.predict(X), rtol=1e-4 if loaded.dtype == np.float32 else 1e-12)


def test_a_saved_network_has_the_same_bytes_from_every_device(backend: Any, path: Path, tmp_path: Path) -> None:
    trained(backend).save(path)
    trained("cpu").save(tmp_path / "cpu")
    assert path.read_bytes() == (tmp_path / "cpu").read_bytes()


@pytest.mark.parametrize("layer", LAYERS)
def test_every_kind_of_layer_is_saved_and_loaded(layer: str, path: Path) -> None:
    net = network(LAYERS[layer]("relu"), gn.SquaredError(), device="cpu", seed=3)
    net.save(path)
    assert_same(net, load_network(path, "cpu"))


def test_an_embedding_is_saved_and_loaded(path: Path) -> None:
    net = gn.Network([gn.Embedding(5, 2), gn.Flatten(), gn.Dense(1)], 3, device="cpu")
    net.save(path)
    assert_same(net, load_network(path, "cpu"))


@pytest.mark.parametrize("loss", [None, *LOSSES], ids=repr)
def test_every_loss_is_saved_and_loaded(loss: Any, path: Path) -> None:
    net = gn.Network([gn.Dense(3)], 2, device="cpu")
    net.loss = loss
    net.save(path)
    assert repr(load_network(path, "cpu").loss) == repr(loss)


def test_the_counter_of_random_numbers_is_saved_and_loaded(path: Path) -> None:
    """The next dropout masks are the same after loading."""
    net = trained("cpu")
    net.ops.copy(net.ops.from_host(np.array([17], np.uint64)), out=net.step)
    net.save(path)
    X, y = np.random.default_rng(1).normal(size=(6, 4)), np.arange(6) % 3
    values = [n.gradients(X, y, gn.CrossEntropy())[0] for n in (net, load_network(path, "cpu"))]
    net.ops.copy(net.ops.from_host(np.array([18], np.uint64)), out=net.step)
    assert values[0] == values[1] != net.gradients(X, y, gn.CrossEntropy())[0]


def test_load_takes_a_device_by_name(path: Path) -> None:
    trained("cpu").save(path)
    assert load_network(path, device="cpu").ops.device == "cpu"
    assert load_network(path).predict(np.zeros((1, 4))).shape == (1, 3)
    with pytest.raises(ConfigurationError, match="device: expected"):
        load_network(path, "tpu")


def test_a_file_with_further_arrays_is_loaded_as_a_network(path: Path) -> None:
    """A training run keeps its own arrays and JSON beside the network's."""
    net = trained("cpu")
    arrays, described = network_parts(net)
    write(path, {**arrays, "optimizer/m": np.zeros(3)}, {"network": described, "history": {"loss": [1.0]}})
    assert_same(net, load_network(path, "cpu"))
    read_arrays, meta = read(path)
    assert_same(net, network_of("run", read_arrays, meta, "cpu"))
    assert meta["history"] == {"loss": [1.0]} and set(read_arrays) - set(arrays) == {"optimizer/m"}


def test_the_arrays_of_a_network_to_be_saved_are_copies(backend: Any) -> None:
    net = trained(backend)
    arrays, _ = network_parts(net)
    before = {name: array.copy() for name, array in arrays.items()}
    net.store.reset()
    assert all((arrays[name] == before[name]).all() for name in arrays)


# Networks that cannot be saved


def test_a_network_without_arrays_is_not_saved(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a known input width, got inputs=None"):
        gn.Network([gn.Dense(2)], device="cpu").save(path)
    assert not path.exists()


@dataclass(frozen=True)
class Odd(Layer):
    """A layer with a field that JSON has no word for."""

    function: Any = None

    def plan(self, shape: Any) -> Any:
        return gn.Identity().plan(shape)


def test_a_network_with_a_layer_that_json_cannot_hold_is_not_saved(path: Path) -> None:
    net = gn.Network([gn.Dense(2), Odd(len)], 2, device="cpu")
    with pytest.raises(CheckpointError, match=r"network: expected layers whose fields are .*, got Object of .*; keep"):
        net.save(path)
    assert not path.exists()


def test_a_network_of_a_dtype_that_files_lack_is_not_saved(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"array 'network/0.W': expected .*, got dtype complex128; convert"):
        gn.Network([gn.Dense(2)], 2, device=Backend(), dtype="complex128").save(path)


# Files that hold no network, or one that does not fit together


@pytest.fixture
def stored(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    trained("cpu").save(path)
    return read(path)


def refuses(path: Path, arrays: Any, meta: Any, message: str) -> None:
    write(path, arrays, meta)
    with pytest.raises(CheckpointError, match=f"checkpoint '.*network.gpunn'.*: expected {message}"):
        load_network(path, "cpu")


def test_load_refuses_an_archive_of_something_else(path: Path) -> None:
    refuses(path, {}, {"a": 1}, "a saved network, got LookupError: a checkpoint without one; give one that save wrote")


@pytest.mark.parametrize(
    ("loss", "step"),
    [({"layer": "Dense", "units": 3}, 0), (3, 0), (None, -1), (None, 2**64), (None, 1.0), (None, True), (None, None)],
)
def test_load_refuses_a_forged_loss_or_step(path: Path, stored: Any, loss: Any, step: Any) -> None:
    arrays, meta = stored
    described = {**meta["network"], "loss": loss, "step": step}
    refuses(path, arrays, {"network": described}, "a saved network, got ValueError: loss .* and step .*; give one")


def test_load_refuses_an_unknown_layer(path: Path, stored: Any) -> None:
    arrays, meta = stored
    text = json.dumps(meta).replace('"BatchNorm"', '"Unheard"')
    message = r"a known layer, loss or initializer, got .*Unheard.*; import the module that defines it before loading"
    refuses(path, arrays, json.loads(text), message)


def test_load_refuses_a_layer_with_an_unknown_field(path: Path, stored: Any) -> None:
    arrays, meta = stored
    text = json.dumps(meta).replace('"units"', '"widths"')
    refuses(path, arrays, json.loads(text), "its own fields, got .*widths.*; load it with the version that wrote it")


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "dtype"])
def test_load_refuses_arrays_that_do_not_fit_the_architecture(path: Path, stored: Any, change: str) -> None:
    arrays, meta = stored
    name = "network/0.W"
    if change == "missing":
        del arrays[name]
    elif change == "unexpected":
        arrays["network/9.W"] = arrays[name]
    else:
        arrays[name] = arrays[name].T if change == "shape" else arrays[name].astype(np.float64)
    wrong = "9.W" if change == "unexpected" else "0.W"
    refuses(path, arrays, meta, f"a saved network, got ValueError: arrays that do not fit the architecture: {wrong};")


@pytest.mark.parametrize(("models", "seeds"), [(3, [0]), (None, [0, 1]), (10**15, 0), (None, 5), (10**15, [0])])
def test_load_refuses_models_without_a_seed_each(path: Path, stored: Any, models: Any, seeds: Any) -> None:
    arrays, meta = stored
    meta["network"]["architecture"] |= {"models": models, "seeds": seeds}
    refuses(path, arrays, meta, r"a saved network, got ValueError: .* models with seeds .*; give one that save wrote")


@pytest.mark.parametrize("units", [10**6, 10**12, 2**62])
def test_load_allocates_nothing_for_a_forged_huge_architecture(
    path: Path, stored: Any, monkeypatch: pytest.MonkeyPatch, units: int
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("built")

    arrays, meta = stored
    meta["network"]["architecture"]["layers"][4]["units"] = units
    monkeypatch.setattr(gn.Network, "__init__", never)
    wrong = "a saved network, got ValueError: arrays that do not fit the architecture: 4.W, 4.b"
    refuses(path, arrays, meta, wrong if units < 2**62 else "at most 62 axes and 288230376151711744 numbers, got shape")


@pytest.mark.parametrize("error", [AttributeError, KeyError, RecursionError, TypeError, ValueError, ZeroDivisionError])
def test_load_refuses_a_layer_whatever_error_its_fields_raise(
    path: Path, stored: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Layers of users may check nothing themselves."""

    def plan(*_: Any) -> None:
        raise error("wrong field")

    monkeypatch.setattr(gn.Dense, "plan", plan)
    refuses(path, *stored, f"a saved network, got {error.__name__}: .*wrong field.*; give one that save wrote")


JUNK = (None, True, -1, 0, 2, 1.5, 10**9, 2**70, "x", [], [1], [[]], {}, {"layer": "Dense", "units": 2})


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_load_refuses_or_loads_any_forged_description(path: Path, options: dict[str, Any]) -> None:
    """Whatever a value is replaced by, the result is a network that can predict, or a clear refusal."""
    trained("cpu", **options).save(path)
    arrays, meta = read(path)
    refused = loaded = 0
    for container, key in list(places(meta["network"])):
        kept = container[key]
        for junk in JUNK:
            container[key] = junk
            try:
                net = network_of("forged", arrays, meta, "cpu")
            except CheckpointError:
                refused += 1
            else:
                loaded += 1
                net.predict(np.zeros((2, *net.inputs)))
        container[key] = kept
    assert refused > 300 and loaded > 5
