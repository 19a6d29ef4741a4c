"""Functions that the sub-commands use: recipe, output, benchmark."""

import math
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.cli import recipe
from gpunn.cli.benchmark import measure
from gpunn.cli.output import plain, print_table, text, write_file
from gpunn.errors import CheckpointError, ConfigurationError
from tests.cli.stage import call, document


@pytest.mark.parametrize(("rows", "batch"), [(2, 16), (400, 16), (1438, 64), (10_000, 512), (10**7, 1024)])
def test_the_default_batch_size_grows_with_the_number_of_rows(rows: int, batch: int) -> None:
    assert recipe.default_batch_size(rows) == batch


@pytest.mark.parametrize(("rows", "batch", "epochs"), [(10, 16, 200), (1438, 64, 66), (10**6, 1024, 20)])
def test_the_default_number_of_epochs_depends_on_rows_and_batch_size(rows: int, batch: int, epochs: int) -> None:
    assert recipe.default_epochs(rows, batch) == epochs


@pytest.mark.parametrize(("epochs", "patience"), [(20, 10), (66, 22), (200, 67)])
def test_the_default_patience_depends_on_the_number_of_epochs(epochs: int, patience: int) -> None:
    assert recipe.default_patience(epochs) == patience


def test_hidden_layers_follow_the_options_of_train() -> None:
    assert recipe.hidden_layers((4, 2), "gelu", 0.1, True) == [
        gn.Dense(4, bias=False), gn.BatchNorm(activation="gelu"), gn.Dropout(0.1),
        gn.Dense(2, bias=False), gn.BatchNorm(activation="gelu"), gn.Dropout(0.1),
    ]  # fmt: skip
    assert recipe.hidden_layers((4,), "relu", 0.0, False) == [gn.Dense(4, "relu")]
    assert recipe.hidden_layers((), "relu", 0.5, True) == []


@pytest.mark.parametrize("name", recipe.OPTIMIZERS)
def test_every_optimizer_of_the_command_has_a_default_rate(name: str) -> None:
    optimizer = recipe.make_optimizer(name, None, 10)
    assert type(optimizer).__name__.lower() == name
    assert optimizer.rate == gn.schedules.OneCycle(recipe.RATES[name], 10)
    assert recipe.make_optimizer(name, 0.5, 10).rate == gn.schedules.OneCycle(0.5, 10)


@pytest.mark.parametrize("name", recipe.ACTIVATIONS)
def test_every_activation_of_the_command_can_be_trained(name: str) -> None:
    net = gn.Network([*recipe.hidden_layers((3,), name, 0.0, True), gn.Dense(1)], 2, device="cpu")
    _, gradients = net.gradients([[0.0, 1.0], [1.0, -1.0]], [[0.0], [1.0]], gn.SquaredError())
    assert np.abs(gradients["0.W"]).max() > 0


@pytest.mark.parametrize(("given", "widths"), [("256,128", (256, 128)), ("8", (8,)), ("", ()), (" 4, 5 ", (4, 5))])
def test_the_option_hidden_is_read_as_widths(given: str, widths: tuple[int, ...]) -> None:
    assert recipe.widths(given) == widths


def test_the_option_hidden_refuses_text_that_is_no_width() -> None:
    with pytest.raises(ConfigurationError, match="--hidden: expected widths such as 256,256, got '1,x'"):
        recipe.widths("1,x")


def test_plain_makes_values_that_json_can_hold() -> None:
    value = {"a": np.float32(0.5), "b": [math.nan, math.inf, 1], "c": (np.arange(2), None, True), 3: "x"}
    assert plain(value) == {"a": 0.5, "b": [None, None, 1], "c": [[0, 1], None, True], "3": "x"}


def test_text_shows_numbers_with_five_digits() -> None:
    assert [text(v) for v in (None, 0.123456789, np.float64(2.0), 12, "a", True)] == [
        "-", "0.12346", "2", "12", "a", "True",
    ]  # fmt: skip


def test_the_columns_of_a_printed_table_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["a", 1.5], ["long", "b"]], header=["", "found"])
    assert capsys.readouterr().out == "      found\na     1.5\nlong  b\n"
    print_table([])
    assert capsys.readouterr().out == ""


def test_write_file_writes_its_content_and_refuses_a_folder(tmp_path: Any) -> None:
    write_file(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
    with pytest.raises(CheckpointError, match="expected a file that can be written, got a folder of that name"):
        write_file(tmp_path, b"")


def test_benchmark_reports_the_speeds_that_fit_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gn.Network([gn.Dense(4), gn.Dense(10)], 64, device="cpu")
    speeds = np.array([1.0, 100.0, 300.0, 200.0])  # the first epoch does not count

    def fit(X: Any, y: Any, **options: Any) -> dict[str, Any]:
        assert X.shape == (1797, 64) and options["epochs"] == 4 and options["batch_size"] == 10
        return {"examples_per_second": speeds}

    monkeypatch.setattr(net, "fit", fit)
    assert measure(net, 10, 3) == pytest.approx(
        {"step_microseconds": 50_000, "fastest": 1e7 / 300, "slowest": 100_000, "examples_per_second": 200}
    )


def test_benchmark_names_the_network_and_machine_it_measured() -> None:
    told = document("benchmark", "--epochs", "1", "--hidden", "4", "--device", "cpu")
    assert told["network"] == "64-4-10" and told["device"] == "cpu" and told["step_microseconds"] > 0
    assert told["machine"]["cores"] >= 1 and told["machine"]["versions"][0] == f"gpunn {gn.__version__}"
    assert "step microseconds" in call("benchmark", "--epochs", "1", "--hidden", "", "--device", "cpu").stdout
