"""Benchmarks of whole trainings, batches and updates: a competitor that computes something else is not timed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from benchmarks import accuracy, batching, epoch, populations, update
from benchmarks.cases import Case, Training
from benchmarks.harness import DisagreementError, MissingPeerError, Row, Setting
from benchmarks.peers import ours
from gpunn.regularization import HalfL2

SMALL = Case((6, 5, 3), 8)
FITS = list(epoch.fits(Setting()))


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Setting, "seconds", 1e-6)


def training(**changes: Any) -> Training:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 6), np.float32), rng.integers(0, 3, 40)
    return replace(Training(SMALL, X, y, 3, ours.weights(SMALL)), **changes)


def made(makers: dict[str, Any], name: str) -> Any:
    try:
        return makers[name]()
    except MissingPeerError as error:
        pytest.skip(f"{error} (extra `peers`)")


def shown(rows: list[Row]) -> dict[str, str]:
    return {row.competitor: row.note.partition(":")[0] or ("timed" if row.runs else "?") for row in rows}


# Epochs


@pytest.mark.parametrize("name", FITS)
def test_every_competitor_trains_to_the_same_losses(name: str) -> None:
    fit = made(epoch.fits(Setting()), name)
    given = training(shuffle=False)
    assert fit(given) == pytest.approx(ours.fit(given, "cpu"), rel=1e-4)
    mixed = [fit(training(seed=seed)) for seed in (0, 0, 1)]
    assert mixed[0] == mixed[1] and all(losses[-1] < losses[0] for losses in mixed)
    if name != "gpunn":  # which draws weights of its own for another seed
        assert mixed[1] != pytest.approx(mixed[2], rel=1e-4)


@pytest.mark.parametrize("name", FITS)
def test_every_competitor_reports_its_predictions_after_each_epoch(name: str) -> None:
    seen = []
    given = training(after=lambda classes: seen.append(classes(given.X)))
    made(epoch.fits(Setting()), name)(given)
    assert [found.shape for found in seen] == [(40,)] * 3
    assert set(np.concatenate(seen)) <= {0, 1, 2}


@pytest.mark.parametrize("wrong", ["rate", "weights", "epochs"])
def test_a_competitor_whose_training_differs_is_not_timed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(given: Training) -> list[float]:
        if wrong == "epochs":
            return ours.fit(given, "cpu")[1:]
        other = replace(given, case=replace(SMALL, optimizer="SGD")) if wrong == "rate" else replace(given, seed=5)
        return ours.fit(other, "cpu")

    monkeypatch.setattr(
        epoch, "fits", lambda setting: {"gpunn": lambda: lambda t: ours.fit(t, "cpu"), "other": lambda: fit}
    )
    found = epoch.measure("case", training(), Setting(quick=True))
    assert shown(found) == {"gpunn": "timed", "other": "refused"}
    told = "2 numbers where 3 were" if wrong == "epochs" else "the loss of epoch 1 is"
    assert found[1].note.startswith(f"refused: {told}")


# Accuracy


def test_the_time_to_an_accuracy_is_measured_for_each_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    def climbs(given: Training) -> list[float]:
        for right in (70, 85, 96):
            given.ended(lambda Xv, right=right: np.arange(100) >= right)
        return []

    def falls(given: Training) -> list[float]:
        raise ValueError("boom")

    def missing() -> Any:
        raise MissingPeerError("not installed: x")

    fits = {"gpunn": lambda: climbs, "scikit-learn": missing, "torch slices": lambda: falls}
    monkeypatch.setattr(accuracy, "fits", lambda setting: fits)
    monkeypatch.setattr(accuracy, "split", lambda name: (None, None, None, np.zeros(100, bool)))
    rows = {(row.case[-3:], row.competitor): row for row in accuracy.curves("set", SMALL, 3, Setting(quick=True))}
    got = {goal: len(rows[goal, "gpunn"].runs) for goal in ("80%", "90%", "95%", "98%")}
    assert got == {"80%": 1, "90%": 1, "95%": 1, "98%": 0}
    assert rows["80%", "gpunn"].median < rows["90%", "gpunn"].median
    assert rows["98%", "gpunn"].note == "left out: not reached in 3 epochs" and not rows["80%", "gpunn"].note
    assert rows["98%", "gpunn"].details == {"best": "96.0%"}
    assert {rows[goal, "scikit-learn"].note for goal in got} == {"not installed: x"}
    assert {rows[goal, "torch slices"].note for goal in got} == {"failed: ValueError: boom"}


@pytest.mark.parametrize("name", accuracy.NETS)
def test_the_benchmark_sets_are_split_and_every_competitor_learns_them(name: str) -> None:
    X, y, Xv, yv = accuracy.split(name)
    assert X.shape[1] == accuracy.NETS[name][0][0] and len(Xv) == len(yv) == (len(X) + len(Xv)) // 5
    assert set(yv) == set(y) == set(range(accuracy.NETS[name][0][-1]))
    case = Case((X.shape[1], 8, accuracy.NETS[name][0][-1]), 64)
    for who in accuracy.COMPETITORS:
        try:
            fit = epoch.fits(Setting())[who]()
        except MissingPeerError:
            continue
        seen = accuracy.curve(fit, Training(case, X[:128], y[:128], 2, ours.weights(case)), Xv, yv)
        assert len(seen) == 2 and 0 < seen[0][0] < seen[1][0]


# Batches


@pytest.mark.parametrize("name", batching.LOADERS)
def test_timed_batches_are_the_whole_set_in_a_new_order(name: str) -> None:
    given = training()
    loader = made({name: lambda: batching.LOADERS[name](given.X, given.y, 16, "cpu")}, name)
    batching.checked(loader, given.X, given.y).run(1)
    epochs = [[batching.on_host(X) for X, _ in loader()] for _ in range(2)]
    assert [len(X) for X in epochs[0]] == [16, 16, 8]
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


def test_timed_batches_on_the_stand_in_for_cuda_are_the_whole_set(strict: Any) -> None:
    given = training()
    batching.checked(batching.gathered(given.X, given.y, 16, strict), given.X, given.y)


@pytest.mark.parametrize("wrong", ["a row twice", "another's target"])
def test_timed_batches_with_other_rows_are_refused(wrong: str) -> None:
    given = training()
    rows = np.r_[0, :39] if wrong == "a row twice" else np.arange(40)
    targets = given.y if wrong == "a row twice" else np.roll(given.y, 1)
    with pytest.raises(DisagreementError, match="refused: its batches are not the rows of the set with their targets"):
        batching.checked(lambda: iter([(given.X[rows], targets[rows])]), given.X, given.y)


# Populations


def models(folds: bool, epochs: int = 2) -> populations.Models:
    name = "5 folds x 1 settings" if folds else "4 rates"
    return replace(populations.questions(quick=True)[name], epochs=epochs)


def test_the_benchmark_of_populations_covers_rates_decays_and_folds() -> None:
    rates, folds = populations.questions(quick=False).values()
    assert len(rates.rates) == len(set(rates.rates)) == len(rates.starts) == 64 and not any(rates.decays)
    assert len(folds.rates) == len(folds.decays) == len(folds.folds) == len(folds.starts) == 80
    assert len(set(zip(folds.rates, folds.decays))) == 16
    train, held_out = folds.folds[1]
    assert len(train) == 1280 and sorted([*train, *held_out]) == list(range(1600))
    np.testing.assert_array_equal(held_out, np.arange(320, 640))


@pytest.mark.parametrize("folds", [False, True], ids=["rates", "folds"])
@pytest.mark.parametrize("name", populations.trainers("cpu"))
def test_a_population_and_single_networks_are_trained_to_the_same_models(name: str, folds: bool) -> None:
    train = made(populations.trainers("cpu"), name)
    decays = (0.1, 0.3) if folds else (0.0, 0.0)
    given = replace(models(folds).first(2), rates=(1e-3, 3e-3), decays=decays)
    wanted, got = populations.population(given, "cpu"), train(given)
    assert [[sorted(layer) for layer in model] for model in got] == [[["W", "b"]] * 2] * 2
    for model, expected in zip(got, wanted):
        for layer, values in zip(model, expected):  # a few are not: Adam takes a gradient's sign, however small it is
            assert np.isclose(layer["W"], values["W"], atol=1e-4).mean() > 0.97
            assert np.isclose(layer["b"], values["b"], atol=1e-4).mean() > 0.9
    assert populations.losses(given, got) == pytest.approx(populations.losses(given, wanted), rel=1e-3)


def test_the_decay_of_the_population_benchmark_makes_weights_smaller() -> None:
    plain, decaying = (
        populations.population(replace(models(True).first(1), rates=(1e-3,), decays=(decay,)), "cpu")[0][0]["W"]
        for decay in (0.0, 0.3)
    )
    assert np.abs(decaying).mean() < 0.97 * np.abs(plain).mean()


def test_the_loss_of_the_population_benchmark_is_that_of_a_network() -> None:
    given = models(folds=True).first(1)
    (weights,) = populations.population(given, "cpu")
    network = gn.Network(ours.layers(populations.CASE), 64, device="cpu")
    network.load_parameters({f"{i}.{name}": value for i, layer in enumerate(weights) for name, value in layer.items()})
    rows = given.folds[0][0]
    wanted = network.loss_of(given.X[rows], given.y[rows], gn.CrossEntropy())
    assert populations.losses(given, [weights]) == pytest.approx([wanted], rel=1e-5)


def test_a_competitor_whose_models_differ_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(given: populations.Models) -> Any:
        return populations.population(replace(given, rates=tuple(2 * rate for rate in given.rates)), "cpu")

    makers = {"gpunn": lambda: lambda m: populations.population(m, "cpu"), "other": lambda: wrong}
    monkeypatch.setattr(populations, "trainers", lambda device: makers)
    found = populations.measure("case", models(False, 1).first(2), Setting(quick=True))
    assert shown(found) == {"gpunn": "timed", "other": "refused"}
    assert found[1].note.startswith("refused: the loss of model 1 is")


def test_only_models_with_a_decay_are_regularized_in_the_benchmark() -> None:
    assert models(False).regularization is None
    assert models(True).regularization == HalfL2((1e-2,) * 5)


# Updates


def test_the_benchmark_of_updates_has_the_number_of_parameters_asked_for() -> None:
    for size in update.SIZES:
        values, gradients = update.problem(size)
        assert sum(value.size for value in values) == pytest.approx(size, rel=0.15)
        assert [value.shape for value in values] == [gradient.shape for gradient in gradients]


@pytest.mark.parametrize("optimizer", [("SGD", 0.01), ("Adam", 1e-3)], ids=lambda o: o[0])
def test_every_competitor_makes_the_same_update(optimizer: tuple[str, float]) -> None:
    values, gradients = update.problem(200)
    rows = update.measure("case", values, gradients, optimizer, Setting(quick=True))
    assert [row.competitor for row in rows] == ["gpunn", "gpunn jit", "torch fused", "torch foreach", "optax jit"]
    assert rows[0].runs and all(status in ("timed", "not installed") for status in shown(rows).values())
    once, wait, read = update.flat(values, gradients, *optimizer, "cpu")
    once()
    wait()
    step = optimizer[1] * (gradients[0] if optimizer[0] == "SGD" else np.sign(gradients[0]))
    np.testing.assert_allclose(read()[0], values[0] - step, atol=1e-6)


def test_a_timed_update_on_the_stand_in_for_cuda_equals_that_on_the_cpu(strict: Any) -> None:
    values, gradients = update.problem(200)
    wanted = update.after(update.flat(values, gradients, "Adam", 1e-3, "cpu"))
    assert update.after(update.flat(values, gradients, "Adam", 1e-3, strict)) == pytest.approx(wanted, rel=1e-6)


def test_a_competitor_whose_update_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradients = update.problem(200)
    slower = lambda v, g, name, rate, kind, **form: update.flat(v, g, name, rate / 2, "cpu")  # noqa: E731
    monkeypatch.setattr(update, "torch", slower)
    rows = update.measure("case", values, gradients, ("SGD", 0.1), Setting(quick=True))
    assert shown(rows)["torch fused"] == "refused"
    assert next(row for row in rows if row.competitor == "torch fused").note.startswith(
        "refused: the mean size of tensor 1 is"
    )
