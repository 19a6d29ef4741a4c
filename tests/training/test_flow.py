"""GradientFlow: gradients of deep sigmoid networks vanish, those of badly scaled ones explode."""

import copy
import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from gpunn.initializers import Gaussian
from gpunn.training.flow import GradientFlow, Verdict, _judge
from tests.faults import exactly
from tests.training.stage import at, prepared, run

DEPTH = 10


def deep(activation: str, deviation: float | None = None, *, depth: int = DEPTH, bias: bool = True) -> list[Any]:
    initializer = None if deviation is None else Gaussian(deviation)
    layers = [gn.Dense(50, activation, initializer=initializer, bias=bias) for _ in range(depth)]
    return [*layers, gn.Dense(3, bias=bias)]


def trained(layers: list[Any], device: Any = "cpu", models: Any = None, epochs: int = 1, every: int = 1) -> Any:
    """A GradientFlow after some epochs of one step of gradient descent, called as the training loop does."""
    network, run_pass, data = prepared(layers, device, models)
    flow, probe = GradientFlow(every), None
    for epoch in range(epochs + 1):
        state = at(epoch)
        if epoch == 0:
            flow.on_start(state)
            probe = flow.probe(run_pass)
            continue
        run(run_pass, data, probe)
        flow.on_epoch(state, {})
        network.vector[...] -= 0.1 * network.gradient_vector
    flow.on_end(state)
    return flow


def test_gradient_flow_calls_a_deep_sigmoid_network_vanishing(backend: Any) -> None:
    flow = trained(deep("sigmoid"), backend)
    verdict = flow.verdict()
    assert verdict.kind == "vanishing"
    assert verdict.ratio < 1e-4
    assert verdict.ratio == pytest.approx(float(flow.gradients["0"][0, 0] / flow.gradients["10"][0, 0]))
    assert verdict.layers[0] == "0" and "10" not in verdict.layers and "9" not in verdict.layers
    sizes = [flow.gradients[str(i)][0, 0] for i in range(DEPTH)]
    assert np.all(np.diff(np.log(sizes[:-1])) > 0)  # larger with every layer towards the loss
    assert str(verdict).startswith("vanishing: gradient ") and "layers 0, 1" in str(verdict)


def test_gradient_flow_calls_a_badly_scaled_network_exploding(backend: Any) -> None:
    flow = trained(deep("tanh", 2.0, depth=20), backend)
    verdict = flow.verdict()
    assert verdict.kind == "exploding"
    assert verdict.ratio > 1e4
    assert verdict.layers[0] == "0" and "20" not in verdict.layers
    assert str(verdict).startswith("exploding: gradient ")
    later = trained(deep("tanh", 2.0, depth=20), backend, epochs=2).verdict()  # when steps have saturated layer 0
    assert later.kind == "exploding" and later.layers[0] == "1"


@pytest.mark.parametrize(("deviation", "kind"), [(5.0, "exploding"), (0.02, "vanishing")])
def test_gradient_flow_shows_growing_outputs_of_a_badly_scaled_network(deviation: float, kind: str) -> None:
    """All its gradients are of one size, since outputs grow as fast forwards as gradients do backwards."""
    verdict = trained(deep("relu", deviation, bias=False)).verdict()
    assert verdict.kind == kind and 0.01 < verdict.ratio < 100
    assert verdict.layers[-1] == "10" and "0" not in verdict.layers
    assert f"{kind}: output " in str(verdict)


@pytest.mark.parametrize("layers", [deep("relu"), deep("tanh"), [gn.Dense(3)]])
def test_gradient_flow_calls_a_well_scaled_network_healthy(layers: list[Any]) -> None:
    flow = trained(layers)
    assert (flow.verdict().kind, flow.verdict().layers) == ("healthy", ())
    assert str(flow.verdict()).startswith("healthy: the first layer's gradient is ")


def test_gradient_flow_reports_numbers_that_are_not_finite() -> None:
    _, run_pass, data = prepared(deep("relu", 1e6), "cpu", None)
    flow = GradientFlow()
    probe = flow.probe(run_pass)
    with np.errstate(all="ignore"):
        run(run_pass, data, probe)
    flow.record(1)
    verdict = flow.verdict()
    assert verdict.kind == "exploding" and "not finite" in str(verdict) and "10" in verdict.layers
    assert "not finite" in flow.table()
    assert "0" not in verdict.layers or not math.isfinite(float(flow.gradients["0"][0, 0]))


