"""Networks of layers inside layers: planned in linear time, up to a limit that every error names."""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

import gpunn as gn
from gpunn import archive
from gpunn.cli import gpunn as command
from gpunn.errors import CheckpointError, ConfigurationError, ShapeError
from gpunn.frame import Frame, Plan, plan_layer
from gpunn.types import Array, Shape
from gpunn.value import DEPTH_LIMIT, from_json, is_own, to_json

X = np.random.default_rng(0).normal(size=(16, 4))
Y = np.arange(16) % 2
LIMIT = f"at most {DEPTH_LIMIT} levels of layers and lists inside one another, got more; put layers that follow"


@dataclass(frozen=True)
class Counted(gn.Dense):
    """Counts how often it is planned."""

    plans: ClassVar[list[Shape]] = []

    def plan(self, shape: Shape) -> Plan:
        self.plans.append(shape)
        return super().plan(shape)


@dataclass(frozen=True)
class Around(gn.Layer):
    """A layer of a user's own around another one, which it plans itself."""

    inner: gn.Layer
    hands_on: bool = True

    def plan(self, shape: Shape) -> Plan:
        planned = plan_layer(self.inner, shape, "inner")
        inner = (self.inner, shape, planned.plan) if self.hands_on else (self.inner, shape)
        return Plan(output=planned.plan.output, children={"inner": inner})

    def forward(self, t: Frame, X: Array) -> Array:
        return self.inner.forward(t.children["inner"], X)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        return self.inner.backward(t.children["inner"], dA)


# How to put a layer into another one, and by how many levels that makes the network deeper.
NESTS: dict[str, tuple[Callable[[gn.Layer], gn.Layer], int]] = {
    "residual of a list": (lambda layer: gn.Residual([Counted(4, "tanh"), layer]), 3),
    "residual": (lambda layer: gn.Residual(layer), 1),
    "shortcut": (lambda layer: gn.Residual(Counted(4), shortcut=layer), 1),
    "sequential": (lambda layer: gn.Sequential([layer, Counted(4)]), 2),
    "branch": (lambda layer: gn.Branch([layer, Counted(4)], merge="add"), 2),
    "a user's own": (lambda layer: Around(layer), 1),
}


def nested(kind: str, times: int) -> gn.Layer:
    layer: gn.Layer = Counted(4, "tanh")
    for _ in range(times):
        layer = NESTS[kind][0](layer)
    return layer


def network(kind: str, times: int, **options: Any) -> gn.Network:
    return gn.Network([nested(kind, times), gn.Dense(2)], 4, device="cpu", **options)


@pytest.mark.parametrize("kind", NESTS)
def test_every_nested_layer_is_planned_once(kind: str) -> None:
    Counted.plans.clear()
    net = network(kind, 8)
    assert len(Counted.plans) == sum(isinstance(node.layer, Counted) for node in net.planned.walk())


def test_two_hundred_residuals_are_built_and_loaded_within_a_second(tmp_path: Path) -> None:
    start = time.perf_counter()
    net = network("residual of a list", 200)
    net.save(tmp_path / "deep.gpunn")
    loaded = gn.load(tmp_path / "deep.gpunn", device="cpu")
    assert time.perf_counter() - start < 1.0
    assert sum(isinstance(node.layer, gn.Residual) for node in net.planned.walk()) == 200
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))


def levels(kind: str) -> int:
    """How often this kind may be nested: the network and its list are two levels, a layer and its initializer two."""
    return (DEPTH_LIMIT - 4) // NESTS[kind][1]


@pytest.mark.parametrize("kind", ["residual of a list", "residual", "sequential", "branch"])
def test_the_deepest_allowed_network_does_all_that_a_flat_one_does(kind: str, tmp_path: Path) -> None:
    net = network(kind, levels(kind))
    other = gn.Sequential([nested(kind, levels(kind)), gn.Dense(2)])
    assert net.network == other and hash(net.network) == hash(other)
    assert net.network != gn.Sequential([nested(kind, levels(kind) - 1), gn.Dense(2)])
    assert repr(net).count("(") == repr(net).count(")") > levels(kind)
    assert net.summary().count("\n") > levels(kind) and not is_own(net.network)
    history = net.fit(X, Y, loss=gn.CrossEntropy(), optimizer=gn.SGD(1e-9), epochs=1, batch_size=16, progress=False)
    assert np.isfinite(history["loss"]).all()
    net.save(tmp_path / "deep.gpunn")
    loaded = gn.load(tmp_path / "deep.gpunn", device="cpu")
    assert loaded.network == net.network
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))


def test_a_deep_population_is_copied_and_split_into_members() -> None:
    population = network("residual of a list", 200, models=2)
    outputs = population.predict(X)
    np.testing.assert_array_equal(copy.deepcopy(population).predict(X), outputs)
    np.testing.assert_allclose(population.member(1).predict(X), outputs[1], rtol=1e-5)
    assert from_json(to_json(population.network)) == population.network


