"""Checkpoints: a network, and for a training all that it needs to go on, as arrays and JSON in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn.archive import Host, Path, named, read, write
from gpunn.backends import get_backend
from gpunn.backends.reference.backend import Backend
from gpunn.dataframes import stored_columns
from gpunn.errors import CheckpointError, DeviceMemoryError, GpunnError, brief
from gpunn.frame import plan_layer
from gpunn.layers.composite import Sequential
from gpunn.losses import Loss
from gpunn.memory import memory_errors
from gpunn.network import Network
from gpunn.precision import stored_dtype
from gpunn.training.resume import network_parts
from gpunn.value import from_json
from gpunn.words import own_words

__all__ = ["load_network", "network_of", "network_parts", "read", "write"]


def network_of(
    where: str, arrays: Mapping[str, Host], meta: Mapping[str, Any], device: str | Backend, dtype: str | None = None
) -> Network:
    """The network in what `read` returned, built after all is checked; arrays of a training are ignored."""
    ops = device if isinstance(device, Backend) else get_backend(device)
    values = {name.removeprefix("network/"): array for name, array in arrays.items() if name.startswith("network/")}
    try:
        if "network" not in meta:
            raise LookupError("a checkpoint without one")
        saved = meta["network"]
        loss, step = from_json(saved["loss"]), saved["step"]
        if not (loss is None or isinstance(loss, Loss)) or type(step) is not int or not 0 <= step < 2**64:
            raise ValueError(f"loss {loss!r} and step {step!r}")
        preprocessing = None
        if saved.get("preprocessing") is not None:
            from gpunn.data.preprocessing import Preprocessing  # lazily: a third of the time to import gpunn

            preprocessing = from_json(saved["preprocessing"])
            if not isinstance(preprocessing, Preprocessing):
                raise ValueError(f"{preprocessing!r} as preprocessing")
        columns = stored_columns(saved.get("columns"), saved["architecture"]["inputs"])
        _check_arrays(saved["architecture"], values)
        architecture = saved["architecture"] if dtype is None else {**saved["architecture"], "dtype": dtype}
        network = Network.from_json(json.dumps(architecture), device=ops)
        network.load_parameters(values)
    except DeviceMemoryError:
        raise
    except GpunnError as error:
        raise CheckpointError(
            f"{where}: {error.where}", expected=error.expected, got=error.got, fix=error.fix
        ) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(
            where,
            expected="a saved network",
            got=brief(error),
            fix="give one that save wrote",
        ) from error
    network.loss, network.preprocessing, network.columns = loss, preprocessing, columns
    ops.copy(ops.from_host(np.array([step], np.uint64)), out=network.step)
    return network


def _check_arrays(architecture: Mapping[str, Any], values: Mapping[str, Host]) -> None:
    """Check names, shapes and dtypes before anything is allocated whose size only the file's JSON states."""
    models, seeds, dtype = architecture["models"], architecture["seeds"], architecture["dtype"]
    if not isinstance(seeds, list) or len(seeds) != (1 if models is None else models):
        raise ValueError(f"{models!r} models with seeds {seeds!r}")
    planned = plan_layer(Sequential(from_json(architecture["layers"])), tuple(architecture["inputs"]))
    model_axes = () if models is None else (models,)
    dtype = stored_dtype(dtype)
    wanted = {name: (dtype, (*model_axes, *p.shape)) for name, p in planned.parameters.items()}
    wanted |= {name: (dtype, (*model_axes, *s.shape)) for name, s in planned.state.items()}
    found = {name: (array.dtype.name, array.shape) for name, array in values.items()}
    wrong = sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"arrays that do not fit the architecture: {', '.join(wrong)}")


@own_words("load")
def load_network(path: Path, device: str | Backend = "auto", *, dtype: str | None = None) -> Network:
    """A network as it was saved, bit for bit, on any device.

    `dtype` is another one to compute in: "float32" brings a network of half precision, whose values are stored in
    float32, to the CPU.
    """
    where = named(path)[1]
    with memory_errors(where):
        arrays, meta = read(path)
        return network_of(where, arrays, meta, device, dtype)
