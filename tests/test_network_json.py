"""A network is stored as JSON and restored; JSON that describes none is refused."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from tests.faults import FORM, contents
from tests.small_network import make


@pytest.mark.parametrize(
    "network",
    [
        make(), make(inputs=None), make(models=3, seed=[5, 1, 2]), make(dtype="float64", seed=9),
        gn.Network([gn.Flatten(), gn.Residual([gn.Dense(6)]), gn.Dropout([0.1, 0.2])], (2, 3), device="cpu", models=2),
    ],
    ids=["single", "unbuilt", "population", "float64", "nested"],
)  # fmt: skip
def test_a_network_is_stored_as_json_and_restored(network: gn.Network) -> None:
    back = gn.Network.from_json(network.to_json(), device="cpu")
    assert back.network == network.network
    assert (back.models, back.seeds, back.dtype) == (network.models, network.seeds, network.dtype)
    assert back.to_json() == network.to_json()
    assert repr(back) == repr(network)
    if network._inputs is not None:
        assert back.inputs == network.inputs
        assert contents(back) == contents(network)


def edited(change: Callable[[dict[str, Any]], Any]) -> str:
    data = json.loads(make().to_json())
    change(data)
    return json.dumps(data)


DENSE = {"layer": "Dense", "units": 3, "activation": None, "bias": True, "initializer": None}
DAMAGE: dict[str, Any] = {
    "cut off": make().to_json()[:-5],
    "empty": "",
    "no text": None,
    "a number": "3",
    "a list": "[]",
    "an empty object": "{}",
    **{
        f"no {name}": edited(lambda data, name=name: data.pop(name))
        for name in ("layers", "inputs", "dtype", "models", "seeds")
    },
    "layers of text": edited(lambda data: data.update(layers="os.system")),
    "no layers at all": edited(lambda data: data.update(layers=[])),
    "inputs of text": edited(lambda data: data.update(inputs="abc")),
    "inputs of a number": edited(lambda data: data.update(inputs=3.5)),
    "negative inputs": edited(lambda data: data.update(inputs=[-3])),
    "an unknown dtype": edited(lambda data: data.update(dtype="object")),
    "negative models": edited(lambda data: data.update(models=-1)),
    "no seeds left": edited(lambda data: data.update(seeds=[])),
    "a number for seeds": edited(lambda data: data.update(seeds=3)),
    "an unknown class": edited(lambda data: data["layers"].append({"layer": "Denser", "units": 3})),
    "a class of Python": edited(lambda data: data["layers"].append({"layer": "object"})),
    "a list for a class": edited(lambda data: data["layers"].append({"layer": ["Dense"]})),
    "an unknown field": edited(lambda data: data["layers"][0].update(foo=1)),
    "a field of Python": edited(lambda data: data["layers"][0].update(__class__="os")),
    "a missing field": edited(lambda data: data["layers"][0].pop("units")),
    "a loss among layers": edited(lambda data: data["layers"].append({"loss": "SquaredError", "reduction": "mean"})),
    "two families": edited(lambda data: data["layers"][0].update(loss="SquaredError")),
    "a layer for a number": edited(lambda data: data["layers"][0].update(units=DENSE)),
    "a list for a number": edited(lambda data: data["layers"][0].update(units=[3])),
    "a huge number": edited(lambda data: data["layers"][0].update(units=10**300)),
    "a number too long to read": make().to_json().replace('"units": 5', '"units": ' + "9" * 5000),
    "a layer for an initializer": edited(lambda data: data["layers"][0].update(initializer=DENSE)),
    "a number for an initializer": edited(lambda data: data["layers"][0].update(initializer=5)),
    "a loss for an activation": edited(lambda data: data["layers"][0].update(activation={"loss": "SquaredError"})),
    "a layer for an activation": edited(lambda data: data["layers"][0].update(activation=DENSE)),
    "an abstract layer": edited(lambda data: data["layers"].append({"layer": "Layer"})),
    "an abstract activation": edited(lambda data: data["layers"].append({"layer": "Pointwise"})),
    "an abstract initializer": edited(
        lambda data: data["layers"][0].update(initializer={"initializer": "Initializer"})
    ),
    "an object for a rate": edited(lambda data: data["layers"].append({"layer": "Dropout", "rate": {"a": 1}})),
    "NaN for a rate": edited(lambda data: data["layers"].append({"layer": "Dropout", "rate": math.nan})),
    "rates of too many models": edited(lambda data: data["layers"].append({"layer": "Dropout", "rate": [0.1, 0.2]})),
    "deeper than any network": '{"layers": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"layers": [' + '{"layer": "Residual", "body": ' * 2000 + "3" + "}" * 2000 + "]}",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_json_that_describes_no_network_is_refused(damage: str) -> None:
    with pytest.raises(ConfigurationError, match=FORM):
        gn.Network.from_json(DAMAGE[damage], device="cpu")
