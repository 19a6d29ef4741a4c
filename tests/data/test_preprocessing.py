"""From tables to inputs: what each column becomes, what is learned, and what is refused at prediction."""

import json
import statistics
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import Preprocessing
from gpunn.data.columns import Embedded, Encoder, OneHot, Plain, Quantile, Standard, fit_numbers
from gpunn.data.table import column
from gpunn.data.targets import Classes, Quantities
from gpunn.errors import ConfigurationError, DataError
from gpunn.value import from_json, to_json

N = 40
TRAIN: dict[str, Any] = {
    "age": [None if i % 10 == 9 else float(i) for i in range(N)],
    "colour": ["red", "green", "blue", "red"] * (N // 4),
    "city": [f"c{i % 20}" for i in range(N)],
    "ok": [i % 3 == 0 for i in range(N)],
    "day": np.arange(N).astype("datetime64[D]"),
    "y": [i % 2 for i in range(N)],
}


def inputs(fitted: Preprocessing, **columns: Any) -> Any:
    """One row of the training table with these values in place of its own, as inputs in float64."""
    row = {name: [values[0]] if name != "day" else values[:1] for name, values in TRAIN.items()}
    return fitted.inputs({**row, **{name: [value] for name, value in columns.items()}}, "float64")[0]


def test_each_kind_of_column_gets_its_encoder() -> None:
    fitted = Preprocessing.fit(TRAIN)
    assert [type(c).__name__ for c in fitted.columns] == ["Standard", "OneHot", "Standard", "Standard", "Embedded"]
    assert [c.name for c in fitted.columns] == ["age", "colour", "ok", "day", "city"]  # embeddings come last
    assert [c.width for c in fitted.columns] == [2, 3, 1, 1, 1]
    assert (fitted.width, fitted.outputs, fitted.task, fitted.classes) == (8, 2, "classification", (0, 1))
    assert fitted.kinds == {
        "age": "numeric", "colour": "categorical", "ok": "boolean", "city": "categorical", "y": "numeric",
    }  # fmt: skip
    assert fitted.describe() == [
        ("age", "numeric", "standardised; gaps become 19, with a flag"),
        ("colour", "categorical", "one-hot of 3 slots; unseen ones count as 'red'"),
        ("ok", "boolean", "standardised; gaps become 0"),
        ("day", "time", "standardised; gaps become 19.5"),
        ("city", "categorical", "embedding of 20 slots; unseen ones count as 'c0'"),
        ("y", "numeric", "target of 2 classes"),
    ]


def test_numeric_columns_are_standardised() -> None:
    fitted = Preprocessing.fit(TRAIN)
    X = fitted.inputs(TRAIN, "float64")
    ages = np.array([19.0 if age is None else age for age in TRAIN["age"]])
    np.testing.assert_allclose(X[:, 0], (ages - ages.mean()) / ages.std(), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(X[:, 1], [age is None for age in TRAIN["age"]])
    for place in (0, 5, 6):  # with the median in its gaps, the truths, and the days
        np.testing.assert_allclose([X[:, place].mean(), X[:, place].std()], [0, 1], atol=1e-12)
    X32 = fitted.inputs(TRAIN)
    assert X32.dtype == np.float32
    np.testing.assert_array_equal(X32, X.astype(np.float32))


def test_gaps_in_columns_without_gaps_in_training_get_the_default() -> None:
    fitted = Preprocessing.fit(TRAIN)
    np.testing.assert_allclose(inputs(fitted, ok=None)[5], -np.mean(TRAIN["ok"]) / np.std(TRAIN["ok"]))  # false
    assert inputs(fitted, day=np.datetime64("NaT"))[6] == 0.0
    np.testing.assert_array_equal(inputs(fitted, colour=None)[2:5], inputs(fitted, colour="red")[2:5])


@pytest.mark.parametrize("how", ["one-hot", "embedding"])
def test_categories_get_a_slot_each_and_rare_ones_share_one(how: str) -> None:
    values = ["a"] * 5 + ["b"] * 3 + ["once", None, None]
    fitted = Preprocessing.fit({"c": values, "y": [0, 1] * 5 + [0]}, categorical=how)
    encoder: Any = fitted.columns[0]
    assert type(encoder) is {"one-hot": OneHot, "embedding": Embedded}[how]
    assert (encoder.categories, encoder.slots, encoder.rare, encoder.gap) == (("a", "b"), 4, True, True)

    def slot(value: Any) -> int:
        found = fitted.inputs({"c": [value]})[0]
        return int(found.argmax()) if how == "one-hot" else int(found[0])

    assert [slot(v) for v in ("a", "b", "once", "never seen", None)] == [0, 1, 2, 2, 3]
    assert fitted.describe()[0][2] == f"{how} of 4 slots; unseen ones share a slot with rare ones, gaps have their own"
    if how == "one-hot":
        np.testing.assert_array_equal(fitted.inputs({"c": values}).sum(axis=1), 1.0)
    mixed = fitted.inputs({"c": ["b", None, "new", "a"]})
    assert [int(row.argmax() if how == "one-hot" else row[0]) for row in mixed] == [1, 3, 2, 0]


def test_an_unseen_category_counts_as_the_most_frequent_one() -> None:
    fitted = Preprocessing.fit({"c": ["b"] * 3 + ["a"] * 2, "y": [0, 1, 0, 1, 0]})
    np.testing.assert_array_equal(fitted.inputs({"c": ["new", "b", "a", None]}), [[0, 1], [0, 1], [1, 0], [0, 1]])


def test_the_rarest_categories_beyond_a_maximum_share_a_slot() -> None:
    values = ["a"] * 5 + ["b"] * 3 + ["c"] * 2
    fitted = Preprocessing.fit({"c": values, "y": [0, 1] * 5}, most_categories=2)
    assert fitted.columns == (OneHot("c", ("a", "b"), 0, rare=True),)


def test_columns_that_say_nothing_are_left_out() -> None:
    columns = {**TRAIN, "name": [f"n{i}" for i in range(N)], "nothing": [None] * N}
    fitted = Preprocessing.fit(columns, leave_out=["age"])
    assert fitted.left_out == ("age", "name", "nothing")
    assert ("name", "", "left out") in fitted.describe()
    assert len(fitted.inputs(columns)) == N  # they may still be there
    assert len(fitted.inputs({n: v for n, v in columns.items() if n not in fitted.left_out})) == N


def test_the_layers_of_a_preprocessing_begin_with_embeddings() -> None:
    fitted = Preprocessing.fit(TRAIN, categorical="embedding")
    assert fitted.layers() == [
        gn.Branch(
            [
                gn.Columns(0, 4),
                [gn.Columns(4, 5), gn.Embedding(3, 4), gn.Flatten()],
                [gn.Columns(5, 6), gn.Embedding(20, 8), gn.Flatten()],
            ]
        )
    ]
    assert Preprocessing.fit(TRAIN, categorical="one-hot").layers() == []
    alone = Preprocessing.fit({"c": TRAIN["city"], "y": TRAIN["y"]}, categorical="embedding")
    net = gn.Network([*alone.layers(), gn.Dense(alone.outputs)], alone.width, device="cpu")
    assert net.predict(alone.inputs({"c": ["c3", "c3"]})).shape == (2, 2)


def test_a_network_learns_from_embedded_categories() -> None:
    """The target depends on the category alone, so that only an embedding can learn it."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 30, 600)
    table = gn.data.read(
        {"c": [f"k{i}" for i in codes], "x": rng.normal(size=600), "y": rng.permutation(30)[codes] % 2}
    )
    fitted = Preprocessing.fit(table)
    assert isinstance(fitted.columns[-1], Embedded)
    net = gn.Network([*fitted.layers(), gn.Dense(16, "relu"), gn.Dense(2)], fitted.width, device="cpu")
    net.preprocessing = fitted
    X, y = fitted.inputs(table), fitted.targets(table)
    net.fit(X, y, loss=fitted.loss, optimizer=gn.AdamW(1e-2), epochs=20, batch_size=32, progress=False)
    assert gn.data.evaluate(net, table)["accuracy"] > 0.99


# Numbers


def test_quantile_encoding_gives_normal_scores() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=2000) * 3)
    fitted = Preprocessing.fit({"x": values, "y": np.arange(2000) % 2}, numeric="quantile")
    assert isinstance(fitted.columns[0], Quantile)
    X = fitted.inputs({"x": values}, "float64")[:, 0]
    normal = statistics.NormalDist()
    wanted = [normal.inv_cdf((i + 0.5) / 2000) for i in range(2000)]
    inner = slice(100, -100)
    np.testing.assert_allclose(np.sort(X)[inner], np.array(wanted)[inner], atol=0.1)
    assert (np.argsort(X[np.argsort(values)], kind="stable") == np.arange(2000)).all()
    beyond = fitted.inputs({"x": [-1e300, 0.0, 1e300]}, "float64")[:, 0]
    assert beyond[0] == beyond[1] == X.min() and beyond[2] == X.max()


def test_quantile_encoding_of_few_values_gives_normal_scores() -> None:
    fitted = Preprocessing.fit({"x": [0.0] * 90 + [1.0] * 10, "y": [0, 1] * 50}, numeric="quantile")
    X = fitted.inputs({"x": [0.0, 0.5, 1.0]}, "float64")[:, 0]
    assert X[0] < X[1] < X[2] and X[2] > 1.0 and abs(X[0]) < 0.3


def test_numeric_none_passes_numbers_as_they_are() -> None:
    fitted = Preprocessing.fit({"x": [1.0, 2.0, None], "b": [True, False, True], "y": [0, 1, 0]}, numeric=None)
    assert [type(c) for c in fitted.columns] == [Plain, Plain]
    np.testing.assert_array_equal(fitted.inputs({"x": [5.0, None], "b": [True, False]}), [[5, 0, 1], [1.5, 1, 0]])
    assert fitted.describe()[0][2] == "as it is; gaps become 1.5, with a flag"


@pytest.mark.parametrize("scale", [1.7e308, 1e-308, 5e-324, 1.0])
def test_huge_and_tiny_numbers_are_standardised(scale: float) -> None:
    values = np.array([-1.0, 1.0, 1.0, -1.0]) * scale
    X = Preprocessing.fit({"x": values, "y": [0, 1, 1, 0]}).inputs({"x": values})
    np.testing.assert_allclose(X[:, 0], [-1, 1, 1, -1], rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e308, -3.0])
def test_a_constant_numeric_column_becomes_zeros(value: float) -> None:
    X = Preprocessing.fit({"x": [value] * 7, "y": [0, 1, 0, 1, 0, 1, 0]}).inputs({"x": [value, value]})
    np.testing.assert_array_equal(X, 0.0)


def test_a_numeric_column_with_a_large_mean_keeps_its_digits() -> None:
    values = 1e9 + np.arange(100.0)
    X = Preprocessing.fit({"x": values, "y": np.arange(100) % 2}).inputs({"x": values}, "float64")
    np.testing.assert_allclose([X.mean(), X.std()], [0, 1], atol=1e-6)


# JSON


@pytest.mark.parametrize("numeric", ["standardise", "quantile", None])
@pytest.mark.parametrize("target", ["y", "age", "colour", "ok", ("age2", "y")])
def test_a_preprocessing_is_stored_as_json_and_restored(numeric: Any, target: Any) -> None:
    columns = {**TRAIN, "age2": list(range(N)), "age": list(range(N))}
    fitted = Preprocessing.fit(columns, target, numeric=numeric)
    again = from_json(json.loads(json.dumps(to_json(fitted))))
    assert again == fitted and hash(again) == hash(fitted)
    np.testing.assert_array_equal(again.inputs(columns), fitted.inputs(columns))
    np.testing.assert_array_equal(again.targets(columns), fitted.targets(columns))


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "no columns": (lambda: Preprocessing((), Classes("y", (0, 1))), "^Preprocessing: expected columns and a target"),
    "no target": (lambda: Preprocessing((Plain("a", 0.0),), None), "^Preprocessing: expected columns and a target"),
    "left out": (lambda: Preprocessing((Plain("a", 0.0),), Classes("y", (0, 1)), left_out=(1,)), "^Preprocessing: exp"),
    "name": (lambda: Plain(1, 0.0), "^Plain name: expected text, got 1; fit it again"),
    "center": (lambda: Plain("a", np.inf), "^a center: expected a finite number, got inf"),
    "flag": (lambda: Plain("a", 0.0, flag=1), "^a flag: expected one of True, False, got 1"),
    "of": (lambda: Plain("a", 0.0, of="text"), "^a of: expected one of 'numeric', 'time', 'boolean', got 'text'"),
    "mean": (lambda: Standard("a", 0.0, mean=np.nan), "^a mean: expected a finite number, got nan"),
    "deviation": (lambda: Standard("a", 0.0, deviation=0.0), "^a deviation: expected a number with 0 < value, got 0.0"),
    "knots": (
        lambda: Quantile("a", 0.0, knots=(1.0, 0.0)),
        r"^a knots: expected rising numbers, got \(1.0, 0.0\); fit",
    ),
    "no knots": (lambda: Quantile("a", 0.0, knots=()), r"^a knots: expected rising numbers, got \(\); fit it again"),
    "categories": (lambda: OneHot("a", ("b", "b")), r"^a categories: expected different texts, got \('b', 'b'\); fit"),
    "no categories": (lambda: OneHot("a", ()), r"^a categories: expected different texts, got \(\); fit it again"),
    "numbers": (lambda: OneHot("a", (1, 2)), r"^a categories: expected different texts, got \(1, 2\); fit"),
    "common": (lambda: OneHot("a", ("b",), 1), "^a common: expected below 1, got 1; fit it again"),
    "rare": (lambda: OneHot("a", ("b",), rare=0), "^a rare: expected one of True, False, got 0"),
    "gap": (lambda: OneHot("a", ("b",), gap="x"), "^a gap: expected one of True, False, got 'x'"),
    "size": (lambda: Embedded("a", ("b",), size=0), "^a size: expected a whole number >= 1, got 0"),
}


@pytest.mark.parametrize("fault", BAD_VALUES)
def test_encoders_refuse_values_that_make_no_sense(fault: str) -> None:
    make, message = BAD_VALUES[fault]
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_user_defined_encoder_needs_all_methods() -> None:
    class Nothing(Encoder, abstract=True):
        pass

    for use in (lambda: Nothing("a").width, lambda: Nothing("a").encode(None), lambda: Nothing("a").describe()):
        with pytest.raises(NotImplementedError, match="^Nothing needs an? (width|encode method|describe method)$"):
            use()
    from gpunn.data.columns import NumberEncoder

    class Scaled(NumberEncoder, abstract=True):
        pass

    with pytest.raises(NotImplementedError, match="^Scaled needs a scaled method$"):
        Scaled("a", 0.0).encode(column("numeric", np.ones(3)))


# What is refused


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "numeric": ({"numeric": "minmax"}, "^Preprocessing numeric: expected one of 'standardise', 'quantile', None, got"),
    "categorical": ({"categorical": "hash"}, "^Preprocessing categorical: expected one of 'one-hot', 'embedding', 'au"),
    "missing": ({"missing": "drop"}, r"^Preprocessing missing: expected one of 'median\+flag', 'refuse', got 'drop'"),
    "most": ({"most_categories": 0}, "^Preprocessing most_categories: expected a whole number >= 1, got 0"),
    "task": ({"task": "ranking"}, "^Preprocessing task: expected one of 'classification', 'regression', None, got"),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_preprocessing_refuses_options_that_make_no_sense(option: str) -> None:
    options, message = OPTIONS[option]
    with pytest.raises(ConfigurationError, match=message):
        Preprocessing.fit(TRAIN, **options)


def test_preprocessing_refuses_tables_that_it_cannot_learn_from() -> None:
    with pytest.raises(
        DataError, match=r"^table row 10 column 'age': expected a value, got none; fill it, or fit with"
    ):
        Preprocessing.fit(TRAIN, missing="refuse")
    with pytest.raises(DataError, match=r"^table: expected a column 'where', got columns 'age', .*; correct the name"):
        Preprocessing.fit(TRAIN, leave_out=["where"])
    message = r"^table: expected a column beside the target that says something, got 'id', 'gap'; give numbers"
    with pytest.raises(DataError, match=message):
        Preprocessing.fit({"id": ["a", "b", "c", "d"], "gap": [None] * 4, "y": [0, 1, 0, 1]})
    with pytest.raises(DataError, match="that says something, got none; give"):
        Preprocessing.fit({"y": [0, 1, 0, 1]})


def test_preprocessing_refuses_tables_unlike_that_of_training() -> None:
    fitted = Preprocessing.fit(TRAIN)
    table = gn.data.read(TRAIN)
    with pytest.raises(
        DataError, match=r"^table: expected the columns of training: 'age', .*, got 'city' missing; rename"
    ):
        fitted.inputs(table.without("city"))
    told = r"got 'city' missing, beside 'more', which training did not have; rename or add what is missing$"
    with pytest.raises(DataError, match=told):
        fitted.inputs({**{name: v for name, v in TRAIN.items() if name != "city"}, "more": [1] * N})
    other = {"age": ["x"], "colour": ["red"], "city": ["c1"], "ok": [True], "day": [np.datetime64("2020-01-01")]}
    with pytest.raises(DataError, match=r"^table row 1 column 'age': expected a number, got 'x'; correct it"):
        fitted.inputs(other)
    with pytest.raises(
        DataError, match=r"^table row 1 column 'day': expected a time column, got 'monday', categorical"
    ):
        fitted.inputs({**other, "age": [1], "day": ["monday"]})
    with pytest.raises(DataError, match=r"^table row 1 column 'ok': expected true or false, got 2\.0; correct it"):
        fitted.inputs({**other, "age": [1], "ok": [2]})
    with pytest.raises(
        DataError, match=r"^table row 2 column 'age': expected a number near those of training, in the r"
    ):
        fitted.inputs({name: [v[0], v[0]] if name != "age" else [1.0, 1e300] for name, v in other.items()})
    assert fitted.inputs(table.without("y")).shape == (N, 8)  # no target is needed


def test_columns_may_come_in_another_order_and_as_texts() -> None:
    fitted = Preprocessing.fit(TRAIN)
    turned = dict(reversed(TRAIN.items()))
    np.testing.assert_array_equal(fitted.inputs(turned), fitted.inputs(TRAIN))
    texts = {
        **TRAIN,
        "age": [None if age is None else str(age) for age in TRAIN["age"]],
        "ok": [int(b) for b in TRAIN["ok"]],
    }
    np.testing.assert_array_equal(fitted.inputs(texts), fitted.inputs(TRAIN))
    empty = {**TRAIN, "colour": [None] * N, "age": [None] * N}
    assert fitted.inputs(empty)[:, 1].all()


def test_a_column_with_gaps_in_training_gets_a_flag() -> None:
    values = column("numeric", np.array([1.0, np.nan, 3.0]))
    assert fit_numbers("a", values, "standardise") == Standard("a", 2.0, mean=2.0, deviation=(2 / 3) ** 0.5, flag=True)
    assert Quantities(("a",), (0.0,), (1.0,)).task == "regression"


def test_columns_that_training_did_not_have_are_ignored() -> None:
    fitted = Preprocessing.fit(TRAIN, leave_out=["colour"])
    more = {"note": ["x", None] * (N // 2), **TRAIN, "more": [1] * N}
    np.testing.assert_array_equal(fitted.inputs(more), fitted.inputs(TRAIN))
    assert fitted.unused(gn.data.read(more)) == ("note", "more")
    assert fitted.unused(gn.data.read(TRAIN)) == ()


# Targets by their values

TABLE = {"a": [1.0, 2.0, 3.0, 4.0], "b": ["u", "u", "v", "v"]}
LABELS = ["no", "yes", "yes", "no"]


def frame(**columns: Any) -> Any:
    pytest.importorskip("pyarrow")
    return pytest.importorskip("pandas").DataFrame({**TABLE, **columns})


def test_a_pandas_series_may_be_the_target() -> None:
    whole = frame(answer=LABELS)
    fitted = Preprocessing.fit(whole[["a", "b"]], whole["answer"])
    assert fitted == Preprocessing.fit(whole, "answer") and fitted.classes == ("no", "yes")
    np.testing.assert_array_equal(fitted.targets(whole["answer"]), [0, 1, 1, 0])
    np.testing.assert_array_equal(fitted.targets(whole), [0, 1, 1, 0])
    assert Preprocessing.fit(whole, whole["answer"]) == fitted  # the column is the target and no input
    turned = whole["answer"].map({"no": 1, "yes": 0})
    assert Preprocessing.fit(whole[["a", "b"]], turned).classes == (0, 1)


def test_a_target_with_the_name_of_a_different_column_is_refused() -> None:
    whole = frame(answer=LABELS, gaps=[1.0, None, 2.0, 3.0])
    told = (
        r"^target: expected the values of the column '(\w+)' of the table, whose name it has, got other values; "
        r"rename it, as target\.rename\('\1_to_predict'\) does, or remove that column from the table"
    )
    others = (whole.a * 2, whole.gaps.fillna(0.0), whole.answer.map({"no": 1, "yes": 0}), whole[["a"]] * 3)
    for target in others:
        with pytest.raises(DataError, match=told):
            Preprocessing.fit(whole, target)
    doubled = Preprocessing.fit(whole, (whole.a * 2).rename("a_to_predict"), leave_out=["gaps"])
    assert doubled.target.names == ("a_to_predict",) and "a" in [encoder.name for encoder in doubled.columns]
    for same in (whole.a, whole.a.astype(float), whole[["a"]]):
        fitted = Preprocessing.fit(whole, same)
        assert fitted.target.names == ("a",) and "a" not in [encoder.name for encoder in fitted.columns]


@pytest.mark.parametrize("how", ["array", "series", "arrow"])
def test_a_target_without_a_name_is_called_y(how: str) -> None:
    table = frame()
    if how == "array":
        y: Any = np.array([0.5, 1.5, 2.5, 4.5])
    elif how == "series":
        y = type(table["a"])([0.5, 1.5, 2.5, 4.5], index=[9, 8, 7, 6])  # rows are taken in their order
    else:
        y = pytest.importorskip("pyarrow").array([0.5, 1.5, 2.5, 4.5])
    fitted = Preprocessing.fit(table, y)
    assert fitted.target.names == ("y",) and [encoder.name for encoder in fitted.columns] == ["a", "b"]
    np.testing.assert_allclose(fitted.decode(fitted.targets(y)), [0.5, 1.5, 2.5, 4.5], rtol=1e-6)
    assert Preprocessing.fit(frame(y=[1, 2, 3, 4]), y).target.names == ("class",)
    assert Preprocessing.fit(TABLE, np.array(LABELS)).classes == ("no", "yes")  # beside a dict


def test_several_targets_may_be_given_as_arrays() -> None:
    Y = np.array([[0.5, 1.0], [1.5, 3.0], [2.5, 2.0], [4.5, 0.0]])
    assert Preprocessing.fit(frame(), Y).target.names == ("y0", "y1")
    table = pytest.importorskip("pandas").DataFrame(Y, columns=["p", "q"])
    fitted = Preprocessing.fit(frame(), table)
    assert fitted.target.names == ("p", "q")
    np.testing.assert_allclose(fitted.decode(fitted.targets(table)), Y, rtol=1e-6, atol=1e-6)


def test_a_target_of_another_length_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"^table: expected columns of one length, got 4 rows of 'a' and 3 of 'y'; give"
    ):
        Preprocessing.fit(TABLE, np.array([0, 1, 0]))
