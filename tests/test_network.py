"""Network: how it is made and refused, what it predicts, and how it is stored."""

import copy
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError, GpunnError, ShapeError, readable
from gpunn.frame import Frame
from tests.conftest import backend_named
from tests.faults import FORM, contents, exactly

rng = np.random.default_rng(0)
X = rng.normal(size=(10, 3))
Y = rng.normal(size=(10, 2))
LABELS = rng.integers(0, 2, 10)
SQUARED, CROSS = gn.SquaredError(), gn.CrossEntropy()


def layers() -> list[gn.Layer]:
    return [gn.Dense(5, "tanh"), gn.BatchNorm(), gn.Dropout(0.25), gn.Dense(2)]


def make(backend: Any = None, inputs: Any = 3, **options: Any) -> gn.Network:
    return gn.Network(layers(), inputs, device=backend or backend_named("cpu"), **options)


# What cannot be made

WHOLE = "expected a whole number >= 1, got {}; give such a number"
SEED = "expected integers from 0 to 2**63 - 1, got {}; pass seed=0 or a list of one seed for each model"
ONE_LAYER = "expected one layer or more, such as [Dense(10)], got {}; {}"
OPTION_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({"inputs": 0}, f"Network inputs: {WHOLE.format(0)}"),
    "negative inputs": ({"inputs": -3}, f"Network inputs: {WHOLE.format(-3)}"),
    "fractional inputs": ({"inputs": 2.5}, f"Network inputs: {WHOLE.format(2.5)}"),
    "inputs as text": ({"inputs": "3"}, f"Network inputs: {WHOLE.format(repr('3'))}"),
    "inputs of a bool": ({"inputs": True}, f"Network inputs: {WHOLE.format(True)}"),
    "a zero in the shape": ({"inputs": (3, 0)}, f"Network inputs: {WHOLE.format(0)}"),
    "no models": ({"models": 0}, f"Network models: {WHOLE.format(0)}"),
    "fractional models": ({"models": 2.0}, f"Network models: {WHOLE.format(2.0)}"),
    "models of a bool": ({"models": True}, f"Network models: {WHOLE.format(True)}"),
    "too few seeds": (
        {"models": 3, "seed": [1, 2]},
        "Network seed: expected one seed or 3 of them, got 2 seeds; set models= to the number of seeds",
    ),
    "too many seeds": (
        {"seed": [1, 2]}, "Network seed: expected one seed, got 2 seeds; set models= to the number of seeds",
    ),
    "a negative seed": ({"seed": -1}, f"Network seed: {SEED.format(-1)}"),
    "a fractional seed": ({"seed": 1.5}, f"Network seed: {SEED.format(1.5)}"),
    "no seed": ({"seed": None}, f"Network seed: {SEED.format(None)}"),
    "a huge seed": ({"seed": 2**63}, f"Network seed: {SEED.format(2**63)}"),
    "a bool among the seeds": ({"seed": [0, True], "models": 2}, f"Network seed: {SEED.format(True)}"),
    "nested seeds": ({"seed": [[1]], "models": 1}, f"Network seed: {SEED.format([1])}"),
    **{
        f"dtype {name}": (
            {"dtype": dtype},
            f"Network dtype: expected one of 'float32', 'float64', got {name!r}; choose one of them",
        )
        for name, dtype in {
            "float31": "float31", "float": float, "int": int, "int64": np.int64, "None": None,
            "complex128": "complex128", "object": np.dtype(object),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", OPTION_FAULTS)
def test_options_that_make_no_sense(fault: str) -> None:
    options, message = OPTION_FAULTS[fault]
    with pytest.raises(ConfigurationError, match=exactly(message)):
        make(**options)


@pytest.mark.parametrize("options", [{"seed": np.array(3)}, {"seed": 2**63 - 1, "models": 2}], ids=repr)
def test_seeds_that_no_member_could_have(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^Network seed: expected .*, got .*; "):
        make(**options)


INSTANCE = "write Dense(...), an instance, rather than Dense"
LIST = "pass a list of layers"


@pytest.mark.parametrize(
    ("given", "got", "fix"),
    [
        ([], "an empty list", LIST),
        ([gn.Dense], "<class 'gpunn.layers.dense.Dense'>", INSTANCE),
        ([gn.Dense(2), gn.ReLU], "<class 'gpunn.layers.pointwise.ReLU'>", INSTANCE),
        (gn.Dense, "<class 'gpunn.layers.dense.Dense'>", INSTANCE),
        (["relu"], "'relu'", LIST),
        ("relu", "'relu'", LIST),
        ([[gn.Dense(2)]], "[Dense(2)]", LIST),
        ([gn.SquaredError()], "SquaredError()", LIST),
        ({"a": 1}, "{'a': 1}", LIST),
        (5, "5", LIST),
        (None, "None", LIST),
        ([gn.Dense(2), None], "None", LIST),
    ],
)
def test_what_is_no_list_of_layers(given: Any, got: str, fix: str) -> None:
    with pytest.raises(ConfigurationError, match=exactly(f"Sequential: {ONE_LAYER.format(got, fix)}")):
        gn.Network(given, 3, device="cpu")


@pytest.mark.parametrize(
    ("layer", "path", "field"),
    [
        (gn.Dropout([0.1, 0.2]), "0", "Dropout rate"),
        (gn.GaussianNoise([0.1, 0.2]), "0", "GaussianNoise deviation"),
        (gn.Residual(gn.Dropout([0.1, 0.2])), "0.body", "Dropout rate"),
        (gn.Branch([gn.Dense(3), [gn.ReLU(), gn.Dropout([0.1, 0.2])]]), "0.1.1", "Dropout rate"),
    ],
    ids=repr,
)
def test_hyper_parameters_for_another_number_of_models(layer: gn.Layer, path: str, field: str) -> None:
    fix = "give one for each model and set models= to their count"
    for models, expected in ((3, "one number or 3 of them"), (None, "one number")):
        message = f"layers.{path} {field}: expected {expected}, got 2 numbers; {fix}"
        with pytest.raises(ConfigurationError, match=exactly(message)):
            gn.Network([layer], 3, device="cpu", models=models)
    assert gn.Network([layer], 3, device="cpu", models=2).models == 2


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64")], ids=repr)
def test_a_dtype_by_name_or_object(dtype: Any) -> None:
    assert make(dtype=dtype).vector.dtype == np.float64


# A network whose inputs are not known yet

UNKNOWN = exactly(
    "Network: expected a known input width, got inputs=None and no data yet; "
    "pass inputs=width, or call fit, predict or gradients first"
)


@pytest.mark.parametrize("name", ["parameters", "state", "vector", "gradient_vector", "inputs", "outputs"])
def test_what_an_unbuilt_network_has_not(name: str) -> None:
    with pytest.raises(ConfigurationError, match=UNKNOWN):
        getattr(make(inputs=None), name)


@pytest.mark.parametrize(
    "call",
    [
        lambda network: network.summary(), lambda network: network.compile(4), lambda network: network.member(0),
        lambda network: network.load_parameters({}),
    ],
    ids=["summary", "compile", "member", "load_parameters"],
)  # fmt: skip
def test_what_an_unbuilt_network_cannot_do(call: Callable[[gn.Network], Any]) -> None:
    with pytest.raises(ConfigurationError, match=UNKNOWN):
        call(make(inputs=None, models=2))


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize(
    "use",
    [
        lambda network: network.predict(X), lambda network: network.gradients(X, Y, SQUARED),
        lambda network: network.evaluate(X.tolist(), Y, loss=SQUARED), lambda network: network.loss_of(X, Y, SQUARED),
    ],
    ids=["predict", "gradients", "evaluate", "loss_of"],
)  # fmt: skip
def test_inputs_are_taken_from_the_first_data(
    backend: Any, use: Callable[[gn.Network], Any], models: int | None
) -> None:
    late, early = make(backend, inputs=None, models=models), make(backend, models=models)
    use(late)
    use(early)
    assert late.inputs == (3,)
    assert late.outputs == (2,)
    assert contents(late) == contents(early)


def test_inputs_of_several_axes_are_taken_from_the_first_data() -> None:
    network = gn.Network([gn.Flatten(), gn.Dense(2)], device="cpu")
    network.predict(np.ones((4, 2, 3)))
    assert network.inputs == (2, 3)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.ones(3), ShapeError), (np.array(1.0), ShapeError), ([], ShapeError), ([[], []], GpunnError),
        (np.empty((0, 2)), DataError), ([[1.0, np.nan]], DataError),
    ],
    ids=["rank 1", "rank 0", "no rows", "no columns", "empty", "NaN"],
)  # fmt: skip
def test_data_that_is_refused_builds_nothing(bad: Any, error: type[GpunnError]) -> None:
    network = make(inputs=None)
    with pytest.raises(error, match=r"^X: expected .*, got .*; "):
        network.predict(bad)
    with pytest.raises(ConfigurationError, match=UNKNOWN):
        _ = network.inputs
    assert network.predict(X).shape == (10, 2)


