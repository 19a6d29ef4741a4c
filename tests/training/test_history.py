"""What a history holds, how it is stored, printed and drawn."""

import copy
import csv
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpunn.errors import CheckpointError, MissingExtraError
from gpunn.training import figures
from gpunn.training.history import History
from tests.faults import exactly

NAN = math.nan


def single(epochs: int = 3) -> History:
    history = History()
    for epoch in range(epochs):
        history.append({
            "loss": np.array([1.0 / (epoch + 1)]), "accuracy": np.array([0.1 * epoch]),
            "validation_loss": np.array([[3.0, 1.0, 2.0][epoch % 3]]), "rate": np.array([0.1]),
            "seconds": np.array([2.0 * (epoch + 1)]),
        })  # fmt: skip
        history.mark_best(np.array([epoch < 2]))
    history.stopped = [f"finished {epochs} epochs"]
    return history


def population(epochs: int = 3) -> History:
    rng = np.random.default_rng(0)
    history = History(population=True)
    for epoch in range(epochs):
        history.append({
            "loss": np.array([3.0, 2.0, 1.0]) / (epoch + 1), "validation_loss": rng.random(3),
            "rate": np.array([0.1, 0.2, 0.3]) / (epoch + 1), "gradient_norm": rng.random(3),
            "seconds": np.full(3, epoch),
        })  # fmt: skip
    history.mark_best(np.array([False, True, True]))
    history.stopped = ["a", "b", "a"]
    return history


def test_a_history_has_one_number_for_each_epoch() -> None:
    history = single()
    assert history["loss"].dtype == np.float64
    np.testing.assert_array_equal(history["loss"], [1.0, 1 / 2, 1 / 3])
    np.testing.assert_array_equal(history.validation_loss, [3.0, 1.0, 2.0])
    assert history.epochs == 3


def test_a_history_of_a_population_has_one_number_for_each_epoch_and_model() -> None:
    history = population()
    assert history["loss"].shape == history["seconds"].shape == (3, 3)
    np.testing.assert_array_equal(history["loss"][1], [1.5, 1.0, 0.5])
    np.testing.assert_array_equal(history["loss"][:, 2], [1.0, 1 / 2, 1 / 3])


def test_a_history_of_a_population_of_one_keeps_the_population_axis() -> None:
    history = History(population=True)
    history.append({"loss": np.ones(1)})
    assert history.loss.shape == (1, 1)


def test_a_history_keeps_a_number_shared_by_all_models_once() -> None:
    history = History(population=True)
    history.append({"loss": np.ones(2), "seconds": 3.0})
    assert history["seconds"].shape == (1,) and history["loss"].shape == (1, 2)


def test_a_history_is_a_mapping_of_names_to_columns() -> None:
    history = single()
    names = ["loss", "accuracy", "validation_loss", "rate", "seconds"]
    assert list(history) == list(history.keys()) == names == [name for name, _ in history.items()]
    assert len(history) == 5 and "loss" in history and "mse" not in history
    assert history.get("mse") is None
    assert {*names, "plot"} <= set(dir(history))
    assert {name: values.shape for name, values in dict(history).items()} == dict.fromkeys(names, (3,))


def test_a_history_of_a_population_is_a_mapping_of_names_and_models_to_columns() -> None:
    history = population()
    names = ("loss", "validation_loss", "rate", "gradient_norm", "seconds")
    keys = [(name, k) for name in names for k in range(3)]
    assert history.names == names and list(history) == list(history.keys()) == keys and len(history) == 15
    assert "loss" in history and ("loss", 2) in history
    for stranger in (("loss", 3), ("loss", -1), ("mse", 0), ("loss",), 0, None):
        assert stranger not in history
        with pytest.raises(KeyError, match="in this history; it has loss, validation_loss, rate, gradient_norm, sec"):
            history[stranger]
    assert history["loss"].shape == (3, 3)
    for (name, k), values in dict(history).items():
        np.testing.assert_array_equal(values, history[name][:, k])
    shared = History(population=True)
    shared.append({"loss": np.ones(2), "seconds": 3.0})
    assert list(shared) == [("loss", 0), ("loss", 1), "seconds"]
    assert list(History(population=True)) == []
    assert ("loss", 0) not in single()


