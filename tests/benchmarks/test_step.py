"""The timed step is that of `fit`, and no competitor is timed that computes something else."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from benchmarks import cases, peers, step
from benchmarks.cases import Case
from benchmarks.counting import captured, host_waits
from benchmarks.harness import LEFT_OUT, NOT_INSTALLED, MissingPeerError, Setting
from benchmarks.peers import JAX, JAX_SCAN, JIT, TORCH, TORCH_COMPILE, Peer, ours
from tests.conftest import backend_named

SMALL = Case((6, 5, 4, 3), 4)
QUICK = Setting(quick=True)
KINDS = {
    "Adam": SMALL, "SGD": Case((6, 5, 3), 4, "SGD"), "regression": Case((6, 8, 1), 8),
    "BatchNorm": Case((6, 5, 4, 3), 16, "SGD", norm=True), "Adam and BatchNorm": Case((6, 5, 3), 16, norm=True),
}  # fmt: skip


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few batches and no repetitions: these tests look at no times."""
    monkeypatch.setattr(cases, "MOST_BATCHES", 8)
    monkeypatch.setattr(Setting, "seconds", 1e-6)


def shown(rows: list[Any]) -> dict[str, str]:
    return {row.competitor: row.note.partition(":")[0] or ("timed" if row.runs else "?") for row in rows}


# The cases


def test_the_flops_of_a_step_are_those_of_its_products() -> None:
    forward, dW, dX = 2 * 4 * (6 * 5 + 5 * 4 + 4 * 3), 2 * 4 * (6 * 5 + 5 * 4 + 4 * 3), 2 * 4 * (5 * 4 + 4 * 3)
    assert SMALL.flops == forward + dW + dX
    assert len(SMALL.products) == 8


def test_the_benchmark_of_steps_covers_every_network_optimizer_and_extension() -> None:
    grid = cases.cases("cpu", quick=False, selection=False)
    assert len(grid) == len(set(grid)) == 24
    assert {case.optimizer for case in grid} == {"SGD", "Adam"} and sum(case.norm for case in grid) == 12
    assert all(case.norm == (case.dropout == 0.1) for case in grid)
    cuda = cases.cases("cuda", quick=False, selection=True)
    assert str(cuda[0]) == "784-128-10 b128 Adam"
    assert [str(case) for case in cuda if case.dtype != "float32"] == ["4096-4096-4096-4096-1000 b8192 Adam bfloat16"]
    assert all(case.optimizer == "Adam" for case in cuda)


@pytest.mark.parametrize("case", KINDS.values(), ids=str)
def test_the_benchmark_targets_cannot_be_memorised(case: Case) -> None:
    X, y = cases.data(case, "cpu")
    assert len(X) == len(y) == 8 * case.batch
    half = len(X) // 2
    np.testing.assert_array_equal(X[:half], X[half:])
    assert (y[:half] != y[half:]).any()


# gpunn's own steps


@pytest.mark.parametrize("name", KINDS)
def test_the_timed_step_of_gpunn_gives_the_losses_of_fit(name: str) -> None:
    case = KINDS[name]
    steps = ours.Steps(case, "cpu")
    net = gn.Network(ours.layers(case), case.widths[0], device="cpu", seed=0)
    optimizer = gn.Adam(case.rate) if case.optimizer == "Adam" else gn.SGD(case.rate)
    loss = gn.SquaredError() if case.regression else gn.CrossEntropy()
    history = net.fit(steps.X, steps.y, loss=loss, optimizer=optimizer, epochs=1, batch_size=case.batch, keep="last")
    assert np.mean(steps.losses(steps.epoch)) == pytest.approx(history["loss"][0], rel=1e-6)
    np.testing.assert_array_equal(steps.network.vector, net.vector)


def test_every_timed_epoch_has_the_same_order_of_rows() -> None:
    steps = ours.Steps(SMALL, "cpu")
    steps.begin()
    np.testing.assert_array_equal(steps.source.order.rows, steps.problem.order)
    assert sorted(steps.problem.order) == list(range(32)) and list(steps.problem.order) != list(range(32))


def test_the_problem_of_a_benchmark_lists_initial_weights_by_layer() -> None:
    plain, normed = (ours.Steps(KINDS[name], "cpu").problem.weights for name in ("Adam", "BatchNorm"))
    assert [sorted(layer) for layer in plain] == [["W", "b"]] * 3
    assert [sorted(layer) for layer in normed] == [["B", "G", "W"], ["B", "G", "W"], ["W", "b"]]
    assert [layer["W"].shape for layer in plain] == [(6, 5), (5, 4), (4, 3)]


# Against others


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("peer", [JIT, TORCH, JAX, JAX_SCAN], ids=lambda peer: peer.name)
def test_a_competitor_computes_the_losses_of_gpunn(peer: Peer, name: str) -> None:
    pytest.importorskip(peer.package, reason=f"{peer.package}, which competes, is not installed (extra `peers`)")
    case = KINDS[name]
    own = ours.Steps(case, "cpu")
    expected = own.losses(20)
    subject = step.contender(peer, case, "cpu", own.problem, own.problem, expected)
    assert len(set(np.round(expected, 3))) > 10
    subject.begin()
    subject.run(subject.grain)
    subject.close()