def test_each_models_own_data_cannot_tell_the_input_shape() -> None:
    """(K, n, d) could be n examples of any rank; but it is refused with the network as it was."""
    network = make(inputs=None, models=2)
    with pytest.raises(GpunnError, match=FORM):
        network.predict(np.ones((2, 4, 3)))
    assert network.predict(X).shape == (2, 10, 2)


# What comes out


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("chunk", [1, 3, 10, 100])
def test_a_prediction_in_chunks_is_that_of_the_whole(backend: Any, chunk: int, models: int | None) -> None:
    network = make(backend, dtype="float64", models=models)
    for own in (False, True) if models else (False,):
        data = rng.normal(size=(3, 10, 3)) if own else X
        whole = network.predict(data)
        assert whole.shape == ((10, 2) if models is None else (3, 10, 2))
        np.testing.assert_allclose(network.predict(data, batch_size=chunk), whole, rtol=1e-12, atol=1e-14)
        probability = network.predict_probability(data, loss=CROSS)
        np.testing.assert_allclose(probability.sum(axis=-1), 1, rtol=1e-12)
        np.testing.assert_allclose(
            network.predict_probability(data, loss=CROSS, batch_size=chunk), probability, rtol=1e-12
        )  # fmt: skip


def test_a_prediction_too_large_for_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(dtype="float64")
    whole = network.predict(X)
    monkeypatch.setattr("gpunn.engine.CHUNK_BYTES", 1000)
    asked = []
    compiled = network.compile
    monkeypatch.setattr(network, "compile", lambda rows, *a, **k: asked.append(rows) or compiled(rows, *a, **k))
    np.testing.assert_allclose(network.predict(X), whole, rtol=1e-12)
    assert len(asked) > 1
    assert sum(asked) == 10