@pytest.mark.parametrize(
    ("gradients", "outputs", "kind", "layers"),
    [
        ([1.0, 1.0], [1.0, 1.0], "healthy", ()),
        ([1.0, 999.0], [1.0, 1.0], "healthy", ()),
        ([1.0, 1001.0], [1.0, 1.0], "vanishing", ("0",)),
        ([1001.0, 1.0], [1.0, 1.0], "exploding", ("0",)),
        ([999.0, 1.0], [1.0, 1.0], "healthy", ()),
        ([1.0, 1e-9, 1.0], [1.0, 1.0, 1.0], "healthy", ()),
        ([1e-9, 5000.0, 1.0], [1.0, 1.0, 1.0], "exploding", ("1",)),  # the first layer is saturated
        ([1.0, 2.0, 5000.0, 5000.0], [1.0] * 4, "vanishing", ("0", "1")),
        ([0.0, 1.0], [1.0, 1.0], "vanishing", ("0",)),
        ([0.0, 0.0], [1.0, 1.0], "vanishing", ("0", "1")),
        ([1.0, 0.0], [1.0, 1.0], "exploding", ("0",)),
        ([1.0, 1.0], [1.0, 1e4], "exploding", ("1",)),
        ([1.0, 1.0], [1e4, 1.0], "vanishing", ("1",)),
        ([1.0, 5000.0], [1.0, 1e4], "vanishing", ("0",)),
        ([math.nan, 1.0], [1.0, 1.0], "exploding", ("0",)),
        ([1.0, 1.0], [1.0, math.inf], "exploding", ("1",)),
        ([], [1.0, 1.0], "healthy", ()),
        ([1.0], [], "healthy", ()),
    ],
)
def test_the_verdict_of_gradient_flow_follows_from_the_sizes_of_layers(
    gradients: list[float], outputs: list[float], kind: str, layers: tuple[str, ...]
) -> None:
    named = [{str(i): v for i, v in enumerate(values)} for values in (gradients, outputs)]
    verdict = _judge(named[0], named[1], 1000.0)
    assert (verdict.kind, verdict.layers) == (kind, layers)
    if len(gradients) > 1 and gradients[-1]:
        np.testing.assert_equal(verdict.ratio, gradients[0] / gradients[-1])


def test_the_limit_of_the_verdict_of_gradient_flow_can_be_set() -> None:
    flow = trained(deep("sigmoid"))
    assert flow.verdict(1e30).kind == "healthy"
    assert trained(deep("tanh")).verdict(1.01).kind != "healthy"


def test_gradient_flow_judges_each_model_of_a_population() -> None:
    flow = trained(deep("sigmoid"), models=3)
    verdicts = flow.verdict()
    assert [v.kind for v in verdicts] == ["vanishing"] * 3
    assert len({v.ratio for v in verdicts}) == 3
    assert flow.gradients["0"].shape == (1, 3)
    alone = trained(deep("sigmoid"))
    np.testing.assert_allclose(flow.gradients["0"][:, 0], alone.gradients["0"][:, 0], rtol=1e-4)
    assert isinstance(trained(deep("relu"), models=1).verdict(), list)
    assert isinstance(alone.verdict(), Verdict)


# Epochs


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [(1, 3, [1, 2, 3]), (2, 5, [1, 3, 5]), (2, 4, [1, 3, 4]), (10, 4, [1, 4]), (10, 1, [1])],
)
def test_gradient_flow_records_every_nth_and_the_last_epoch(every: int, epochs: int, expected: list[int]) -> None:
    flow = trained([gn.Dense(3)], epochs=epochs, every=every)
    assert flow.epochs == expected
    assert flow.activations["0"].shape == flow.gradients["0"].shape == (len(expected), 1)
    if len(expected) > 1:
        assert flow.gradients["0"][0, 0] != flow.gradients["0"][1, 0]


def test_gradient_flow_starts_again_in_a_new_training_and_goes_on_in_a_resumed_one() -> None:
    flow = trained([gn.Dense(3)], epochs=2)
    flow.on_start(at(2))
    assert flow.epochs == [1, 2]
    flow.on_start(at(0))
    assert flow.epochs == []


def test_gradient_flow_without_an_epoch_says_that_it_has_nothing() -> None:
    flow = GradientFlow()
    flow.on_start(at(0))
    flow.on_end(at(0))
    message = exactly("GradientFlow: expected a training to look at, got none; pass it to fit in callbacks=")
    for look in (flow.verdict, flow.table, flow.plot, flow.__rich__, lambda: flow.gradients, lambda: flow.record(1)):
        with pytest.raises(ConfigurationError, match=message):
            look()


