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
        f"layers.1 Activation: {LOGITS} softmax; leave that activation out, or use NLLM()",
    ),
    "nested": (
        [gn.Dense(3), gn.Sequential([gn.Dense(3), gn.Sequential([gn.Dense(2, "softmax")])])], CROSS,
        f"layers.1.1.0 Dense: {LOGITS} Softmax(); leave that activation out, or use NLLM()",
    ),
    "softmax of a sigmoid": (
        [gn.Dense(2, "sigmoid")], CROSS,
        f"layers.0 Dense: {LOGITS} Sigmoid(); leave that activation out, or use NLL()",
    ),
    "sigmoid of a sigmoid": (
        [gn.Dense(2, gn.Sigmoid())], BINARY,
        f"layers.0 Dense: {ODDS} probabilities of Sigmoid(); leave that activation out, or use NLL()",
    ),
    "a normalisation": (
        [gn.Dense(2), gn.LayerNorm(activation="sigmoid")], gn.BinaryCrossEntropy(reduction="sum"),
        f"layers.1 LayerNorm: {ODDS} probabilities of Sigmoid(); leave that activation out, or use NLL()",
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
        "layers.1 LogSoftmax: expected probabilities for NLLM, got the log-probabilities of LogSoftmax(); " + LOG,
    ),
    "the logarithm of one output's": (
        [gn.Dense(2, "log_softmax")], NLL,
        "layers.0 Dense: expected probabilities for NLL, got the log-probabilities of LogSoftmax(); " + LOG,
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
def test_a_pair_that_makes_no_sense(case: str, use: str) -> None:
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
    "sigmoid and NLLM": ("sigmoid", NLLM),
    "softmax and NLL": ("softmax", NLL),
    "softmax and numbers": ("softmax", gn.SquaredError()),
    "nothing and CrossEntropy": (None, CROSS),
    "nothing and BinaryCrossEntropy": (None, BINARY),
    "tanh and BinaryCrossEntropy": ("tanh", BINARY),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", SENSE)
def test_a_pair_that_makes_sense(case: str, use: str) -> None:
    end, loss = SENSE[case]
    USES[use](gn.Network([gn.Dense(2, end)], 4, device="cpu"), np.eye(2)[LABELS], loss)


def test_an_activation_inside_the_network_does_not_matter() -> None:
    net = gn.Network([gn.Dense(3, "softmax"), gn.Sigmoid(), gn.Dense(2)], 4, device="cpu")
    net.fit(X, LABELS, loss=CROSS, optimizer=gn.SGD(0.1), epochs=1)


def test_log_softmax_makes_no_difference_to_CrossEntropy() -> None:
    """The log-softmax of a log-softmax is itself."""
    plain, logs = (gn.Network([gn.Dense(2, end)], 4, device="cpu", dtype="float64") for end in (None, "log_softmax"))
    (value, gradients), (of_logs, gradients_of_logs) = (n.gradients(X, LABELS, CROSS) for n in (plain, logs))
    assert of_logs == pytest.approx(value, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_of_logs[name], gradient, rtol=1e-9, atol=1e-14)
    expected = plain.predict_probability(X, loss=CROSS)
    np.testing.assert_allclose(logs.predict_probability(X, loss=CROSS), expected, rtol=1e-12)


@pytest.mark.parametrize(("end", "loss"), [("softmax", CROSS), ("sigmoid", BINARY)])
def test_a_file_of_such_a_pair_still_predicts(tmp_path: Path, end: str, loss: Loss) -> None:
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


def test_layers_and_losses_of_ones_own_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
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
    message = f"layers.1 Probabilities: {LOGITS} Probabilities(); leave that activation out, or use NLLM() or NLL()"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        own.loss_of(X, LABELS, CROSS)