def test_numpy_in_numpy_out(backend: Any) -> None:
    network = make(backend)
    for given in (X, X.astype("float32"), X.tolist()):
        assert type(network.predict(given)) is np.ndarray
        assert type(network.predict_probability(given, loss=CROSS)) is np.ndarray
        value, gradients = network.gradients(given, Y, SQUARED)
        assert type(value) is float
        assert {type(g) for g in gradients.values()} == {np.ndarray}


def test_device_arrays_in_device_arrays_out(backend: Any) -> None:
    network, given = make(backend), backend.from_host(X)
    expected = network.predict(X)
    for result in (network.predict(given), network.predict(given, batch_size=3)):
        assert backend.owns(result)
        np.testing.assert_allclose(backend.to_host(result), expected, rtol=1e-5, atol=1e-6)
    value, gradients = network.gradients(given, backend.from_host(Y), SQUARED)
    assert type(value) is float
    assert all(backend.owns(g) for g in gradients.values())


@pytest.mark.parametrize(
    ("use", "checks"),
    [
        (lambda network, X, y, labels: network.predict(X), 2),
        (lambda network, X, y, labels: network.predict(X, batch_size=3), 2),
        (lambda network, X, y, labels: network.predict_probability(X, loss=CROSS), 2),
        (lambda network, X, y, labels: network.gradients(X, y, SQUARED), 5),
        (lambda network, X, y, labels: network.gradients(X, labels, CROSS), 5),
        (lambda network, X, y, labels: network.predict(labels.reshape(-1, 1)[:, (0,) * 3].copy()), 0),
    ],
    ids=["predict", "in chunks", "probability", "gradients", "gradients of classes", "integers"],
)
def test_data_on_the_device_stays_there(strict: Any, use: Callable[..., Any], checks: int) -> None:
    """Only the two ends of the range of X, those of y, and the loss itself travel: five numbers."""
    network = make(strict)
    given = [strict.from_host(array) for array in (X, Y, LABELS)]
    if checks == 0:
        given[0], use = strict.from_host(np.ones((10, 3), np.int64)), lambda network, X, y, labels: network.predict(X)
    use(network, *given)
    counters = strict.xp.counters
    counters.reset()
    use(network, *given)
    assert counters.transfers == counters.synchronisations == checks


