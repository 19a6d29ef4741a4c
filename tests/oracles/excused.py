"""Samples of PyTorch's test data that gpunn cannot express, each with the reason; every entry must meet a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.oracles.calls import Call


class Excuse(NamedTuple):
    operations: tuple[str, ...]
    sample: str  # what distinguishes the samples
    excuses: Callable[[Call], bool]
    reason: str


def above_threshold(call: Call) -> bool:
    beta, threshold = call.get(0, "beta", 1.0), call.get(1, "threshold", 20.0)
    return bool((beta * call.input > threshold).all())


EXCUSES = [
    Excuse(
        (
            "nn.functional.linear",
            "mm",
            "matmul",
            "nn.functional.elu",
            "nn.functional.celu",
            "nn.functional.selu",
            "nn.functional.silu",
            "nn.functional.softplus",
            "nn.functional.logsigmoid",
            "sigmoid",
            "softmax",
            "softmax.with_dtype",
            "log_softmax",
            "log_softmax.with_dtype",
            "nn.functional.softmin",
            "nn.functional.softmin.with_dtype",
            "nn.functional.layer_norm",
            "native_layer_norm",
            "nn.functional.rms_norm",
            "nn.functional.batch_norm",
        ),
        "an input without elements",
        lambda call: call.input.size == 0,
        "gpunn refuses empty batches and inputs without features",
    ),
    Excuse(
        ("addmm", "addmm.decomposed"),
        "a product over no elements",
        lambda call: call.args[0].size == 0,
        "gpunn refuses inputs without features",
    ),
    Excuse(
        ("addmm", "addmm.decomposed", "baddbmm"),
        "an addend with a row for each example",
        lambda call: call.input.ndim > 1 and call.input.shape[-2] > 1,
        "a bias is one row, the same for all examples",
    ),
    Excuse(
        ("addmv",),
        "an addend with a number for each example",
        lambda call: call.input.size > 1,
        "a bias is one row, the same for all examples",
    ),
    Excuse(
        ("nn.functional.softplus",),
        "all elements above `threshold`",
        above_threshold,
        "PyTorch returns x itself there; ours has no threshold (where only some elements are above, the rest runs)",
    ),
    Excuse(
        ("reshape",),
        "to or from a scalar",
        lambda call: call.args[0] == (),
        "the shape of an example has at least one axis",
    ),
    Excuse(
        ("nn.functional.dropout",),
        "training with 0 < p < 1",
        lambda call: call.get(1, "training", True) and 0.0 < call.get(0, "p", 0.5) < 1.0,
        "other random numbers than PyTorch's",
    ),
    Excuse(
        ("nn.functional.dropout",),
        "p = 1",
        lambda call: call.get(0, "p", 0.5) == 1.0,
        "gpunn refuses a layer that drops everything",
    ),
    Excuse(
        ("nn.functional.layer_norm", "native_layer_norm", "nn.functional.rms_norm"),
        "eps below 0",
        lambda call: (call.get(2 if "rms" in call.name else 3, "eps") or 0.0) < 0.0,
        "gpunn refuses it: the root of a negative number",
    ),
    Excuse(
        ("nn.functional.batch_norm",),
        "training with a momentum outside 0 to 1",
        lambda call: call.kwargs.get("training", False) and not 0.0 <= call.kwargs.get("momentum", 0.1) <= 1.0,
        "gpunn refuses it: running statistics that run away",
    ),
    Excuse(
        ("native_batch_norm",),
        "training with a momentum outside 0 to 1",
        lambda call: call.args[4] and not 0.0 <= call.args[5] <= 1.0,
        "gpunn refuses it: running statistics that run away",
    ),
    Excuse(
        ("nn.functional.cross_entropy",),
        "the mean over no row, all labels ignored",
        lambda call: call.kwargs.get("reduction") == "mean" and (call.args[0] == call.kwargs.get("ignore_index")).all(),
        "PyTorch gives 0/0",
    ),
]


def excuses_for(call: Call) -> list[Excuse]:
    return [excuse for excuse in EXCUSES if call.name in excuse.operations and excuse.excuses(call)]
