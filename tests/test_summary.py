"""What a network prints about itself."""

import re
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, readable
from gpunn.frame import Frame
from tests.faults import exactly
from tests.small_network import SQUARED, WHOLE, make


def test_a_network_prints_as_code() -> None:
    assert repr(make()) == (
        "Network([Dense(5, 'tanh'), BatchNorm(), Dropout(0.25), Dense(2)], inputs=(3,), device='cpu', dtype='float32')"
    )
    for network in (make(), make(inputs=None), make(models=2, dtype="float64")):
        assert repr(eval(repr(network), dict(vars(gn)))) == repr(network)


def trees(frame: Frame) -> list[Frame]:
    return [frame, *(below for child in frame.children.values() for below in trees(child))]


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_figures_of_a_summary_add_up_to_what_is_allocated(dtype: str, models: int | None) -> None:
    nested = gn.Residual([gn.LayerNorm(activation="gelu"), gn.Dropout(0.1), gn.Dense(5)])
    network = gn.Network(
        [gn.Dense(5, "relu"), nested, gn.Branch([gn.Dense(700), gn.Softmax()]), gn.BatchNorm(), gn.Dense(2)],
        300, device="cpu", dtype=dtype, models=models,
    )  # fmt: skip
    lines = network.summary(batch=64).splitlines()
    rows = {line.split()[0]: line for line in lines[2:-4]}
    total = lines[-3]
    parameters = sum(view[0].size if models else view.size for view in network.parameters.values())
    assert re.search(rf"\) +{parameters:,} ", total)
    counts = [int(re.search(r"\) +([\d,]+) ", row)[1].replace(",", "")) for row in rows.values()]
    assert sum(counts) == parameters
    run = network.compile(64, SQUARED)
    buffers = (network.vector, network.gradient_vector, network.store.state)
    taken = sum(buffer.nbytes for buffer in buffers)
    for frame, planned in zip(trees(run.frame), run.planned.walk(), strict=True):
        arrays = [
            array for array in vars(frame).values() if isinstance(array, np.ndarray) and array is not network.step
        ]
        own = sum(a.nbytes for a in arrays if not any(np.may_share_memory(a, buffer) for buffer in buffers))
        taken += own
        if planned.path:
            assert rows[planned.path].endswith(f" {readable(own)}"), planned.path
    assert total.endswith(f" {readable(taken)}")
    assert lines[-1].startswith(f" training adds {readable(network.vector.nbytes)} for each moment")
    assert re.match(r"total +3 models +\(2,\)" if models else r"total +\(2,\)", total)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**30, "1.0 GiB"),
        (2**42, "4,096.0 GiB"),
    ],
)  # fmt: skip
def test_byte_counts_are_printed_with_readable_units(size: float, text: str) -> None:
    assert readable(size) == text


@pytest.mark.parametrize("batch", [0, -1, 2.5, True])
def test_summary_refuses_a_bad_batch_size(batch: Any) -> None:
    with pytest.raises(ConfigurationError, match=exactly(f"summary batch: {WHOLE.format(repr(batch))}")):
        make().summary(batch)