def test_evaluate_sums_over_chunks(backend: Any) -> None:
    for loss, y in ((SQUARED, Y), (CROSS, LABELS), (gn.SquaredError(reduction="sum"), Y)):
        network, name = make(backend, dtype="float64"), "accuracy" if loss is CROSS else "mse"
        whole = network.evaluate(X, y, loss=loss, metrics=[name])
        np.testing.assert_allclose(whole["loss"], network.loss_of(X, y, loss), rtol=1e-12)
        for size in (1, 3, 7):
            parts = network.evaluate(X, y, loss=loss, metrics=[name], batch_size=size)
            assert list(parts) == ["loss", name]
            np.testing.assert_allclose(list(parts.values()), list(whole.values()), rtol=1e-12)
            assert {type(value) for value in parts.values()} == {float}


@pytest.mark.parametrize("size", [None, 3])
def test_evaluate_judges_every_model_as_if_alone(backend: Any, size: int | None) -> None:
    network = make(backend, dtype="float64", models=3)
    own_X, own_y, own_labels = rng.normal(size=(3, 10, 3)), rng.normal(size=(3, 10, 2)), rng.integers(0, 2, (3, 10))
    cases: list[tuple[Any, Any, Any]] = [
        (X, Y, SQUARED), (X, LABELS, CROSS), (own_X, Y, SQUARED), (own_X, own_y, SQUARED), (own_X, LABELS, CROSS),
        (own_X, own_labels, CROSS),
    ]  # fmt: skip
    for data, y, loss in cases:
        names = ["accuracy"] if loss is CROSS else ["mse", "mae", "r2"]
        results = network.evaluate(data, y, loss=loss, metrics=names, batch_size=size)
        for k in range(3):
            part = data[k] if data is own_X else data
            target = y[k] if y is own_y or y is own_labels else y
            alone = network.member(k).evaluate(part, target, loss=loss, metrics=names)
            for name, value in alone.items():
                np.testing.assert_allclose(results[name][k], value, rtol=1e-10, err_msg=name)


def test_predictions_do_not_move_running_statistics(backend: Any) -> None:
    network = make(backend)
    before = contents(network)
    network.predict(X)
    network.evaluate(X, Y, loss=SQUARED)
    network.loss_of(X, Y, SQUARED, training=True)
    assert contents(network) == before


def test_passes_are_kept_but_not_for_ever() -> None:
    network = make()
    first = network.compile(4)
    assert network.compile(4) is first
    for rows in range(5, 10):
        network.compile(rows)
    assert network.compile(4) is not first


# Populations


