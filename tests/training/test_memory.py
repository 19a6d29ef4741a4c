"""The memory of a training is known before it is taken, and a network can be used after memory ran out."""

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cuda.backend import WORKSPACE_BYTES
from gpunn.errors import DataError, DeviceError, DeviceMemoryError, readable
from gpunn.memory import Need, Rehearsal, hollow, largest_batch
from gpunn.training.options import Options
from gpunn.training.prepare import check, need, training_of
from tests.conftest import strict_backend
from tests.faults import unchanged

ROWS = 700
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 40)).astype(np.float32)
LABELS = RNG.integers(0, 10, ROWS)
NUMBERS = RNG.normal(size=(ROWS, 10)).astype(np.float32)
MLP = (gn.Dense(96, "relu"), gn.BatchNorm(), gn.Dropout(0.2), gn.Dense(64, "gelu"), gn.Dense(10))
TREE = (
    gn.LayerNorm(), gn.Residual([gn.Dense(40, "tanh"), gn.GaussianNoise(0.1)]), gn.Branch([gn.Dense(30), gn.Dense(9)]),
    gn.Dense(10, "softmax"),
)  # fmt: skip
DEFAULTS: dict[str, Any] = dict.fromkeys(Options.__dataclass_fields__) | {
    "batch_size": 128, "sampling": "shuffle", "metrics": (), "accumulate": 1, "drop_last": False, "keep": "best",
    "every": 1, "deterministic": False, "progress": False,
}  # fmt: skip


def options(**changes: Any) -> dict[str, Any]:
    return {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-3), "epochs": 2, "progress": False, **changes}


class Case:
    """A network with what it is trained on."""

    def __init__(
        self, layers: Any = MLP, data: Any = (X, LABELS), models: int | None = None, dtype: str = "float32",
        **changes: Any,
    ) -> None:  # fmt: skip
        self.layers, self.data, self.models, self.options = layers, data, models, options(**changes)
        self.dtype = dtype

    def network(self, ops: Any) -> gn.Network:
        return gn.Network(self.layers, 40, device=ops, models=self.models, dtype=self.dtype)

    def need(self, network: gn.Network, batch: int | None = None) -> int:
        chosen = Options(**{**DEFAULTS, **self.options})
        return need(network, check(network, *self.data, chosen), chosen)(batch or chosen.batch_size)