def test_a_history_becomes_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(dict(single()))
    assert list(frame) == list(single().names) and frame["loss"].tolist() == [1.0, 1 / 2, 1 / 3]
    history = population()
    frame = pandas.DataFrame(dict(history))
    assert isinstance(frame.columns, pandas.MultiIndex) and frame.shape == (3, 15)
    for name in history.names:
        np.testing.assert_array_equal(frame[name].to_numpy(), history[name])
    assert frame["loss"][0].tolist() == history["loss"][:, 0].tolist()


def test_a_history_names_no_best_model_by_a_user_defined_function() -> None:
    history = History(population=True)
    history.append({"loss": np.array([1.0, 2.0]), "validation_brier": np.array([0.25, 0.75])})
    assert repr(history) == "<History of 1 epoch: loss 1.5 (best 1, model 0), validation_brier 0.5>"


def test_a_history_refuses_unknown_names() -> None:
    history = single(1)
    with pytest.raises(KeyError, match=r"no 'mse' in this history; it has loss, accuracy, validation_loss, rate, sec"):
        history["mse"]
    with pytest.raises(KeyError, match=r"no 'loss' in this history; it has no epochs yet"):
        History()["loss"]
    with pytest.raises(AttributeError, match=r"this history has no 'mse'; it has loss, accuracy"):
        history.mse  # noqa: B018
    with pytest.raises(AttributeError, match=r"this history has no '_secret'"):
        history._secret  # noqa: B018


def test_arrays_taken_from_a_history_stay_as_they_were() -> None:
    history, early = History(), None
    for epoch in range(1000):
        history.append({"loss": [epoch]})
        if epoch == 9:
            early = history["loss"]
    assert early is not None
    np.testing.assert_array_equal(early, np.arange(10))
    np.testing.assert_array_equal(history["loss"], np.arange(1000))


def test_the_arrays_of_a_history_are_read_only() -> None:
    history, value = History(population=True), np.array([1.0, 2.0])
    history.append({"loss": value})
    value[:] = 9.0
    np.testing.assert_array_equal(history["loss"], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="read-only"):
        history["loss"][0] = 3.0


def test_a_history_has_nan_for_what_was_not_measured() -> None:
    history = History()
    for record in ({"loss": [1]}, {"loss": [2], "mse": [5]}, {"mse": [6]}):
        history.append(record)
    np.testing.assert_array_equal(history["loss"], [1, 2, NAN])
    np.testing.assert_array_equal(history["mse"], [NAN, 5, 6])


def test_a_history_takes_a_name_that_appears_late() -> None:
    history = History()
    for epoch in range(200):
        history.append({"loss": [1.0]} | ({"mse": [2.0]} if epoch >= 150 else {}))
    np.testing.assert_array_equal(np.isnan(history["mse"]), np.arange(200) < 150)


def test_the_best_epochs_of_a_history_count_from_1() -> None:
    history = single()
    assert history.best_epoch == 2
    assert history["validation_loss"][history.best_epoch - 1] == history["validation_loss"].min()
    many = History(population=True)
    assert (many.best_epoch, many.stopped, History().best_epoch, History().stopped) == ([], [], None, "")
    for best in ([True, True, False], [True, False, False], [False, False, False]):
        many.append({"loss": np.ones(3)})
        many.mark_best(np.array(best))
    assert many.best_epoch == [2, 1, None]


def test_a_history_says_why_each_model_stopped() -> None:
    assert single().stopped == "finished 3 epochs"
    assert population().stopped == ["a", "b", "a"]
    population().stopped.append("c")  # a copy


# Storing


