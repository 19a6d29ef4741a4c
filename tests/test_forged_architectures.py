"""Forged architectures in JSON and in files are refused at once and without memory of their size."""

import json
import re
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gpunn as gn
from gpunn import archive
from gpunn.cli import gpunn as command
from gpunn.errors import CheckpointError, ConfigurationError, DeviceMemoryError, GpunnError
from gpunn.hyper import AXES, NUMBERS, check_shape, shown, whole
from gpunn.memory import hollow
from gpunn.randomness import check_seeds
from gpunn.value import to_json
from tests.faults import FORM

DENSE: dict[str, Any] = to_json(gn.Dense(2))
DIGITS = 10**4299  # as many as Python reads
TOO_LARGE = f"at most {AXES} axes and {NUMBERS} numbers"
WHOLE = "expected a whole number >= 1"


def layer(name: str, **fields: Any) -> dict[str, Any]:
    return {"layer": name, **fields}


# What is changed in the JSON of Network([Dense(2)], 3), and what comes of it.
FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "70 axes": ({"inputs": [1] * 70, "layers": [layer("Flatten"), DENSE]}, "Network inputs: .*got 70 axes"),
    "70 axes that nothing reads": ({"inputs": [1] * 70, "layers": [layer("Identity")]}, f"{TOO_LARGE}, got 70 axes"),
    "10,000 axes": ({"inputs": [2] * 10_000, "layers": [layer("Flatten")]}, f"{TOO_LARGE}, got 10000 axes"),
    "70 axes inside": ({"inputs": [1], "layers": [layer("Reshape", shape=[1] * 70)]}, f"{TOO_LARGE}, got 70 axes"),
    "63 axes of embeddings": (
        {"inputs": [1] * 62, "layers": [layer("Embedding", categories=1, width=1)]},
        "layers.0 .*: .*got 63 axes",
    ),
    "2**62 inputs": ({"inputs": [2**62], "layers": [layer("Identity")]}, f"{TOO_LARGE}, got shape"),
    "a product of 2**80": ({"inputs": [2**40] * 2, "layers": [layer("Flatten")]}, f"{TOO_LARGE}, got shape"),
    "a product that is 0 in 64 bits": ({"inputs": [2**32] * 2, "layers": [layer("Identity")]}, TOO_LARGE),
    "a reshape of 2**80": ({"layers": [layer("Reshape", shape=[2**40] * 2)]}, f"Reshape shape: expected {TOO_LARGE}"),
    "a table of 2**90": (
        {"layers": [layer("Embedding", categories=10**18, width=10**9)]},
        f"layers.0 E: expected {TOO_LARGE}",
    ),
    "2**62 units": ({"layers": [{**DENSE, "units": 2**62}]}, f"layers.0 output: expected {TOO_LARGE}"),
    "2**64 units": ({"layers": [{**DENSE, "units": 2**64}]}, f"Dense units: {WHOLE} and <= {2**63 - 1}, got"),
    "branches of 2**58": (
        {"inputs": [1], "layers": [layer("Branch", branches=[{**DENSE, "units": 2**58}] * 2)]},
        f"layers.0 .*{TOO_LARGE}",
    ),
    "inputs of many digits": ({"inputs": [DIGITS]}, f"Network inputs: {WHOLE}|layers.0 .*"),
    "units of many digits": ({"layers": [{**DENSE, "units": DIGITS}]}, f"Dense units: {WHOLE} and <= .*, got 1000"),
    "a rate of many digits": ({"layers": [layer("Dropout", rate=DIGITS)]}, "Dropout rate: .*, got 1000"),
    "negative inputs": ({"inputs": [-3]}, f"{WHOLE}, got -3|a whole"),
    "inputs of 0": ({"inputs": [0]}, f"Network inputs: {WHOLE}, got 0"),
    "negative units": ({"layers": [{**DENSE, "units": -1}]}, f"Dense units: {WHOLE}, got -1"),
    "inputs of a fraction": ({"inputs": [3.0]}, f"Network inputs: {WHOLE}, got 3.0"),
    "true inputs": ({"inputs": [True]}, f"Network inputs: {WHOLE}, got True"),
    "inputs of text": ({"inputs": ["3"]}, "Network inputs: .*got '3'"),
    "text as inputs": ({"inputs": "3"}, "Network inputs: .*got '3'"),
    "no list of inputs": ({"inputs": 3}, "TypeError"),
    "inputs in a dict": ({"inputs": {"3": 3}}, "Network inputs: .*got '3'"),
    "NaN units": ({"layers": [{**DENSE, "units": float("nan")}]}, f"Dense units: {WHOLE}, got nan"),
    "infinite rate": ({"layers": [layer("Dropout", rate=float("inf"))]}, "Dropout rate: .*got inf"),
    "NaN scale": ({"scale": float("nan")}, "Network scale: expected a finite number, got nan"),
    "lists as units": ({"layers": [{**DENSE, "units": [[[2]]]}]}, f"Dense units: {WHOLE}, got .*2"),
    "a layer as units": ({"layers": [{**DENSE, "units": DENSE}]}, f"Dense units: {WHOLE}, got Dense"),
    "an unknown layer": ({"layers": [layer("Unheard")]}, "a known layer, loss or initializer, got .*Unheard"),
    "the base of layers": ({"layers": [layer("Layer")]}, "a known layer, loss or initializer, got .*Layer"),
    "a name for layers": ({"layers": [layer("Sequential", layers="Sequential")]}, "one layer or more, .*got 'Seq"),
    "a body that is a name": ({"layers": [layer("Residual", body="Residual")]}, "one layer or more, .*got 'Residual'"),
    "a loss as a layer": ({"layers": [{"loss": "CrossEntropy"}]}, "one layer or more, .*got CrossEntropy"),
    "no layers": ({"layers": []}, "one layer or more"),
    "layers that are none": ({"layers": 3}, "one layer or more|TypeError"),
    "a field of its own": ({"layers": [{**DENSE, "self": 3}]}, "its own fields|TypeError"),
    "models without end": ({"models": 10**9}, "Network models: .* <= 1048576, got 1000000000|models with seeds"),
    "negative models": ({"models": -1, "seeds": []}, f"Network models: {WHOLE}|models with seeds"),
    "true models": ({"models": True}, f"Network models: {WHOLE}, got True|do not fit"),
    "no seeds": ({"seeds": []}, "IndexError|with seeds"),
    "a seed of many digits": ({"seeds": [DIGITS]}, "Network seed: expected integers from 0 to .*|with seeds"),
    "an unknown dtype": ({"dtype": "object"}, "dtype"),
}