@pytest.mark.parametrize("seed", [7, [3, 11, 5]], ids=["one seed", "a seed each"])
def test_a_member_is_the_single_network_of_its_seed(backend: Any, seed: Any) -> None:
    population = make(backend, models=3, seed=seed)
    for k in range(3):
        alone = make(backend, seed=seed[k] if isinstance(seed, list) else seed + k)
        member = population.member(k)
        assert member.models is None
        assert member.seeds == alone.seeds
        assert contents(member) == contents(alone)
        assert backend.to_host(population.vector[k]).tobytes() == backend.to_host(alone.vector).tobytes()
        assert member.to_json() == alone.to_json()
        value, gradients = population.gradients(X, Y, SQUARED)
        expected_value, expected = alone.gradients(X, Y, SQUARED)
        np.testing.assert_allclose(value[k], expected_value, rtol=1e-5)
        for name in expected:
            np.testing.assert_allclose(gradients[name][k], expected[name], rtol=2e-4, atol=1e-6, err_msg=name)


def test_members_have_their_own_hyper_parameters() -> None:
    population = gn.Network([gn.Dropout([0.1, 0.2]), gn.Dense(2)], 3, device="cpu", models=2)
    assert population.member(1).network.layers[0] == gn.Dropout(0.2)
    assert population.member(-1).seeds == (1,)


def test_a_member_is_a_copy(backend: Any) -> None:
    population = make(backend, models=2)
    before = contents(population)
    member = population.member(1)
    member.vector[...] = 0
    member.state["1.mean"][...] = 5
    assert contents(population) == before


def test_a_population_of_one_keeps_its_axis(backend: Any) -> None:
    network = make(backend, models=1)
    assert network.predict(X).shape == (1, 10, 2)
    assert network.loss_of(X, Y, SQUARED).shape == (1,)


