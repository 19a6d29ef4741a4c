"""Tables with named columns: found by name wherever a network takes inputs, and numbers of any kind in them."""

import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import ArrayTypeError, CheckpointError, DataError, GpunnError

pd = pytest.importorskip("pandas")

NAMES = ("a", "b", "c")
X = np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 10.0, 100.0]
Y = (X[:, 0] > 0).astype(int)
LOSS = gn.CrossEntropy()


def columns(array: Any, names: Any = NAMES) -> dict[str, Any]:
    return dict(zip(names, np.asarray(array).T))


def pandas(array: Any, names: Any = NAMES) -> Any:
    return pd.DataFrame(array, columns=list(names))


def pyarrow(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pyarrow").table(columns)


def record_batch(columns: dict[str, Any]) -> Any:
    return pyarrow(columns).to_batches()[0]


def polars(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


TABLES = pytest.mark.parametrize("table", [pd.DataFrame, pyarrow, record_batch, polars])


def network(**options: Any) -> gn.Network:
    return gn.Network([gn.Dense(4, "tanh"), gn.Dense(2)], 3, device="cpu", **options)


def train(net: gn.Network, inputs: Any, targets: Any = Y, **options: Any) -> gn.History:
    given: dict[str, Any] = {"loss": LOSS, "optimizer": gn.Adam(1e-2), "epochs": 2, "progress": False, **options}
    return net.fit(inputs, targets, **given)


def shuffled(table: Callable[..., Any] = pd.DataFrame, array: Any = X) -> Any:
    """The same table with its columns in another order, and a column of text between them."""
    a, b, c = np.asarray(array).T
    return table({"c": c, "other": ["x"] * len(a), "a": a, "b": b})


# Names


@TABLES
def test_columns_of_a_data_frame_are_found_by_name_in_every_method(table: Callable[..., Any]) -> None:
    net = network()
    train(net, table(columns(X)))
    assert net.columns == NAMES
    other = shuffled(table)
    for use in (
        net.predict,
        net.predict_probability,
        lambda inputs: net.evaluate(inputs, Y)["loss"],
        lambda inputs: net.loss_of(inputs, Y, LOSS),
        lambda inputs: net.gradients(inputs, Y, LOSS)[1]["0.W"],
    ):
        np.testing.assert_array_equal(use(other), use(X))
    with pytest.raises(AssertionError):  # they would differ otherwise
        np.testing.assert_array_equal(net.predict(X[:, [2, 0, 1]]), net.predict(X))


@TABLES
def test_columns_of_a_data_frame_are_found_by_name_in_a_training(table: Callable[..., Any]) -> None:
    plain, named, again = network(), network(), network()
    expected = train(plain, X, validation=(X[:20], Y[:20]))["validation_loss"]
    validation = (shuffled(table, X[:20]), Y[:20])
    np.testing.assert_array_equal(train(named, table(columns(X)), validation=validation)["validation_loss"], expected)
    np.testing.assert_array_equal(named.vector, plain.vector)
    train(again, table(columns(X)), validation=validation)
    train(plain, X)
    train(again, shuffled(table))  # a further one
    np.testing.assert_array_equal(again.vector, plain.vector)


def test_column_names_are_saved_copied_and_pickled_with_the_network(tmp_path: Path) -> None:
    net = network(models=2)
    train(net, pandas(X), checkpoint=tmp_path / "run.gpunn")
    net.save(tmp_path / "a.gpunn")
    loaded = [gn.load(tmp_path / name, device="cpu") for name in ("a.gpunn", "run.gpunn")]
    for other in (*loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.member(1)):
        assert other.columns == NAMES
        np.testing.assert_array_equal(other.predict(shuffled()), other.predict(X))


def test_a_network_without_column_names_is_saved_and_loaded(tmp_path: Path) -> None:
    net = network()
    train(net, X)
    net.save(tmp_path / "a.gpunn")
    assert "columns" not in archive.read(tmp_path / "a.gpunn")[1]["network"]
    assert gn.load(tmp_path / "a.gpunn", device="cpu").columns is None
    rebuild, parts = net.__reduce__()
    assert rebuild(*parts[:-1]).columns is None


@pytest.mark.parametrize("names", [3, ["a"], ["a", "b", "b"], ["a", "b", 3], {"a": 0, "b": 1, "c": 2}])
def test_forged_column_names_in_a_file_are_refused(tmp_path: Path, names: Any) -> None:
    path = tmp_path / "a.gpunn"
    net = network()
    train(net, pandas(X), checkpoint=path)
    arrays, meta = archive.read(path)
    meta["network"]["columns"] = names
    archive.write(path, arrays, meta)
    told = re.escape(f"columns: expected a name of its own for each of the inputs [3], got {json.dumps(names)}; give")
    with pytest.raises(CheckpointError, match=told):
        gn.load(path, device="cpu")
    for inputs in (pandas(X), X):
        fresh = network()
        before = fresh.vector.copy()
        with pytest.raises(CheckpointError, match=told):
            train(fresh, inputs, epochs=4, resume=path)
        np.testing.assert_array_equal(fresh.vector, before)


def test_columns_of_a_data_frame_are_found_by_name_in_a_resumed_training(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.gpunn", network()
    told = train(whole, pandas(X), epochs=4, validation=(pandas(X[:20]), Y[:20]))["validation_loss"]
    train(network(), pandas(X), epochs=2, validation=(pandas(X[:20]), Y[:20]), checkpoint=path)
    trained_on_others = network()
    train(trained_on_others, pandas(X, "cab"))
    for other, inputs in ((network(), shuffled()), (network(), X), (trained_on_others, shuffled())):
        history = train(other, inputs, epochs=4, validation=(shuffled(array=X[:20]), Y[:20]), resume=path)
        np.testing.assert_array_equal(history["validation_loss"], told)
        np.testing.assert_array_equal(other.vector, whole.vector)
        assert other.columns == NAMES


def test_a_resumed_training_says_which_columns_are_missing(tmp_path: Path) -> None:
    path, other = tmp_path / "a.gpunn", network()
    train(network(), pandas(X), checkpoint=path)
    before = other.vector.copy()
    with pytest.raises(DataError, match=r"^X: expected the columns of training: .*, got a table without 'b'; add"):
        train(other, pandas(X, "adc"), epochs=4, resume=path)
    np.testing.assert_array_equal(other.vector, before)
    assert other.columns is None


def test_the_error_for_missing_columns_of_a_data_frame_names_them() -> None:
    net = network()
    train(net, pandas(X))
    before = net.vector.copy()
    told = r"^X: expected the columns of training: 'a', 'b', 'c', got a table without 'b', 'c'; add or rename"
    for use in (net.predict, lambda inputs: train(net, inputs), lambda inputs: net.evaluate(inputs, Y)):
        with pytest.raises(DataError, match=told):
            use(pandas(X, ("a", "d", "e")))
    with pytest.raises(DataError, match=r"^fit validation X: expected the columns of training"):
        train(net, pandas(X), validation=(pandas(X, "abd"), Y))
    np.testing.assert_array_equal(net.vector, before)


def test_a_failed_training_leaves_no_column_names() -> None:
    net = network()
    with pytest.raises(GpunnError):
        train(net, pandas(X), Y[:-1])
    assert net.columns is None
    train(net, pandas(X, "xyz"))
    assert net.columns == ("x", "y", "z")


def test_arrays_are_taken_in_the_order_of_their_columns() -> None:
    net = network()
    train(net, X)
    assert net.columns is None
    np.testing.assert_array_equal(net.predict(pandas(X, "cba")), net.predict(X))  # there are no names to go by
    train(net, pandas(X))
    assert net.columns == NAMES
    train(net, X)
    assert net.columns == NAMES


def test_a_data_frame_with_numbered_columns_gives_no_column_names() -> None:
    net = network()
    train(net, pd.DataFrame(X))
    assert net.columns is None
    train(net, pandas(X))
    np.testing.assert_array_equal(net.predict(pd.DataFrame(X)), net.predict(X))


def test_numbered_columns_of_a_data_frame_in_another_order_are_refused() -> None:
    net, table = network(), pd.DataFrame(X)
    train(net, table)
    before = net.vector.copy()
    moved = table[[2, 0, 1]]
    told = "expected columns whose names are text, got a column named 2; rename it"
    for use in (
        net.predict,
        net.predict_probability,
        lambda inputs: net.evaluate(inputs, Y),
        lambda inputs: net.gradients(inputs, Y, LOSS),
        lambda inputs: train(net, inputs),
    ):
        with pytest.raises(DataError, match=f"^X: {told}"):
            use(moved)
    for inputs in (table, X):
        with pytest.raises(DataError, match=f"^fit validation X: {told}"):
            train(net, inputs, validation=(moved, Y))
    np.testing.assert_array_equal(net.vector, before)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a", 1, "c"), "expected columns whose names are text, got a column named 1; rename"),
        ((2, 0, 1), "expected columns whose names are text, got a column named 2; rename"),
        (("a", "b", "a"), "expected columns with names of their own, got two named 'a'; rename"),
    ],
)
def test_a_data_frame_with_bad_column_names_is_refused(names: Any, told: str) -> None:
    with pytest.raises(DataError, match=f"^X: {told}"):
        train(network(), pandas(X, names))


# Numbers

Z = np.array([[1.0, 1.0, 0.5], [0.0, 0.0, 2.0], [3.0, 1.0, 1.5]])


def mixed(*kinds: str) -> Any:
    return pd.DataFrame({name: pd.array(Z[:, j], dtype=kind) for j, (name, kind) in enumerate(zip(NAMES, kinds))})


@pytest.mark.parametrize(
    "kinds",
    [
        ("int64", "bool", "float64"),
        ("Int64", "boolean", "Float64"),
        ("uint8", "boolean", "float32"),
        ("object", "object", "object"),
    ],
)
def test_a_data_frame_may_mix_numbers_and_truth_values_of_any_dtype(kinds: tuple[str, ...]) -> None:
    net = network()
    np.testing.assert_array_equal(net.predict(mixed(*kinds)), net.predict(Z))


def test_truth_values_and_gaps_of_arrow_columns_are_read() -> None:
    pa = pytest.importorskip("pyarrow")
    net = network()
    table = pa.table({"a": [1, 0, 3], "b": [True, False, True], "c": [0.5, 2.0, 1.5]})
    np.testing.assert_array_equal(net.predict(table), net.predict(Z))
    with pytest.raises(DataError, match=r"^X column 'b': expected a number in every row, got none in row 2; fill"):
        net.predict(pa.table({"a": [1, 0, 3], "b": [True, None, True], "c": [0.5, 2.0, 1.5]}))


@pytest.mark.parametrize(
    ("column", "got"),
    [
        (pd.array([1, None, 3], dtype="Int64"), "none in row 2"),
        (pd.array([True, None, None], dtype="boolean"), "none in row 2 and 1 more"),
        ([0.5, 1.0, float("nan")], "none in row 3"),
        (np.array([1, 2.5, None], object), "none in row 3"),
    ],
)
def test_the_error_for_a_gap_in_a_data_frame_names_column_and_row(column: Any, got: str) -> None:
    table = pd.DataFrame({"a": [1, 2, 3], "b": column, "c": [True, False, True]})
    with pytest.raises(DataError, match=f"^X column 'b': expected a number in every row, got {got}; fill them"):
        network().predict(table)


@pytest.mark.parametrize(
    ("column", "got"),
    [
        (["x", "y", "z"], "'x'"),
        (pd.Categorical([1, 2, 1]), "categories"),
        (pd.to_datetime(["2020-01-01"] * 3), "dtype datetime64"),
        (np.array([1, 2, 2**70], object), "numbers beyond 64 bits"),
    ],
)
def test_the_error_for_text_in_a_data_frame_names_the_column(column: Any, got: str) -> None:
    table = pd.DataFrame({"a": [1, 2, 3], "b": column, "c": [0.5, 1.0, 1.5]})
    told = rf"^X column 'b': expected real numbers, got {got}.*; encode it, as gpunn\.data\.Preprocessing and pandas"
    with pytest.raises(ArrayTypeError, match=told):
        train(network(), table, [0, 1, 0])


def test_targets_may_be_data_frames() -> None:
    net = gn.Network([gn.Dense(2)], 3, device="cpu")
    y = pd.DataFrame({"p": pd.array([1, 0, 1], dtype="Int64"), "q": [True, False, True]})
    found = net.loss_of(Z, y, gn.SquaredError())
    assert found == net.loss_of(Z, y.to_numpy(np.float64), gn.SquaredError())