@pytest.mark.parametrize("make", [single, population, History, lambda: History(population=True), lambda: single(100)])
def test_a_history_is_stored_as_json_and_restored(make: Any) -> None:
    history = make()
    again = History.from_json(history.to_json())
    assert again == history and again is not history
    assert (again.stopped, again.best_epoch, again.epochs) == (history.stopped, history.best_epoch, history.epochs)
    assert again.names == history.names and list(again) == list(history)
    for name in history.names:
        np.testing.assert_array_equal(again[name], history[name], strict=True)
    json.loads(history.to_json(), parse_constant=pytest.fail)  # no NaN and no Infinity in the file


def test_a_history_stores_numbers_exactly() -> None:
    numbers = [0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, NAN, math.inf, -math.inf, np.pi]
    history = History()
    for number in numbers:
        history.append({"loss": [number]})
    again = History.from_json(history.to_json())["loss"]
    assert again[:5].tobytes() == np.array(numbers[:5]).tobytes()
    np.testing.assert_array_equal(again, numbers)


EDITS: list[tuple[str, Any, str]] = [
    ("population", 0, "history.population: expected true or false, got 0"),
    ("epochs", 10**400, r"history.values.loss: expected 10+ numbers, got \[1.0, 0.5"),
    ("epochs", True, "history.epochs: expected a whole number >= 0, got true"),
    ("epochs", 0, "history.values: expected columns of 0 epochs, got {"),
    ("stopped", "x", 'history.stopped: expected a list, got "x"'),
    ("stopped", [None], r"history.stopped\[0\]: expected text, got null"),
    ("stopped", ["\ud800"], r"history.stopped\[0\]: expected text, got "),
    ("stopped", ["a", "b"], "history.stopped: expected none or 1, got 2"),
    ("best", [0], r"history.best\[0\]: expected a whole number from 1 to 3, or null, got 0"),
    ("best", [4], r"history.best\[0\]: expected a whole number from 1 to 3, or null, got 4"),
    ("best", None, "history.best: expected a list, got null"),
    ("values", [], r"history.values: expected an object, got \[\]"),
    ("values", {}, "history.values: expected columns of 3 epochs, got {}"),
    ("values", {"loss": [1.0, 2.0]}, r"history.values.loss: expected 3 numbers, got \[1.0, 2.0\]"),
    ("values", {"loss": [1.0, 2.0, "x"]}, "history.values.loss: expected 3 numbers, got"),
    ("values", {"loss": [1.0, 2.0, True]}, "history.values.loss: expected 3 numbers, got"),
    ("values", {"loss": [1.0, 2.0, None]}, "history.values.loss: expected 3 numbers, got"),
    ("values", {"loss": [1.0, 2.0, 10**400]}, "history.values.loss: expected 3 numbers, got"),
    ("values", {"loss": [[1.0]] * 3}, "history.values.loss: expected 3 numbers, got"),
    ("x", 1, "history: expected an object of population, epochs, stopped, best, values, got"),
]


@pytest.mark.parametrize(("name", "value", "match"), EDITS, ids=[f"{n} {m[-30:]}" for n, _, m in EDITS])
def test_json_that_describes_no_history_is_refused(name: str, value: Any, match: str) -> None:
    data = {**json.loads(single().to_json()), name: value}
    with pytest.raises(CheckpointError, match=match):
        History.from_json(json.dumps(data))


@pytest.mark.parametrize("values", [{"loss": [[]] * 3}, {"loss": [[1.0, 2.0], [1.0], [1.0, 2.0]]}, {"loss": [1.0] * 3}])
def test_json_that_describes_no_history_of_a_population_is_refused(values: Any) -> None:
    data = {**json.loads(population().to_json()), "values": values, "stopped": [], "best": []}
    with pytest.raises(
        CheckpointError, match="history.values.*: expected (3 rows of 2 numbers|a number for each model)"
    ):
        History.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, None, b"\xff"])
def test_a_history_refuses_text_that_is_not_json(text: Any) -> None:
    with pytest.raises(CheckpointError, match="history: expected JSON, got .*Error: .*; give a file as gpunn wrote it"):
        History.from_json(text)