@pytest.mark.parametrize("k", [3, -4, 1.5, 1.0, "1", None, True])
def test_a_member_that_is_none(k: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Network\.member: expected .*, got {re.escape(repr(k))}; \S"):
        make(models=3).member(k)


def test_a_member_of_a_single_network() -> None:
    message = "Network.member: expected a population, got a single network; make the network with models=K"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        make().member(0)


# JSON


@pytest.mark.parametrize(
    "network",
    [
        make(), make(inputs=None), make(models=3, seed=[5, 1, 2]), make(dtype="float64", seed=9),
        gn.Network([gn.Flatten(), gn.Residual([gn.Dense(6)]), gn.Dropout([0.1, 0.2])], (2, 3), device="cpu", models=2),
    ],
    ids=["single", "unbuilt", "population", "float64", "nested"],
)  # fmt: skip
def test_there_and_back_through_json(network: gn.Network) -> None:
    back = gn.Network.from_json(network.to_json(), device="cpu")
    assert back.network == network.network
    assert (back.models, back.seeds, back.dtype) == (network.models, network.seeds, network.dtype)
    assert back.to_json() == network.to_json()
    assert repr(back) == repr(network)
    if network._inputs is not None:
        assert back.inputs == network.inputs
        assert contents(back) == contents(network)


def edited(change: Callable[[dict[str, Any]], Any]) -> str:
    data = json.loads(make().to_json())
    change(data)
    return json.dumps(data)


DENSE = {"layer": "Dense", "units": 3, "activation": None, "bias": True, "initializer": None}
DAMAGE: dict[str, Any] = {
    "cut off": make().to_json()[:-5],
    "empty": "",
    "no text": None,
    "a number": "3",
    "a list": "[]",
    "an empty object": "{}",
    **{
        f"no {name}": edited(lambda data, name=name: data.pop(name))
        for name in ("layers", "inputs", "dtype", "models", "seeds")
    },
    "layers of text": edited(lambda data: data.update(layers="os.system")),
    "no layers at all": edited(lambda data: data.update(layers=[])),
    "inputs of text": edited(lambda data: data.update(inputs="abc")),
    "inputs of a number": edited(lambda data: data.update(inputs=3.5)),
    "negative inputs": edited(lambda data: data.update(inputs=[-3])),
    "an unknown dtype": edited(lambda data: data.update(dtype="object")),
    "negative models": edited(lambda data: data.update(models=-1)),
    "no seeds left": edited(lambda data: data.update(seeds=[])),
    "a number for seeds": edited(lambda data: data.update(seeds=3)),
    "an unknown class": edited(lambda data: data["layers"].append({"layer": "Denser", "units": 3})),
    "a class of Python": edited(lambda data: data["layers"].append({"layer": "object"})),
    "a list for a class": edited(lambda data: data["layers"].append({"layer": ["Dense"]})),
    "an unknown field": edited(lambda data: data["layers"][0].update(foo=1)),
    "a field of Python": edited(lambda data: data["layers"][0].update(__class__="os")),
    "a missing field": edited(lambda data: data["layers"][0].pop("units")),
    "a loss among layers": edited(lambda data: data["layers"].append({"loss": "SquaredError", "reduction": "mean"})),
    "two families": edited(lambda data: data["layers"][0].update(loss="SquaredError")),
    "a layer for a number": edited(lambda data: data["layers"][0].update(units=DENSE)),
    "a list for a number": edited(lambda data: data["layers"][0].update(units=[3])),
    "a huge number": edited(lambda data: data["layers"][0].update(units=10**300)),
    "a number too long to read": make().to_json().replace('"units": 5', '"units": ' + "9" * 5000),
    "a layer for an initializer": edited(lambda data: data["layers"][0].update(initializer=DENSE)),
    "a number for an initializer": edited(lambda data: data["layers"][0].update(initializer=5)),
    "a loss for an activation": edited(lambda data: data["layers"][0].update(activation={"loss": "SquaredError"})),
    "a layer for an activation": edited(lambda data: data["layers"][0].update(activation=DENSE)),
    "an abstract layer": edited(lambda data: data["layers"].append({"layer": "Layer"})),
    "an abstract activation": edited(lambda data: data["layers"].append({"layer": "Pointwise"})),
    "an abstract initializer": edited(
        lambda data: data["layers"][0].update(initializer={"initializer": "Initializer"})
    ),
    "an object for a rate": edited(lambda data: data["layers"].append({"layer": "Dropout", "rate": {"a": 1}})),
    "NaN for a rate": edited(lambda data: data["layers"].append({"layer": "Dropout", "rate": math.nan})),
    "rates of too many models": edited(lambda data: data["layers"].append({"layer": "Dropout", "rate": [0.1, 0.2]})),
    "deeper than any network": '{"layers": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"layers": [' + '{"layer": "Residual", "body": ' * 2000 + "3" + "}" * 2000 + "]}",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_json_that_describes_no_network(damage: str) -> None:
    with pytest.raises(ConfigurationError, match=FORM):
        gn.Network.from_json(DAMAGE[damage], device="cpu")


# Descriptions


def test_a_network_prints_as_code() -> None:
    assert repr(make()) == (
        "Network([Dense(5, 'tanh'), BatchNorm(), Dropout(0.25), Dense(2)], inputs=(3,), device='cpu', dtype='float32')"
    )
    for network in (make(), make(inputs=None), make(models=2, dtype="float64")):
        assert repr(eval(repr(network), dict(vars(gn)))) == repr(network)


def trees(frame: Frame) -> list[Frame]:
    return [frame, *(below for child in frame.children.values() for below in trees(child))]


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_summary_adds_up_to_what_is_allocated(dtype: str, models: int | None) -> None:
    nested = gn.Residual([gn.LayerNorm(activation="gelu"), gn.Dropout(0.1), gn.Dense(5)])
    network = gn.Network(
        [gn.Dense(5, "relu"), nested, gn.Branch([gn.Dense(700), gn.Softmax()]), gn.BatchNorm(), gn.Dense(2)],
        300, device="cpu", dtype=dtype, models=models,
    )  # fmt: skip
    lines = network.summary(batch=64).splitlines()
    rows = {line.split()[0]: line for line in lines[2:-4]}
    total = lines[-3]
    parameters = sum(view[0].size if models else view.size for view in network.parameters.values())
    assert re.search(rf"\) +{parameters:,} ", total)
    counts = [int(re.search(r"\) +([\d,]+) ", row)[1].replace(",", "")) for row in rows.values()]
    assert sum(counts) == parameters
    run = network.compile(64, SQUARED)
    buffers = (network.vector, network.gradient_vector, network.store.state)
    taken = sum(buffer.nbytes for buffer in buffers)
    for frame, planned in zip(trees(run.frame), run.planned.walk(), strict=True):
        arrays = [
            array for array in vars(frame).values() if isinstance(array, np.ndarray) and array is not network.step
        ]
        own = sum(a.nbytes for a in arrays if not any(np.may_share_memory(a, buffer) for buffer in buffers))
        taken += own
        if planned.path:
            assert rows[planned.path].endswith(f" {readable(own)}"), planned.path
    assert total.endswith(f" {readable(taken)}")
    assert lines[-1].startswith(f" training adds {readable(network.vector.nbytes)} for each moment")
    assert re.match(r"total +3 models +\(2,\)" if models else r"total +\(2,\)", total)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**30, "1.0 GiB"),
        (2**42, "4,096.0 GiB"),
    ],
)  # fmt: skip
def test_bytes_for_people(size: float, text: str) -> None:
    assert readable(size) == text