def test_gradient_flow_refuses_an_every_that_is_not_a_whole_number() -> None:
    with pytest.raises(ConfigurationError, match=r"^GradientFlow every: expected a whole number >= 1, got 0; "):
        GradientFlow(0)


# For the eye


def test_the_table_of_gradient_flow_lists_layers_and_a_verdict() -> None:
    flow = trained([gn.Dense(4, "tanh"), gn.Residual([gn.Dense(4)]), gn.Dropout(0.2), gn.Dense(3)], epochs=2)
    title, empty, head, rule, *rows, gap, verdict = flow.table().splitlines()
    assert title == "root mean squares in epoch 2"
    assert (empty, gap) == ("", "") and set(rule) == {"-", " "}
    assert head.split("  ")[0].strip() == "layer" and head.endswith("gradient  of the last layer's")
    assert [row.split()[:2] for row in rows] == [
        ["0", "Dense"], ["1", "Residual"], ["1.body.0", "Dense"], ["3", "Dense"],
    ]  # fmt: skip
    assert len(rows[1].split()) == 3  # no gradient of its own
    assert float(rows[0].split()[3]) == pytest.approx(flow.gradients["0"][-1, 0], rel=1e-2)
    assert rows[3].split()[-1] == "1"
    assert verdict.startswith("healthy: ")
    assert max(map(len, flow.table().splitlines())) < 100


def test_the_table_of_gradient_flow_shows_the_median_of_a_population() -> None:
    lines = trained(deep("sigmoid"), models=2).table().splitlines()
    assert lines[0] == "root mean squares in epoch 1, median of 2 models"
    assert lines[-2] == "" and lines[-1].startswith("vanishing: 2 of 2 models, such as model 0: gradient ")


def test_the_table_of_gradient_flow_counts_the_verdicts_of_a_population() -> None:
    network, run_pass, data = prepared([gn.Dense(4), gn.Dense(3)], "cpu", 3)
    flow = GradientFlow()
    probe = flow.probe(run_pass)
    run(run_pass, data, probe)
    network.store.gradient_views["0.W"][1:] = 0.0
    network.store.gradient_views["0.b"][1:] = 0.0
    probe.measure_gradients()
    flow.record(1)
    first, second = flow.table().splitlines()[-2:]
    assert first.startswith("healthy: 1 of 3 models, such as model 0: ")
    assert second.startswith("vanishing: 2 of 3 models, such as model 1: gradient 0 in layer 0, ")


def test_rich_prints_the_table_of_gradient_flow() -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(trained(deep("sigmoid")))
    text = console.export_text()
    assert "root mean squares in epoch 1" in text and "Dense" in text and "vanishing" in text


def test_a_copied_gradient_flow_shows_what_was_recorded() -> None:
    """It holds no arrays of the training."""
    flow = trained(deep("tanh"), epochs=2)
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert twin.table() == flow.table() and twin.verdict() == flow.verdict() and twin.epochs == [1, 2]
        assert not hasattr(twin._probe, "sums")


@pytest.mark.parametrize("models", [None, 3])
def test_gradient_flow_is_plotted(tmp_path: Path, models: Any) -> None:
    pytest.importorskip("matplotlib")
    flow = trained(deep("sigmoid"), models=models, epochs=20)
    made = flow.plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").read_bytes()[:4] == b"\x89PNG"
    gradients, activations = made.axes
    assert (gradients.get_title(), activations.get_title()) == ("size of gradients", "size of activations")
    assert gradients.get_yscale() == "log"
    labels = [text.get_text() for text in gradients.get_legend().get_texts()]
    assert len(labels) == 6 and labels[0] == "epoch 1" and labels[-1] == "epoch 20"
    expected = [flow.gradients[str(i)][-1].mean() for i in range(DEPTH + 1)]
    np.testing.assert_allclose(gradients.lines[-1].get_ydata(), expected)
    assert len(gradients.collections) == (0 if models is None else 6)


@pytest.mark.parametrize("number", [0.0, math.nan])
def test_gradient_flow_plots_zeros_and_nan(tmp_path: Path, number: float) -> None:
    pytest.importorskip("matplotlib")
    network, run_pass, data = prepared([gn.Dense(3)], "cpu", None)
    flow = GradientFlow()
    probe = flow.probe(run_pass)
    run(run_pass, data, probe)
    network.gradient_vector[...] = number
    probe.measure_gradients()
    flow.record(1)
    flow.plot(tmp_path / "flow.png")