@pytest.mark.parametrize("peer", [TORCH, JAX], ids=lambda peer: peer.name)
def test_dropout_is_left_out_of_the_comparison_of_losses_but_timed(peer: Peer) -> None:
    pytest.importorskip(peer.package, reason=f"{peer.package}, which competes, is not installed (extra `peers`)")
    case = Case((6, 40, 3), 32, "SGD", norm=True, dropout=0.5)
    reference = ours.Steps(case.without_dropout(), "cpu")
    expected, dropping = reference.losses(20), replace(reference.problem, case=case)
    subject = step.contender(peer, case, "cpu", dropping, reference.problem, expected)
    assert np.abs(np.subtract(subject.losses(20), expected)).max() > 0.01  # and what is timed drops


class Wrong(ours.Steps):
    """A competitor with a wrong rate."""

    def __init__(self, problem: Any, kind: str) -> None:
        super().__init__(problem.case, kind)

    def losses(self, steps: int) -> list[float]:
        return [1.01 * value for value in super().losses(steps)]

    def run(self, steps: int) -> None:
        raise AssertionError("it was timed")


class Faulty(Peer):
    """A competitor of the class that `package` names."""

    def load(self) -> Any:
        return {"Wrong": Wrong, "Breaks": breaks}[self.package]


def breaks(problem: Any, kind: str) -> Any:
    raise RuntimeError("no compiler")


def test_a_competitor_that_disagrees_fails_or_is_missing_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    others = (
        Faulty("wrong", "Wrong", ""),
        Peer("absent", "no_such_package", "torch_peer"),
        Faulty("bad", "Breaks", ""),
    )
    monkeypatch.setattr(step, "peers", lambda kind: others)
    rows = step.measure(SMALL, QUICK, "cpu")
    assert shown(rows) == {"gpunn": "timed", "wrong": "refused", "absent": NOT_INSTALLED, "bad": "failed"}
    assert [row.competitor for row in rows] == ["gpunn", "wrong", "absent", "bad"]
    assert rows[1].note.startswith("refused: the loss of step 1 is ")
    assert rows[2].note == "not installed: No module named 'no_such_package'"
    assert rows[3].note == "failed: RuntimeError: no compiler"
    assert len(rows[0].runs) == 3 and rows[0].median > 0


def test_competitors_are_left_out_if_gpunn_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "peers", lambda kind: (TORCH,))
    rows = step.measure(Case((6, 5, 3), 4, dtype="bfloat16"), QUICK, "cpu")
    assert shown(rows) == {"gpunn": "failed", "torch eager": LEFT_OUT}


def test_cases_left_out_after_the_deadline_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "peers", lambda kind: (TORCH,))
    rows = step.run(Setting(quick=True, deadline=0.0))
    assert len(rows) == 4 and {row.note for row in rows} == {"left out: its time was up"}


def test_compiled_competitors_are_compared_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(Peer, "load", lambda self: lambda problem, kind, **options: made.append(options))
    problem: Any = None
    TORCH_COMPILE.make(problem, "cpu")
    TORCH_COMPILE.make(problem, "cpu", checked=True)
    TORCH.make(problem, "cpu", checked=True)
    assert made == [{"compiled": True}, {}, {}]


# On a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("case", [KINDS["Adam"], KINDS["SGD"], KINDS["BatchNorm"]], ids=str)
@pytest.mark.parametrize("peer", peers.peers("cuda"), ids=lambda peer: peer.name)
def test_a_competitor_computes_the_losses_of_gpunn_on_cuda(peer: Peer, case: Case) -> None:
    device = backend_named("cuda")
    pytest.importorskip(peer.package, reason=f"{peer.package}, which competes, is not installed (extra `peers`)")
    own = ours.Steps(case, device)
    try:
        subject = step.contender(peer, case, "cuda", own.problem, own.problem, own.losses(20))
    except MissingPeerError as missing:
        pytest.skip(str(missing))
    subject.begin()
    subject.run(subject.epoch)
    subject.close()


def test_a_timed_step_on_the_stand_in_for_cuda_is_captured_and_does_not_wait(strict: Any) -> None:
    """Competitors without a GPU say so; a step of gpunn is one graph and does not wait."""
    rows = step.measure(Case((6, 5, 3), 4), Setting(device=strict, quick=True), "cuda")
    assert [row.competitor for row in rows] == ["gpunn", *(peer.name for peer in peers.peers("cuda"))]
    own, *others = rows
    assert own.runs and own.details == {"host waits a step": 0, "captured": "yes"}
    assert {row.note.partition(":")[0] for row in others} == {NOT_INSTALLED}


def test_waits_of_the_host_are_counted(strict: Any) -> None:
    array = strict.zeros((3,), np.float32)
    with host_waits(strict) as count:
        strict.synchronize()
        strict.to_host(array)
        strict.all_finite(array)
        strict.xp.cuda.Stream(non_blocking=True).synchronize()
        array += 1
    assert count.value == 4
    strict.synchronize()
    assert count.value == 4


def test_the_nodes_of_a_captured_step_are_counted() -> None:
    class Graph:
        def debug_dot_str(self) -> str:
            return 'digraph dot {"graph_1_node_0"[label="x"]; "graph_1_node_1"[];"graph_1_node_0" -> "graph_1_node_1";}'

    replayed = SimpleNamespace(graph=Graph())
    assert captured([replayed]) == {"captured": "yes", "nodes": 2}
    assert captured([SimpleNamespace(graph=object())]) == {"captured": "yes"}
    assert captured([replayed, lambda: None]) == captured([]) == {"captured": "no"}