@pytest.mark.parametrize("batch", [0, -1, 2.5, True])
def test_a_summary_for_no_batch(batch: Any) -> None:
    with pytest.raises(ConfigurationError, match=exactly(f"summary batch: {WHOLE.format(repr(batch))}")):
        make().summary(batch)


def test_the_architecture_can_be_copied() -> None:
    network = make()
    again = gn.Network(copy.deepcopy(network.network), 3, device="cpu")
    assert contents(again) == contents(network)


# Copies


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_copy_computes_the_same_and_is_its_own(way: Any, models: int | None) -> None:
    net = gn.Network([gn.Dense(4), gn.BatchNorm(), gn.Dense(2)], 3, device="cpu", models=models)
    X = np.random.default_rng(0).normal(size=(8, 3))
    net.fit(X, np.arange(8) % 2, loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), epochs=2)
    other = way(net)
    np.testing.assert_array_equal(other.predict_probability(X), net.predict_probability(X))
    assert other.step[0] == net.step[0]
    other.vector[...] += 1.0
    np.testing.assert_array_equal(other.parameters["0.W"], net.parameters["0.W"] + 1.0)


def test_a_network_without_arrays_is_copied_too() -> None:
    assert copy.deepcopy(gn.Network([gn.Dense(2)], device="cpu")).predict([[1.0]]).shape == (1, 2)


def test_compiled_formulas_do_not_pile_up() -> None:
    net = gn.Network([gn.Dense(2, "relu")], 1, device="cpu")
    tiles = net.ops.formulas
    for rows in range(1, 1200):
        net.gradients(np.ones((rows, 1)), np.ones((rows, 2)), gn.SquaredError())
    assert len(tiles._kernels) <= 2048
    assert all(len(key[0]._programs) <= 256 for key in tiles._kernels)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [gn.Embedding(5, 1), gn.Flatten()],
            r"layers\.0 Embedding: expected scale=1 beside it, got scale=3; scale the",
        ),
        (
            [gn.Branch([gn.Dense(1), [gn.Embedding(5, 1), gn.Flatten()]])],
            r"layers\.0\.1\.0 Embedding: expected scale=1",
        ),
    ],
)
def test_row_numbers_are_not_scaled(layers: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gn.Network(layers, 1, device="cpu", scale=3.0)


def test_row_numbers_beside_numbers_must_be_exact_in_float32() -> None:
    layers = [gn.Branch([[gn.Embedding(2**24 + 8, 1), gn.Flatten()], gn.Dense(1)])]
    with pytest.raises(ConfigurationError, match=r"Embedding: expected at most 16777216 categories beside layers of"):
        gn.Network(layers, 1, device="cpu")


def test_the_part_for_tables_is_imported_when_it_is_asked_for() -> None:
    program = """
import sys, gpunn as gn
assert "gpunn.data" not in sys.modules and "data" in dir(gn)
try:
    gn.nothing
except AttributeError as error:
    assert "'nothing'" in str(error)
else:
    raise SystemExit("gn.nothing is something")
assert gn.data is sys.modules["gpunn.data"] and "digits" in gn.data.BUILT_IN
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(gn.__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