CASES = {
    "plain": Case(),
    "population": Case(models=3),
    "tree": Case(TREE, loss=gn.NLLM(), optimizer=gn.SGD(0.1, momentum=0.9), metrics=["accuracy"]),
    "whole batches": Case(batch_size=256, drop_last=True),
    "accumulated": Case(batch_size=50, accumulate=3, optimizer=gn.Lion(1e-3)),
    "held out": Case(validation=0.3, metrics=["accuracy"], batch_size=64),
    "validation": Case(validation=(X[:333], LABELS[:333]), models=2),
    "folds": Case(models=2, folds=[(np.arange(500), np.arange(500, 700)), (np.arange(200, 700), np.arange(200))]),
    "folds of two lengths": Case(
        models=2, folds=[(np.arange(600), np.arange(600, 700)), (np.arange(200, 700), np.arange(200))],
        metrics=["accuracy"], sample_weight=np.ones(ROWS),
    ),
    "one hot": Case(loss=gn.NLLM(), layers=(gn.Dense(10, "sigmoid"), gn.Softmax()), data=(X, np.eye(10)[LABELS])),
    "numbers": Case(
        data=(X.astype(np.float64), NUMBERS), loss=gn.SquaredError(), sample_weight=np.ones(ROWS), clip_norm=1.0,
        regularization=gn.regularization.L2(1e-3), metrics=["r2"], stopping=gn.GradientTolerance(1e-9),
    ),
    "bytes": Case(data=((X * 10).astype(np.int8).view(np.uint8), LABELS)),
    "own sets": Case(models=2, data=(np.stack([X, X]), LABELS)),
    "with replacement": Case(sampling="replacement", callbacks=gn.GradientFlow()),
    "whole set": Case((gn.Dense(10),), optimizer=gn.LBFGS(history_size=4), batch_size=256),
    "double": Case(dtype="float64"),
    "bfloat16": Case(dtype="bfloat16", models=2, validation=0.3),
    "float16": Case(TREE, dtype="float16", loss=gn.NLLM()),
    "streamed": Case(memory=X.nbytes // 2, batch_size=32, sample_weight=np.ones(ROWS)),
}  # fmt: skip


@pytest.fixture
def ops() -> Iterator[Any]:
    """A new device on which products have run, so that their workspace is allocated."""
    made = strict_backend()
    A = made.zeros((2, 2), np.float32)
    made.matmul(A, A, made.zeros((2, 2), np.float32))
    yield made
    gc.collect()


@pytest.mark.parametrize("name", CASES)
def test_a_training_takes_the_device_memory_that_was_predicted(ops: Any, name: str) -> None:
    case, machine = CASES[name], ops.xp.machine
    network = case.network(ops)
    said = case.need(network)
    gc.collect()
    machine.peak_bytes = before = machine.live_bytes
    counted = ops.xp.counters.snapshot()
    assert case.need(network) == said and ops.xp.counters.snapshot() == counted and machine.live_bytes == before
    network.fit(*case.data, **case.options)
    taken = machine.peak_bytes - before
    assert said <= taken * 1.001
    assert taken <= said * 1.03


@pytest.mark.parametrize("name", ["plain", "population", "held out", "numbers", "accumulated"])
def test_a_training_takes_the_host_memory_that_was_predicted(name: str) -> None:
    known = CASES[name]
    case = Case((gn.Dense(800, "relu"), *MLP), known.data, known.models, **known.options)
    network = case.network("cpu")
    case.need(network)  # whatever is kept for ever is there now
    tracemalloc.start()
    try:
        said = case.need(network)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        chosen = Options(**{**DEFAULTS, **case.options})
        sets = check(network, *case.data, chosen)
        checked = tracemalloc.get_traced_memory()[0]
        run = training_of(network, sets, chosen, chosen.batch_size)
        taken = tracemalloc.get_traced_memory()[0] - checked
    finally:
        tracemalloc.stop()
    assert run.epoch == 0 and checked - before < 0.1 * said
    assert said < taken <= said * 1.03 + 100_000  # Python's own objects


@pytest.mark.parametrize("models", [None, 3])
def test_a_summary_says_what_memory_its_pass_takes(ops: Any, models: int | None) -> None:
    machine = ops.xp.machine
    before = machine.live_bytes
    network = gn.Network(TREE, 40, device=ops, models=models)
    network.compile(64, training=False)
    total = network.summary(batch=64).splitlines()[-3]
    assert total.endswith(f" {readable(machine.live_bytes - before - network.step.nbytes)}")


def test_a_rehearsal_leaves_the_network_unchanged(ops: Any) -> None:
    network = CASES["plain"].network(ops)
    with unchanged(network):
        stage, rehearsal = network.rehearsed()
        run = stage.compile(32, gn.CrossEntropy())
        assert rehearsal.bytes > 0 and rehearsal.device == ops.device and not network.keeps(32, gn.CrossEntropy())
        assert stage.keeps(32, gn.CrossEntropy()) and run.frame.children
        assert rehearsal.owns(network.vector) and rehearsal.owns(run.loss_frame.value) and not rehearsal.owns(X)


def test_hollow_arrays_have_shape_and_dtype_but_no_memory() -> None:
    array = hollow((1 << 20, 1 << 20, 4), np.float32)
    assert array.nbytes == 1 << 44
    assert array[3:5].reshape(2, -1, 2).shape == (2, 1 << 21, 2) and array.mT.dtype == np.float32
    assert hollow((), np.float64).shape == () and Rehearsal(strict_backend()).free_memory() == float("inf")


# Too large


def full_to(ops: Any, free: int) -> Any:
    """Fill the device until so many bytes are free."""
    gc.collect()
    machine = ops.xp.machine
    machine.memory = machine.live_bytes + free
    return machine


NAMED = ("plain", "population", "accumulated", "whole batches", "held out", "tree", "bfloat16")


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_the_error_for_missing_memory_names_the_largest_batch_that_fits(ops: Any, name: str, share: float) -> None:
    known = CASES[name]
    case = Case(known.layers, known.data, known.models, known.dtype, **{**known.options, "batch_size": 96})
    network = case.network(ops)
    smallest = case.need(network, 2)
    free = int(smallest + share * (case.need(network) - smallest))
    machine = full_to(ops, free)
    best = max(size for size in range(2, 96) if case.need(network, size) <= free)
    live, message = (
        machine.live_bytes,
        (
            rf"^fit batch_size: expected at most {readable(free)}, got batch_size=96: "
            rf"{readable(case.need(network))} wanted, {readable(free)} free; batch_size={best} fits$"
        ),
    )
    with unchanged(network), pytest.raises(DeviceMemoryError, match=message):
        network.fit(*case.data, **case.options)
    assert machine.live_bytes == live and network.loss is None
    machine.memory = machine.live_bytes + int(1.03 * free)  # what steps take for partial sums
    network.fit(*case.data, **{**case.options, "batch_size": best})
    network.forget_passes()
    full_to(ops, free)
    with pytest.raises(DeviceMemoryError, match="fit batch_size"):
        network.fit(*case.data, **{**case.options, "batch_size": best + 1})


@pytest.mark.parametrize("rows", [1, 2, 13, 700])
@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("whole", [False, True])
def test_the_search_for_the_largest_batch_that_fits_finds_it(rows: int, least: int, whole: bool) -> None:
    """Compared with trying all sizes; a batch size costs 10, and each row 7."""

    def cost(size: int) -> int:
        rest = rows % size
        return 100 + sum(10 + 7 * n for n in {size, rest if rest >= least and not whole else 0} - {0})

    def stage() -> Any:
        return None, Rehearsal(strict)

    strict: Any = strict_backend()
    need = Need(stage, lambda _stage, size: None)
    need.known = {size: cost(size) for size in range(least, rows + 1)}
    for free in range(0, 200 + 14 * rows, 37):
        every = [size for size in range(least, rows) if cost(size) <= free]
        assert largest_batch(need, free, rows, rows, least=least, whole=whole) == max(every, default=0)


def test_the_error_for_missing_memory_says_if_no_batch_fits(ops: Any) -> None:
    network = CASES["plain"].network(ops)
    full_to(ops, 50_000)
    message = (
        r"^fit batch_size: .* free; no batch is small enough, and the data take 114\.8 KiB: stream them with memory="
    )
    with unchanged(network), pytest.raises(DeviceMemoryError, match=message):
        network.fit(X, LABELS, **options(memory=10**9))
    with pytest.raises(DeviceMemoryError, match=r"lower memory=, or shrink the network$"):
        network.fit(X, LABELS, **options(memory=60_000))


def test_bad_data_are_reported_before_missing_memory(ops: Any) -> None:
    network = CASES["plain"].network(ops)
    full_to(ops, 1000)
    with pytest.raises(DataError, match="^y: expected whole classes"):
        network.fit(X, LABELS + 5, **options())


def test_kept_passes_are_dropped_to_make_room(ops: Any) -> None:
    case = CASES["plain"]
    network = case.network(ops)
    network.fit(*case.data, **case.options)
    network.predict(X, batch_size=300)
    gc.collect()
    held = ops.xp.machine.live_bytes
    network.forget_passes()
    gc.collect()
    assert ops.xp.machine.live_bytes < held
    network.predict(X, batch_size=300)
    machine = full_to(ops, 0)
    machine.memory += case.need(network) - 1000
    network.fit(*case.data, **case.options)


USES = {
    "predict": ("predict batch_size", "batch_size=", lambda network, n: network.predict(X, batch_size=n)),
    "probability": (
        "predict batch_size", "batch_size=",
        lambda network, n: network.predict_probability(X, loss=gn.CrossEntropy(), batch_size=n),
    ),
    "evaluate": (
        "evaluate batch_size", "batch_size=",
        lambda network, n: network.evaluate(X, LABELS, loss=gn.CrossEntropy(), metrics=["accuracy"], batch_size=n),
    ),
    "gradients": ("X", "a batch of ", lambda network, n: network.gradients(X[:n], LABELS[:n], gn.CrossEntropy())),
    "loss_of": ("X", "a batch of ", lambda network, n: network.loss_of(X[:n], LABELS[:n], gn.CrossEntropy())),
}  # fmt: skip


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("use", USES)
def test_predict_and_evaluate_name_the_largest_batch_that_fits(
    ops: Any, use: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, named, function = USES[use]
    network = gn.Network([gn.Dense(96, "relu"), gn.Dense(64, "gelu"), gn.Dense(10)], 40, device=ops)
    if place == "device":
        monkeypatch.setitem(globals(), "X", ops.from_host(X))
    machine = full_to(ops, 0)
    machine.memory += 300_000
    message = rf"^{where}: expected at most 293\.0 KiB, got {named}700: .* wanted, 293\.0 KiB free; {named}(\d+) fits$"
    with unchanged(network), pytest.raises(DeviceMemoryError, match=message) as caught:
        function(network, ROWS)
    best = int(str(caught.value).split(named)[-1].split()[0])
    assert 50 < best < 350
    machine.peak_bytes = machine.live_bytes
    before = machine.live_bytes
    function(network, best)
    assert 0.8 < (machine.peak_bytes - before) / 300_000 <= 1
    if use not in ("gradients", "loss_of"):
        network.forget_passes()
        with pytest.raises(DeviceMemoryError, match=where):
            function(network, best + 1)


def test_the_memory_of_a_kept_pass_is_not_counted_again(ops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicting row by row checks the memory only once."""
    network = CASES["plain"].network(ops)
    first = network.predict(X[:1])
    monkeypatch.setattr(Rehearsal, "empty", None)
    np.testing.assert_array_equal(network.predict(X[:1]), first)


# Memory that runs out all the same


class Neighbour(gn.Callback):
    """A callback that takes all free memory after the first epoch."""

    def __init__(self, ops: Any) -> None:
        self.machine, self.ops = ops.xp.machine, ops

    def on_epoch(self, run: Any, record: Any) -> None:
        if run.epoch == 1:
            self.machine.memory = self.machine.live_bytes


def test_memory_that_runs_out_during_training_leaves_the_best_weights(ops: Any) -> None:
    case = Case(epochs=5)
    network, expected, machine = case.network(ops), case.network(ops), ops.xp.machine
    before = machine.live_bytes
    with pytest.raises(
        DeviceMemoryError, match=r"^memory of cuda:0: expected room for every array, got .*; use a small"
    ):
        network.fit(*case.data, **case.options, callbacks=Neighbour(ops))
    machine.memory = 1 << 36
    gc.collect()
    assert machine.live_bytes <= before + 1000
    expected.fit(*case.data, **{**case.options, "epochs": 1})
    np.testing.assert_array_equal(ops.to_host(network.vector), ops.to_host(expected.vector))
    network.fit(*case.data, **{**case.options, "batch_size": 32})


def test_the_traceback_of_a_memory_error_keeps_no_arrays_alive(ops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interactive session keeps the last traceback, with the local variables of every function in it."""
    case = CASES["plain"]
    network, machine = case.network(ops), ops.xp.machine
    gc.collect()
    before = machine.live_bytes
    monkeypatch.setattr(type(ops), "free_memory", lambda self: float("inf"))
    machine.memory = before + case.need(network) * 2 // 3
    gc.disable()
    try:
        with pytest.raises(DeviceMemoryError, match=r"^memory of cuda:0: .* KiB asked for, inf GiB free") as kept:
            network.fit(*case.data, **case.options)
        assert kept.value.__traceback__ and machine.live_bytes <= before + 100  # meters know themselves
    finally:
        gc.enable()
    assert not len(network.uses)


def test_a_pass_that_could_not_be_allocated_whole_is_not_kept(ops: Any) -> None:
    """Without a check beforehand `compile` drops the passes it keeps, tries again, and then raises the error."""
    network, machine = CASES["plain"].network(ops), ops.xp.machine
    gc.collect()
    before = machine.live_bytes
    first = network.compile(64, gn.CrossEntropy())
    taken = machine.live_bytes - before
    del first
    machine.memory = machine.live_bytes + taken // 2
    gc.disable()
    try:
        network.compile(65, gn.CrossEntropy())
        assert not network.keeps(64, gn.CrossEntropy())
        with pytest.raises(DeviceMemoryError, match="^memory of cuda:0: expected room for every array"):
            network.compile(200, gn.CrossEntropy())
        assert not len(network.uses) and machine.live_bytes == before
        network.compile(64, gn.CrossEntropy())
    finally:
        gc.enable()


def test_memory_errors_of_other_libraries_become_the_error_of_gpunn(ops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every MemoryError inside a method of a network becomes the same error."""
    network = CASES["plain"].network(ops)

    def fail(*_: Any, **__: Any) -> None:
        raise ops.xp.cuda.memory.OutOfMemoryError("Out of memory allocating 7 bytes")

    monkeypatch.setattr(ops, "elementwise", fail)
    with pytest.raises(
        DeviceMemoryError, match=r"got Out of memory allocating 7 bytes; use a smaller batch or network$"
    ):
        network.predict(X)
    assert issubclass(DeviceMemoryError, (DeviceError,)) and issubclass(DeviceMemoryError, MemoryError)


def test_the_error_for_parameters_that_do_not_fit_names_their_size() -> None:
    ops = strict_backend(memory=1 << 20)
    with pytest.raises(
        DeviceMemoryError, match=r"^Network parameters: .* 3\.8 MiB asked for, 0 B free; use smaller lay"
    ):
        gn.Network([gn.Dense(1000)], 1000, device=ops)
    network = gn.Network([gn.Dense(1000)], device=ops)
    with pytest.raises(DeviceMemoryError, match=r"^Network parameters: "):
        network.predict(np.ones((2, 1000)))
    assert not network.is_built


def test_free_memory_is_that_of_the_driver_and_the_pool() -> None:
    ops = strict_backend(memory=1 << 30)
    pool = ops.xp.get_default_memory_pool()
    assert ops.free_memory() == (1 << 30) - WORKSPACE_BYTES
    A = ops.zeros((2, 2), np.float32)
    ops.matmul(A, A, ops.zeros((2, 2), np.float32))
    free = (1 << 30) - ops.xp.machine.live_bytes
    assert ops.free_memory() == free and free < (1 << 30) - WORKSPACE_BYTES
    pool.held = 5000
    assert ops.free_memory() == free + 5000
    pool.set_limit(size=WORKSPACE_BYTES + 1000)
    assert ops.free_memory() == WORKSPACE_BYTES + 1000 - pool.used_bytes()
    pool.set_limit(size=10)
    assert ops.free_memory() == 0