def test_a_restored_history_goes_on() -> None:
    for make, width in ((single, 1), (population, 3)):
        history = make()
        again = History.from_json(history.to_json())
        for made in (history, again):
            made.append({"loss": np.full(width, 7.0), "late": np.full(width, 8.0)})
            made.mark_best(np.full(width, True))
        assert again == history and again.epochs == 4
        assert np.isnan(again["rate"][3]).all() and (again["late"][3] == 8.0).all()


def test_a_history_is_copied_and_pickled() -> None:
    history = single()
    for again in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert again == history
    assert history != single(2) and history != population() and history != dict(history)


def test_a_history_is_written_as_csv(tmp_path: Path) -> None:
    history = single()
    history.to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name, values in history.items():
        assert [float(row[name]) for row in rows] == values.tolist()


def test_a_history_of_a_population_is_written_as_csv(tmp_path: Path) -> None:
    history = population()
    history.to_csv(tmp_path / "history.csv")
    titles, *rows = csv.reader((tmp_path / "history.csv").read_text().splitlines())
    assert titles[:5] == ["epoch", "loss[0]", "loss[1]", "loss[2]", "validation_loss[0]"]
    table = np.array(rows, float)
    np.testing.assert_array_equal(table[:, 1:], np.stack([*history.values()], axis=1))
    History().to_csv(tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text().splitlines() == ["epoch"]


def test_a_history_that_cannot_be_written_leaves_the_old_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    path.write_text("before")
    (tmp_path / "link.csv").symlink_to(path)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for name in ("history.csv", "link.csv"):
            with pytest.raises(OSError, match="No space left on device"):
                single().to_csv(tmp_path / name)
    assert path.read_text() == "before" and len(os.listdir(tmp_path)) == 2


def test_a_history_is_not_written_to_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "history.csv")
    reader = os.open(tmp_path / "history.csv", os.O_RDONLY | os.O_NONBLOCK)  # so that no writer waits for one
    try:
        with pytest.raises(OSError, match="a device, pipe or socket"):
            single().to_csv(tmp_path / "history.csv")
    finally:
        os.close(reader)


# For the eye


def test_the_repr_of_a_history_shows_its_last_and_best_figures() -> None:
    assert repr(single()) == (
        "<History of 3 epochs: loss 0.3333, accuracy 0.2, validation_loss 2 (best 1 in epoch 2); finished 3 epochs>"
    )
    assert repr(single(1)).startswith("<History of 1 epoch: loss 1, ")
    assert repr(History()) == repr(History(population=True)) == "<History of 0 epochs: nothing yet>"
    many = History(population=True)
    many.append({"loss": [3.0, 1.0, NAN], "accuracy": [0.5, 0.25, 0.75]})
    many.stopped = ["a", "b", "a"]
    expected = "loss 2 (best 1, model 1), accuracy 0.5 (best 0.75, model 2); a (2 models); b (1 models)"
    assert repr(many) == f"<History of 1 epoch: {expected}>"


def test_the_repr_of_a_history_shows_numbers_that_are_not_finite() -> None:
    history = History()
    history.append({"loss": [NAN]})
    assert repr(history) == "<History of 1 epoch: loss nan>"
    history.append({"loss": [2.0]})
    history.append({"loss": [math.inf]})
    assert repr(history) == "<History of 3 epochs: loss inf (best 2 in epoch 2)>"


def test_the_plotted_spread_of_a_population_is_over_finite_numbers() -> None:
    table = np.array([[1.0, 2.0, 6.0], [NAN, 2.0, 4.0], [NAN, math.inf, -math.inf]])
    middle, low, high = figures.spread(table)
    np.testing.assert_array_equal(middle, [3.0, 3.0, NAN])
    np.testing.assert_array_equal(low, [1.0, 2.0, NAN])
    np.testing.assert_array_equal(high, [6.0, 4.0, NAN])
    np.testing.assert_array_equal(figures.spread(np.array([1.0, NAN]))[0], [1.0, NAN])


