"""PyTorch's modules as calls of its functions: the function, the arguments after those of `forward`, and keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Parts = tuple[str, tuple[Any, ...], dict[str, Any]]


def keywords(function: str, *names: str) -> Callable[[Any], Parts]:
    """A function that takes these attributes of the module as keywords, those that are not None."""

    def parts(m: Any) -> Parts:
        values = {name: getattr(m, name) for name in names}
        return function, (), {name: value for name, value in values.items() if value is not None}

    return parts


def batch_norm(m: Any) -> Parts:
    """Without running statistics a module uses the batch's always; momentum=None is their mean, so far of one batch."""
    training = m.training or m.running_mean is None
    momentum = 1.0 if m.momentum is None else m.momentum
    statistics = (m.running_mean, m.running_var, m.weight, m.bias)
    return "nn.functional.batch_norm", statistics, {"training": training, "momentum": momentum, "eps": m.eps}


MODULES: dict[str, Callable[[Any], Parts]] = {
    "nn.Linear": lambda m: ("nn.functional.linear", (m.weight, m.bias), {}),
    "nn.Embedding": lambda m: ("nn.functional.embedding", (), {}),
    "nn.BatchNorm1d": batch_norm,
    "nn.BatchNorm2d": batch_norm,
    "nn.BatchNorm3d": batch_norm,
    "nn.LayerNorm": lambda m: ("nn.functional.layer_norm", (m.normalized_shape, m.weight, m.bias, m.eps), {}),
    "nn.RMSNorm": lambda m: ("nn.functional.rms_norm", (m.normalized_shape, m.weight, m.eps), {}),
    "nn.ReLU": keywords("nn.functional.relu"),
    "nn.LeakyReLU": keywords("nn.functional.leaky_relu", "negative_slope"),
    "nn.ELU": keywords("nn.functional.elu", "alpha"),
    "nn.CELU": keywords("nn.functional.celu", "alpha"),
    "nn.SELU": keywords("nn.functional.selu"),
    "nn.GELU": keywords("nn.functional.gelu", "approximate"),
    "nn.SiLU": keywords("nn.functional.silu"),
    "nn.Softplus": keywords("nn.functional.softplus", "beta", "threshold"),
    "nn.Sigmoid": keywords("sigmoid"),
    "nn.LogSigmoid": keywords("nn.functional.logsigmoid"),
    "nn.Tanh": keywords("tanh"),
    "nn.Softmax": keywords("softmax", "dim"),
    "nn.LogSoftmax": keywords("log_softmax", "dim"),
    "nn.Softmin": keywords("nn.functional.softmin", "dim"),
    "nn.MSELoss": keywords("nn.functional.mse_loss", "reduction"),
    "nn.L1Loss": keywords("nn.functional.l1_loss", "reduction"),
    "nn.HuberLoss": keywords("nn.functional.huber_loss", "reduction", "delta"),
    "nn.SmoothL1Loss": keywords("nn.functional.smooth_l1_loss", "reduction", "beta"),
    "nn.SoftMarginLoss": keywords("nn.functional.soft_margin_loss", "reduction"),
    "nn.BCELoss": keywords("nn.functional.binary_cross_entropy", "reduction", "weight"),
    "nn.BCEWithLogitsLoss": keywords(
        "nn.functional.binary_cross_entropy_with_logits", "reduction", "weight", "pos_weight"
    ),
    "nn.CrossEntropyLoss": keywords(
        "nn.functional.cross_entropy", "reduction", "weight", "ignore_index", "label_smoothing"
    ),
    "nn.NLLLoss": keywords("nn.functional.nll_loss", "reduction", "weight", "ignore_index"),
}
