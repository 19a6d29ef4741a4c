"""A loss that would misread what the network's last activation makes is refused before anything is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import ConfigurationError
from gpunn.layers.activation import Nonlinearity
from gpunn.losses import Loss
from gpunn.value import Value
from tests.faults import contents, exactly

rng = np.random.default_rng(0)
X = rng.normal(size=(12, 4)).astype("float32")
LABELS = (X[:, 0] > 0).astype(int)
CROSS, BINARY, NLL, NLLM = gn.CrossEntropy(), gn.BinaryCrossEntropy(), gn.NLL(), gn.NLLM()

LOGITS = "expected logits for CrossEntropy, which applies softmax itself, got the probabilities of"
ODDS = "expected log-odds for BinaryCrossEntropy, which applies sigmoid itself, got the"
LOG = "use CrossEntropy(), or end the network in softmax and use NLLM()"
SHARES = "expected probabilities that add up to 1 for NLLM, got"
SOFTMAX = "end the network in softmax, or in no activation and use CrossEntropy()"
ALONE = "end the network in sigmoid and use NLL(), or in no activation and use BinaryCrossEntropy()"
NONSENSE: dict[str, tuple[list[gn.Layer], Loss, str]] = {
    "softmax of a softmax": (
        [gn.Dense(3, "relu"), gn.Dense(2, "softmax")], CROSS,
        f"layers.1 Dense: {LOGITS} Softmax(); leave that activation out, or use NLLM()",
    ),
    "a layer of its own": (
        [gn.Dense(2), gn.Softmax()], CROSS,
        f"layers.1 Softmax: {LOGITS} Softmax(); leave that activation out, or use NLLM()",
    ),
    "by name": (
        [gn.Dense(2), gn.Activation("softmax")], CROSS,
        f"layers.1 Activation: {LOGITS} Softmax(); leave that activation out, or use NLLM()",
    ),
    "nested": (
        [gn.Dense(3), gn.Sequential([gn.Dense(3), gn.Sequential([gn.Dense(2, "softmax")])])], CROSS,
        f"layers.1.1.0 Dense: {LOGITS} Softmax(); leave that activation out, or use NLLM()",
    ),
    "softmax of a sigmoid": (
        [gn.Dense(2, "sigmoid")], CROSS,
        f"layers.0 Dense: {LOGITS.replace('the prob', 'the separate prob')} Sigmoid(); "
        "leave that activation out, or end the network in softmax and use NLLM()",
    ),
    "sigmoid of a sigmoid": (
        [gn.Dense(2, gn.Sigmoid())], BINARY,
        f"layers.0 Dense: {ODDS} separate probabilities of Sigmoid(); leave that activation out, or use NLL()",
    ),
    "a normalisation": (
        [gn.Dense(2), gn.LayerNorm(activation="sigmoid")], gn.BinaryCrossEntropy(reduction="sum"),
        f"layers.1 LayerNorm: {ODDS} separate probabilities of Sigmoid(); leave that activation out, or use NLL()",
    ),
    "sigmoid of a softmax": (
        [gn.Dense(2, "softmax")], BINARY,
        f"layers.0 Dense: {ODDS} probabilities of Softmax(); leave that activation out, or use NLLM()",
    ),
    "sigmoid of logarithms": (
        [gn.Dense(2, "log_softmax")], BINARY, f"layers.0 Dense: {ODDS} log-probabilities of LogSoftmax(); {LOG}",
    ),
    "the logarithm of a logarithm": (
        [gn.Dense(2), gn.LogSoftmax()], NLLM,
        "layers.1 LogSoftmax: expected probabilities that add up to 1 for NLLM, got the log-probabilities "
        f"of LogSoftmax(); {LOG}",
    ),
    "the logarithm of one output's": (
        [gn.Dense(2, "log_softmax")], NLL,
        "layers.0 Dense: expected probabilities for NLL, got the log-probabilities of LogSoftmax(); " + LOG,
    ),
    "separate probabilities as shares": (
        [gn.Dense(2, "sigmoid")], NLLM,
        f"layers.0 Dense: {SHARES} the separate probabilities of Sigmoid(); {SOFTMAX}",
    ),
    "seen through layers that keep the meaning": (
        [gn.Dense(2, "softmax"), gn.Sequential([gn.Dropout(0.1), gn.Identity()]), gn.Flatten(), gn.Reshape((2,))],
        CROSS, f"layers.0 Dense: {LOGITS} Softmax(); leave that activation out, or use NLLM()",
    ),
    "branches that agree": (
        [gn.Branch([gn.Dense(1, "sigmoid"), [gn.Dense(1), gn.Sigmoid()]])], BINARY,
        f"layers.0 Branch: {ODDS} separate probabilities of its branches; leave that activation out, or use NLL()",
    ),
    "linear outputs as shares": (
        [gn.Dense(2)], NLLM, f"layers.0 Dense: {SHARES} numbers without an activation; {SOFTMAX}",
    ),
    "relu as shares": ([gn.Dense(2, "relu")], NLLM, f"layers.0 Dense: {SHARES} the numbers of ReLU(); {SOFTMAX}"),
    "linear outputs as probabilities": (
        [gn.Dense(2)], NLL,
        "layers.0 Dense: expected probabilities for NLL, got numbers without an activation; "
        "end the network in sigmoid, or in no activation and use BinaryCrossEntropy()",
    ),
}  # fmt: skip
USES: dict[str, Any] = {
    "fit": lambda net, y, loss: net.fit(X, y, loss=loss, optimizer=gn.SGD(0.1), epochs=1),
    "gradients": lambda net, y, loss: net.gradients(X, y, loss),
    "loss_of": lambda net, y, loss: net.loss_of(X, y, loss),
    "evaluate": lambda net, y, loss: net.evaluate(X, y, loss=loss),
    "predict_probability": lambda net, y, loss: net.predict_probability(X, loss=loss),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", NONSENSE)
def test_a_loss_that_misreads_the_last_activation_is_refused(case: str, use: str) -> None:
    layers, loss, message = NONSENSE[case]
    net = gn.Network(layers, 4, device="cpu")
    before = contents(net)
    with pytest.raises(ConfigurationError, match=exactly(message)):
        USES[use](net, np.eye(2)[LABELS], loss)
    assert contents(net) == before
    assert net.loss is None
    unbuilt = gn.Network(layers, device="cpu")
    with pytest.raises(ConfigurationError, match=exactly(message)):
        USES[use](unbuilt, np.eye(2)[LABELS], loss)
    assert not unbuilt.is_built


SENSE = {
    "log_softmax and CrossEntropy": ("log_softmax", CROSS),
    "softmax and NLLM": ("softmax", NLLM),
    "sigmoid and NLL": ("sigmoid", NLL),
    "softmax and NLL": ("softmax", NLL),
    "softmax and numbers": ("softmax", gn.SquaredError()),
    "nothing and CrossEntropy": (None, CROSS),
    "nothing and BinaryCrossEntropy": (None, BINARY),
    "tanh and BinaryCrossEntropy": ("tanh", BINARY),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", SENSE)
def test_a_loss_that_fits_the_last_activation_is_accepted(case: str, use: str) -> None:
    end, loss = SENSE[case]
    USES[use](gn.Network([gn.Dense(2, end)], 4, device="cpu"), np.eye(2)[LABELS], loss)


def test_an_activation_inside_the_network_does_not_restrict_the_loss() -> None:
    net = gn.Network([gn.Dense(3, "softmax"), gn.Sigmoid(), gn.Dense(2)], 4, device="cpu")
    net.fit(X, LABELS, loss=CROSS, optimizer=gn.SGD(0.1), epochs=1)


def test_log_softmax_before_cross_entropy_changes_nothing() -> None:
    """The log-softmax of a log-softmax is itself."""
    plain, logs = (gn.Network([gn.Dense(2, end)], 4, device="cpu", dtype="float64") for end in (None, "log_softmax"))
    (value, gradients), (of_logs, gradients_of_logs) = (n.gradients(X, LABELS, CROSS) for n in (plain, logs))
    assert of_logs == pytest.approx(value, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_of_logs[name], gradient, rtol=1e-9, atol=1e-14)
    expected = plain.predict_probability(X, loss=CROSS)
    np.testing.assert_allclose(logs.predict_probability(X, loss=CROSS), expected, rtol=1e-12)


ONE: dict[str, tuple[list[gn.Layer], str]] = {
    "in the layer": ([gn.Dense(1, "softmax")], "layers.0 Dense"),
    "after it": ([gn.Dense(1), gn.Softmax()], "layers.1 Softmax"),
    "further on": ([gn.Dense(1), gn.BatchNorm(), gn.Activation("softmax"), gn.Dropout(0.1)], "layers.2 Activation"),
    "nested": ([gn.Dense(1), gn.Sequential([gn.Softmax()])], "layers.1.0 Softmax"),
}


@pytest.mark.parametrize("loss", [CROSS, BINARY, NLL, NLLM, gn.SquaredError()], ids=repr)
@pytest.mark.parametrize("case", ONE)
def test_a_softmax_of_one_output_is_refused(case: str, loss: Loss) -> None:
    layers, where = ONE[case]
    message = f"{where}: expected 2 outputs or more for Softmax(), got one, which is always 1; {ALONE}"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        gn.Network(layers, 4, device="cpu").fit(X, LABELS, loss=loss, optimizer=gn.SGD(0.1))


def test_a_log_softmax_of_one_output_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got one, which is always 0; end the network in sigmoid"):
        gn.Network([gn.Dense(1, "log_softmax")], 4, device="cpu").loss_of(X, LABELS, CROSS)


@pytest.mark.parametrize("loss", [CROSS, BINARY, NLLM], ids=repr)
def test_the_advice_for_one_output_works(loss: Loss) -> None:
    with pytest.raises(ConfigurationError, match=exactly(ALONE).replace("^", "; ")):
        gn.Network([gn.Dense(1, "sigmoid")], 4, device="cpu").loss_of(X, LABELS, loss)
    for end, fitting in (("sigmoid", NLL), (None, BINARY)):
        assert np.isfinite(gn.Network([gn.Dense(1, end)], 4, device="cpu").loss_of(X, LABELS, fitting))


def test_the_advice_for_classes_works() -> None:
    """Integer classes stay as they are when a sigmoid under cross-entropy is replaced as advised."""
    for end, fitting in ((None, CROSS), ("softmax", NLLM)):
        assert np.isfinite(gn.Network([gn.Dense(2, end)], 4, device="cpu").loss_of(X, LABELS, fitting))


def test_losses_not_known_to_be_wrong_for_a_network_are_accepted() -> None:
    """Branches with different ends, sums of probabilities, networks without a computing layer, and layers of users."""
    own: list[list[gn.Layer]] = [
        [gn.Branch([gn.Dense(1, "sigmoid"), gn.Dense(1)])],
        [gn.Branch([gn.Dense(2, "softmax"), gn.Dense(2, "softmax")], merge="add")],
        [gn.Residual([gn.Dense(4, "softmax")]), gn.Dense(2, gn.Identity())],
        [gn.Dense(2, "softmax"), gn.Dense(2)],
    ]
    for layers in own:
        gn.Network(layers, 4, device="cpu").loss_of(X, np.eye(2)[LABELS], BINARY)
    shares = np.full((3, 2), 0.5, "float32")
    assert gn.Network([gn.Identity()], 2, device="cpu").loss_of(shares, np.eye(2)[[0, 1, 0]], NLLM) > 0.0


def test_the_last_activation_of_many_nested_branches_is_found_quickly() -> None:
    layer: gn.Layer = gn.Dense(1, "sigmoid")
    for _ in range(40):
        layer = gn.Branch([layer, layer], merge="concatenate")
    assert layer.makes == "separate probabilities"


@pytest.mark.parametrize(("end", "loss"), [("softmax", CROSS), ("sigmoid", BINARY)])
def test_a_network_saved_with_a_loss_refused_today_still_predicts(tmp_path: Path, end: str, loss: Loss) -> None:
    net = gn.Network([gn.Dense(2, end)], 4, device="cpu")
    net.loss = loss  # as earlier versions trained it
    net.save(tmp_path / "old.gpunn")
    assert archive.read(tmp_path / "old.gpunn")[1]["network"]["loss"]["loss"] == type(loss).__name__
    loaded = gn.load(tmp_path / "old.gpunn", device="cpu")
    assert loaded.loss == loss
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))
    for use in (loaded.predict_probability, lambda X: loaded.evaluate(X, LABELS)):
        with pytest.raises(ConfigurationError, match="leave that activation out"):
            use(X)


def test_user_defined_layers_and_losses_are_checked_for_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Value, "known", dict(Value.known))
    monkeypatch.setattr(Nonlinearity, "named", dict(Nonlinearity.named))

    @dataclass(frozen=True)
    class Shares(gn.Softmax):
        name = "shares"

    @dataclass(frozen=True)
    class Odds(gn.SquaredError):
        takes = "log-odds"

    shares = gn.Network([gn.Dense(2, "shares")], 4, device="cpu")
    message = f"layers.0 Dense: {LOGITS} Shares(); leave that activation out, or use NLLM()"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        shares.loss_of(X, LABELS, CROSS)
    message = "layers.0 Dense: expected log-odds for Odds, got the probabilities of Shares(); "
    with pytest.raises(ConfigurationError, match=exactly(f"{message}leave that activation out, or use NLLM()")):
        shares.loss_of(X, np.eye(2)[LABELS], Odds())

    @dataclass(frozen=True)
    class Probabilities(gn.Identity):
        name = "probabilities"
        makes = "probabilities"

    own = gn.Network([gn.Dense(2), Probabilities()], 4, device="cpu")
    message = f"layers.1 Probabilities: {LOGITS} Probabilities(); leave that activation out, or use NLLM()"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        own.loss_of(X, LABELS, CROSS)