def test_a_history_is_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = single().plot(tmp_path / "single.png")
    assert (tmp_path / "single.png").read_bytes()[:4] == b"\x89PNG"
    assert [panel.get_title() for panel in made.axes] == ["loss", "accuracy"]  # the rate never changes
    training, validation, best = made.axes[0].lines
    np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(training.get_ydata(), single()["loss"])
    np.testing.assert_array_equal(validation.get_ydata(), single()["validation_loss"])
    assert list(best.get_xdata()) == [2, 2]
    assert [text.get_text() for text in made.axes[0].get_legend().get_texts()] == ["training", "validation"]


def test_a_history_of_a_population_is_plotted_with_its_spread(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = population()
    made = history.plot(tmp_path / "population.svg")
    assert [panel.get_title() for panel in made.axes] == ["loss", "rate", "gradient norm"]
    assert [panel.get_yscale() for panel in made.axes] == ["linear", "log", "log"]
    training = made.axes[0].lines[0]
    np.testing.assert_allclose(training.get_ydata(), history["loss"].mean(axis=1))
    edges = made.axes[0].collections[0].get_paths()[0].vertices
    for k in range(3):
        band = edges[edges[:, 0] == k + 1, 1]
        assert band.min() == history["loss"][k].min() and band.max() == history["loss"][k].max()


@pytest.mark.parametrize("values", [[], [1.0], [NAN, NAN], [0.0, 0.0], [1.0, NAN, math.inf, 2.0]])
def test_a_history_that_is_empty_or_not_finite_is_plotted(values: list[float], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for history in (History(), History(population=True)):
        for value in values:
            width = 2 if history.population else 1
            history.append({"loss": np.full(width, value), "gradient_norm": np.full(width, value)})
        history.plot(tmp_path / "odd.png")


def test_plotting_a_history_does_not_import_pyplot() -> None:
    pytest.importorskip("matplotlib")
    program = (
        "import sys\nimport gpunn\nassert 'matplotlib' not in sys.modules\n"
        "from gpunn.training.history import History\n"
        "h = History()\nh.append({'loss': [1.0]})\nh.plot()\nassert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_plotting_a_history_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = 'plot: expected matplotlib, got none; run: python -m pip install "gpunn[plot]"'
    with pytest.raises(MissingExtraError, match=exactly(message)):
        single().plot()
    assert issubclass(MissingExtraError, ImportError)
    assert "\n" not in message


def test_plotting_a_history_with_a_broken_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "import_module", _lacking)
    message = 'plot: expected matplotlib, got no libpng; run: python -m pip install "gpunn[plot]"'
    with pytest.raises(MissingExtraError, match=exactly(message)):
        single().plot()


def _lacking(name: str) -> Any:
    raise ImportError("no libpng")


@pytest.mark.parametrize(
    ("backend", "known"), [("module://matplotlib_inline.backend_inline", None), ("aggg", False), ("svg", True)]
)
def test_a_history_is_plotted_whatever_backend_matplotlib_is_set_to(
    backend: str, known: bool | None, tmp_path: Path
) -> None:
    """For example that of a notebook; a known backend stays that of the user's own figures."""
    pytest.importorskip("matplotlib")
    program = (
        "import os, sys, numpy as np, gpunn as gn\n"
        "flow, X = gn.GradientFlow(), np.eye(2)\n"
        "net = gn.Network([gn.Dense(2, 'relu'), gn.Dense(1)], 2, device='cpu')\n"
        "net.fit(X, X[:, :1], loss=gn.SquaredError(), optimizer=gn.SGD(0.1), epochs=1, batch_size=2,\n"
        "        callbacks=[flow], progress=False).plot('a.png')\n"
        "flow.plot('b.png')\n"
        "import matplotlib\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "print(matplotlib.rcParams._get_backend_or_none(), repr(os.environ['MPLBACKEND']))\n"
    )
    environment = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    used = {None: (backend, "None"), True: (backend,), False: ("None",)}[known]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in {f"{name} {backend!r}\n" for name in used}
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png"))