def test_a_user_defined_layer_may_contain_layers() -> None:
    """A third as deep as layers of gpunn, since its plan method calls itself."""
    times = levels("a user's own") // 3
    assert network("a user's own", times).predict(X).shape == (16, 2)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_deep_network_can_be_inspected(tmp_path: Path, options: tuple[str, ...]) -> None:
    network("residual of a list", 200).save(tmp_path / "deep.gpunn")
    done = CliRunner().invoke(command, ["inspect", str(tmp_path / "deep.gpunn"), *options])
    assert done.exit_code == 0 and done.stdout.count("Residual") == 200


@pytest.mark.parametrize("times", [DEPTH_LIMIT, 20_000])
@pytest.mark.parametrize("kind", NESTS)
def test_a_network_beyond_the_depth_limit_is_refused_at_once(kind: str, times: int) -> None:
    layer = nested(kind, times)
    start = time.perf_counter()
    for inputs in (4, None):
        with pytest.raises(ConfigurationError, match=f"Network layers: expected {LIMIT}"):
            gn.Network([layer], inputs, device="cpu")
    assert time.perf_counter() - start < 1.0


def test_a_layer_that_stands_in_many_places_is_checked_once() -> None:
    """2^60 paths lead to the innermost layer."""
    layer: gn.Layer = gn.Identity()
    for _ in range(DEPTH_LIMIT):
        layer = gn.Branch([layer, layer])
    with pytest.raises(ConfigurationError, match=LIMIT):
        gn.Network([layer], 4, device="cpu")


# Files


def forged(depth: int) -> str:
    """The JSON of a network of lists or residuals inside one another."""
    text = gn.Network([gn.Dense(2)], 4, device="cpu").to_json()
    layer = json.dumps(json.loads(text)["layers"][0])
    return text.replace(layer, '{"layer": "Residual", "shortcut": null, "body": ' * depth + layer + "}" * depth)


@pytest.mark.parametrize("depth", [DEPTH_LIMIT, 5_000, 100_000])
def test_json_beyond_the_depth_limit_is_refused_at_once(depth: int) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigurationError, match=f"(architecture|Network.from_json): expected {LIMIT}"):
        gn.Network.from_json(forged(depth), device="cpu")
    with pytest.raises(ConfigurationError, match=f"(architecture|Network.from_json): expected {LIMIT}"):
        gn.Network.from_json(forged(0).replace("[{", "[" * depth + "{").replace("}]", "}" + "]" * depth), device="cpu")
    assert time.perf_counter() - start < 1.0


def test_values_beyond_the_depth_limit_are_refused() -> None:
    data: Any = {"layer": "Dense", "units": 3}
    for _ in range(DEPTH_LIMIT):
        data = [data]
    with pytest.raises(ConfigurationError, match=f"architecture: expected {LIMIT}"):
        from_json(data)


def test_a_file_of_a_network_beyond_the_depth_limit_is_refused(tmp_path: Path) -> None:
    """Files may be deeper than networks."""
    path = tmp_path / "deep.gpunn"
    gn.Network([gn.Dense(2)], 4, device="cpu").save(path)
    arrays, meta = archive.read(path)
    meta["network"]["architecture"] = json.loads(forged(DEPTH_LIMIT - 1))
    archive.write(path, arrays, meta)
    with pytest.raises(CheckpointError, match=f"checkpoint '.*deep.gpunn': architecture: expected {LIMIT}"):
        gn.load(path, device="cpu")
    done = CliRunner().invoke(command, ["inspect", str(path)])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (4, "", 1) and LIMIT in done.stderr


def test_the_deepest_allowed_network_can_be_saved() -> None:
    """The containers around the layers in a file count too."""
    assert archive.DEPTH_LIMIT >= DEPTH_LIMIT + 4


# Places


def test_an_error_in_a_nested_layer_names_its_place() -> None:
    """The error names the place of the layer itself, however deep, with one number for each level."""
    layer: gn.Layer = gn.Sequential([gn.Flatten(), gn.Dense(3), gn.Columns(0, 9)])
    for _ in range(50):
        layer = gn.Branch([[gn.Identity(), layer]])
    place = "".join([".0.1"] * 50)
    with pytest.raises(ShapeError, match=f"^layers.0{place}.2 Columns: expected at least 9 columns, got 3; count"):
        gn.Network([layer], 4, device="cpu")


@pytest.mark.parametrize("hands_on", [True, False])
def test_an_error_inside_a_user_defined_wrapper_names_its_place(hands_on: bool) -> None:
    net = gn.Network([gn.Residual([Around(gn.Sequential([gn.Dense(4)]), hands_on)])], 4, device="cpu")
    assert list(net.parameters) == ["0.body.0.inner.0.W", "0.body.0.inner.0.b"]
    message = "^layers.1.inner.0.shortcut.0 Columns: expected at least 9"
    with pytest.raises(ShapeError, match=message):
        inner = gn.Sequential([gn.Residual(gn.Dense(4), shortcut=[gn.Columns(0, 9)])])
        gn.Network([gn.Dense(4), Around(inner, hands_on)], 4, device="cpu")