def text(change: dict[str, Any]) -> str:
    own = json.loads(gn.Network([gn.Dense(2)], 3, device="cpu").to_json())
    return json.dumps({**own, **change})


@contextmanager
def at_once() -> Iterator[None]:
    """Takes less than a second, and a few megabytes."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        yield
        assert time.perf_counter() - start < 1.0
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_architecture_in_json_is_refused_at_once(name: str) -> None:
    change, message = FORGED[name]
    given = text(change)
    with at_once(), pytest.raises(GpunnError, match=f"(?s)expected .*{message}|{message}") as caught:
        gn.Network.from_json(given, device="cpu")
    assert re.match(FORM, str(caught.value)) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_architecture_in_a_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """With all arrays of a network, and with none."""
    path = tmp_path / "forged.gpunn"
    gn.Network([gn.Dense(2)], 3, device="cpu").save(path)
    arrays, meta = archive.read(path)
    meta["network"]["architecture"] |= FORGED[name][0]
    for kept in (arrays, {}):
        archive.write(path, kept, meta)
        with at_once(), pytest.raises(CheckpointError) as caught:
            gn.load(path, device="cpu")
        assert re.match(FORM, str(caught.value)) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["70 axes that nothing reads", "2**62 inputs", "inputs of many digits"])
def test_a_forged_architecture_is_refused_by_inspect(name: str, tmp_path: Path) -> None:
    path = tmp_path / "forged.gpunn"
    gn.Network([gn.Dense(2)], 3, device="cpu").save(path)
    _, meta = archive.read(path)
    meta["network"]["architecture"] |= FORGED[name][0]
    archive.write(path, {}, meta)
    done = CliRunner().invoke(command, ["inspect", str(path)])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert done.stderr.startswith(f"gpunn: {path}: ") and "expected at most" in done.stderr


def test_a_number_of_more_digits_than_python_reads_is_refused() -> None:
    given = text({}).replace('"units": 2', f'"units": {"9" * 5000}')
    with at_once(), pytest.raises(ConfigurationError, match="Network.from_json: .*, got ValueError: Exceeds the limit"):
        gn.Network.from_json(given, device="cpu")


# The same from Python


def test_inputs_with_the_maximum_number_of_axes_work() -> None:
    net = gn.Network([gn.Flatten(), gn.Dense(1)], (1,) * AXES, device="cpu", models=2)
    X = np.ones((3,) + (1,) * AXES)
    net.fit(X, X.reshape(3, 1), loss=gn.SquaredError(), optimizer=gn.Adam(), epochs=1, progress=False)
    assert net.predict(X).shape == (2, 3, 1) and net.summary()


def test_inputs_with_the_maximum_number_of_elements_are_planned() -> None:
    """The network has no arrays yet; a batch would take more than 2**63 bytes."""
    net = gn.Network([gn.Identity()], NUMBERS, device="cpu")
    with pytest.raises(DeviceMemoryError, match="memory: expected room for every array, got more than 2\\*\\*63 bytes"):
        net.summary()
    with pytest.raises(DeviceMemoryError, match="memory: expected room for every array, got more than 2\\*\\*63 bytes"):
        gn.Network([gn.Dense(1)], 3, device="cpu").summary(2**62)
    assert hollow((2**40,), "uint8").nbytes == 2**40


def test_whole_numbers_and_shapes_beyond_their_limits_are_refused() -> None:
    assert whole("a", np.int64(3)) == 3 and whole("a", 2**63 - 1) == 2**63 - 1 and whole("a", 5, high=5) == 5
    check_shape("a", (1,) * AXES)
    check_shape("a", (2, NUMBERS // 2))
    for value, message in ((2**63, f"a: {WHOLE} and <= {2**63 - 1}, got {2**63}"), (True, f"a: {WHOLE}, got True")):
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            whole("a", value)
    with pytest.raises(ConfigurationError, match=f"a: {WHOLE} and <= 5, got 6; give such a number"):
        whole("a", 6, high=5)
    for shape in ((np.int64(2**62), np.int64(4)), (3, NUMBERS), (1,) * (AXES + 1)):
        with pytest.raises(ConfigurationError, match=f"a: expected {TOO_LARGE}, got .*; use fewer or smaller axes"):
            check_shape("a", shape)


@pytest.mark.parametrize("make", [gn.Dense, gn.Dropout, lambda n: gn.Dense(2, bias=n)])
def test_the_error_for_a_number_too_long_to_print_is_readable(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="got a int of more digits than Python prints"):
        make(10**5000)
    assert shown("a" * 1000) == "'" + "a" * 499 + "..." and shown((1, "b")) == "(1, 'b')"


def test_populations_of_too_many_models_are_refused_at_once() -> None:
    """They are refused before a seed for each is made."""
    for options in ({"models": 10**9}, {"models": 2**20 + 1}, {"models": 10**9, "seed": range(10**9)}):
        with at_once(), pytest.raises(ConfigurationError, match="Network models: .* >= 1 and <= 1048576, got 1"):
            gn.Network([gn.Dense(1)], 1, device="cpu", **options)
    with at_once(), pytest.raises(ConfigurationError, match="Network seed: expected one seed, got 1000000000 seeds"):
        gn.Network([gn.Dense(1)], 1, device="cpu", seed=range(10**9))
    with at_once(), pytest.raises(ConfigurationError, match="one seed or 2 of them, got 1000000000 seeds; set models="):
        gn.Network([gn.Dense(1)], 1, device="cpu", models=2, seed=range(10**9))
    assert check_seeds(5, 70_000)[-1] == 70_004 and check_seeds(range(3), 3) == (0, 1, 2)


@pytest.mark.parametrize(
    "layers", [[gn.Dense(10**18)], [gn.Embedding(10**18, 10**9)], [gn.Dense(10**15), gn.Dense(10**15)]]
)
def test_layers_of_too_many_parameters_are_refused_at_once(layers: list[Any]) -> None:
    with at_once(), pytest.raises(ConfigurationError, match=f"layers.[01] .*: expected {TOO_LARGE}, got shape"):
        gn.Network(layers, 3, device="cpu")


def test_huge_numbers_in_the_arguments_of_a_training_are_refused() -> None:
    X = np.ones((6, 3))
    net = gn.Network([gn.Dense(1)], 3, device="cpu")

    def fit(**options: Any) -> None:
        given = {"epochs": 1, "stopping": gn.TimeLimit(0.05), **options}
        net.fit(X, X[:, :1], loss=gn.SquaredError(), optimizer=gn.SGD(0.01), progress=False, **given)

    with at_once():
        fit(batch_size=10**18)
        fit(epochs=10**12)
        fit(epochs=None, steps=10**18)
        fit(accumulate=10**18)
    for name in ("epochs", "batch_size", "accumulate", "every", "memory"):
        with pytest.raises(ConfigurationError, match=f"fit {name}: {WHOLE} and <= 9223372036854775807, got 1000"):
            fit(**{name: 10**30})
    with pytest.raises(ConfigurationError, match="fit folds: expected 2 pairs .*, got"):
        two = gn.Network([gn.Dense(1)], 3, device="cpu", models=2)
        two.fit(X, X[:, :1], loss=gn.SquaredError(), optimizer=gn.SGD(0.01), folds=10**18, progress=False)
    with pytest.raises(ConfigurationError, match=f"batch_size: {WHOLE} and <= 9223372036854775807, got 1000"):
        net.predict(X, batch_size=10**30)
