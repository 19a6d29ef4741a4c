"""Parameters that scikit-learn's perceptrons do not have: each does what it does in gpunn's own training."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.preprocessing import scale

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError
from gpunn.estimators import MLPClassifier, MLPRegressor
from gpunn.estimators.regressor import determination
from gpunn.layers.activation import Nonlinearity
from gpunn.regularization import HalfL2

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
IMAGES, DIGITS = load_digits(return_X_y=True)
IMAGES, DIGITS = IMAGES[:400] / 16.0, DIGITS[:400]
X, Y = load_diabetes(return_X_y=True)
Y = scale(Y)


def classifier(**options: Any) -> Any:
    return MLPClassifier(**{"max_iter": 4, "random_state": 0, "device": "cpu", **options})


def regressor(**options: Any) -> Any:
    return MLPRegressor(**{"max_iter": 4, "random_state": 0, "device": "cpu", **options})


def same_start(e: Any, X: Any, y: Any) -> gn.Network:
    """A network with the layers of the estimator and the weights that it starts with."""
    e = e.__class__(**{**e.get_params(), "max_iter": 1, "learning_rate_init": 1e-300, "alpha": 0.0, "optimizer": None})
    e.set_params(solver="adam", epsilon=1.0).fit(X, y)
    return pickle.loads(pickle.dumps(e.network_))


def test_an_estimator_builds_the_layers_that_its_parameters_ask_for() -> None:
    e = classifier(hidden_layer_sizes=(8, 6), dropout=(0.0, 0.3), batch_norm=True, input_noise=0.1, activation="gelu")
    assert e.fit(IMAGES, DIGITS).network_.network.layers == (
        gn.GaussianNoise(0.1), gn.Dense(8), gn.BatchNorm(activation=gn.GELU()), gn.Dense(6),
        gn.BatchNorm(activation=gn.GELU()), gn.Dropout(0.3), gn.Dense(10),
    )  # fmt: skip
    assert [W.shape for W in e.coefs_] == [(64, 8), (8, 6), (6, 10)] and e.n_layers_ == 4
    plain = classifier(hidden_layer_sizes=[8, 6], dropout=0.25).fit(IMAGES, DIGITS)
    assert [layer for layer in plain.network_.network.layers if isinstance(layer, gn.Dropout)] == [gn.Dropout(0.25)] * 2


@pytest.mark.parametrize("activation", [*sorted(Nonlinearity.named), "logistic", gn.LeakyReLU(0.2)], ids=str)
def test_an_estimator_takes_every_activation_and_starts_as_suits_it(activation: Any) -> None:
    e = classifier(activation=activation, hidden_layer_sizes=(12,), max_iter=2).fit(IMAGES, DIGITS)
    wanted = gn.Dense(
        12, {"logistic": "sigmoid"}.get(activation, activation) if isinstance(activation, str) else activation
    )
    assert e.network_.network.layers[0].function == wanted.function
    bound = np.sqrt((2.0 if activation in ("logistic", "sigmoid") else 6.0) / 76)
    start = same_start(e, IMAGES, DIGITS).parameters["0.W"]
    assert 0.95 * bound < np.abs(start).max() <= bound


@pytest.mark.parametrize(
    "optimizer",
    [gn.AdamW(1e-3, weight_decay=0.1), gn.Lion(1e-4), gn.RMSprop(1e-3), gn.SGD(0.1, momentum=0.5)],
    ids=repr,
)
def test_an_estimator_with_any_optimizer_trains_as_a_network_does(optimizer: Any) -> None:
    """The penalty is α / n, where n is the number of examples in a batch; all batches have one size here."""
    e = classifier(optimizer=optimizer, alpha=0.5, batch_size=80, shuffle=False).fit(IMAGES, DIGITS)
    net = same_start(e, IMAGES, DIGITS)
    history = net.fit(
        IMAGES, DIGITS, loss=gn.CrossEntropy(), optimizer=optimizer, epochs=4, batch_size=80, sampling="sequential",
        regularization=HalfL2(0.5 / 80), keep="last",
    )  # fmt: skip
    np.testing.assert_allclose(e.network_.vector, net.vector, rtol=0, atol=1e-10)
    assert (np.array(e.loss_curve_) > history.loss).all()  # it has the penalty in it


def test_an_estimator_with_gpunns_lbfgs_trains_as_a_network_does() -> None:
    weight = np.linspace(0.1, 3.0, len(X))
    e = regressor(optimizer=gn.LBFGS(), alpha=0.5, hidden_layer_sizes=(6,), max_iter=5).fit(X, Y, weight)
    net = same_start(e, X, Y)
    net.fit(
        X, Y[:, None], loss=gn.SquaredError(), optimizer=gn.LBFGS(), epochs=5, batch_size=len(X), keep="last",
        sampling="sequential", sample_weight=weight / weight.mean() / 2.0, regularization=HalfL2(0.5 / weight.sum()),
    )  # fmt: skip
    np.testing.assert_allclose(e.network_.vector, net.vector, rtol=0, atol=1e-8)
    squares = sum((W**2).sum() for W in e.coefs_)
    loss = (weight * (e.predict(X) - Y) ** 2).sum() / weight.sum() / 2.0 + 0.25 * squares / weight.sum()
    assert e.loss_ == pytest.approx(loss, rel=1e-8)
    assert not hasattr(e, "partial_fit") and len(e.loss_curve_) == 5


def test_an_estimator_takes_a_schedule_for_its_rate() -> None:
    """With a rate of 0 from the second epoch on the weights stay those after the first."""
    once = classifier(max_iter=1).fit(IMAGES, DIGITS)
    for options in ({}, {"solver": "sgd", "learning_rate_init": 0.1}, {"optimizer": gn.RMSprop()}):
        once = classifier(max_iter=1, **options).fit(IMAGES, DIGITS)
        rate = {"solver": once.learning_rate_init}.get("solver") if not options.get("optimizer") else 1e-2
        once = classifier(max_iter=1, schedule=rate, **options).fit(IMAGES, DIGITS)
        frozen = classifier(schedule=gn.schedules.Sequence([rate] * 2 + [0.0] * 6), momentum=0.0, **options)
        if "solver" in options:
            once.set_params(momentum=0.0).fit(IMAGES, DIGITS)
        frozen.fit(IMAGES, DIGITS)
        np.testing.assert_allclose(frozen.network_.vector, once.network_.vector, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(frozen.history_["rate"], [rate, 0.0, 0.0, 0.0])


def test_a_schedule_of_an_estimator_goes_on_through_partial_fit() -> None:
    e = classifier(schedule=lambda t: 1e-3 / (t + 1))
    for start in range(0, 400, 100):
        e.partial_fit(IMAGES[start : start + 100], DIGITS[start : start + 100], classes=np.arange(10))
    assert e.history_["rate"].tolist() == [1e-3 / 4]


@pytest.mark.parametrize("loss", ["absolute_error", "huber", gn.Huber(0.3), gn.AbsoluteError()], ids=str)
def test_a_regressor_takes_every_loss_of_numbers(loss: Any) -> None:
    """The reported loss is that at the start of the epoch, with the penalty."""
    e = regressor(loss=loss, max_iter=1, batch_size=len(X), alpha=2.0)
    start = same_start(e, X, Y)
    e.fit(X, Y)
    public = {"absolute_error": gn.AbsoluteError(), "huber": gn.Huber()}.get(str(loss), loss)
    squares = sum((start.parameters[name] ** 2).sum() for name in ("0.W", "1.W"))
    assert e.loss_ == pytest.approx(start.loss_of(X, Y[:, None], public) + squares / len(X), rel=1e-12)
    assert e.network_.loss == public
    several = regressor(loss=loss, max_iter=2).fit(X, np.c_[Y, -Y])
    assert several.predict(X).shape == (len(X), 2)


def test_outliers_disturb_a_regressor_with_huber_less() -> None:
    far = Y.copy()
    far[::20] += 100.0
    scores = {loss: regressor(loss=loss, max_iter=150).fit(X, far).score(X, Y) for loss in ("squared_error", "huber")}
    assert scores["huber"] > scores["squared_error"] + 0.5


def test_a_classifier_takes_a_cross_entropy_with_smoothing() -> None:
    smooth = classifier(loss=gn.CrossEntropy(smoothing=0.2), max_iter=60, learning_rate_init=0.01).fit(IMAGES, DIGITS)
    sharp = classifier(max_iter=60, learning_rate_init=0.01).fit(IMAGES, DIGITS)
    assert smooth.predict_proba(IMAGES).max() < 0.95 < sharp.predict_proba(IMAGES).max()
    two = classifier(loss=gn.CrossEntropy()).fit(IMAGES, DIGITS % 2)
    assert two.n_outputs_ == 2 and two.out_activation_ == "softmax"
    assert two.predict_proba(IMAGES).shape == (400, 2) and set(two.predict(IMAGES)) <= {0, 1}


def test_the_class_weight_of_a_classifier_multiplies_the_weights_of_rows() -> None:
    rare = np.flatnonzero((DIGITS != 3) | (np.arange(400) % 8 == 0))
    A, y = IMAGES[rare], DIGITS[rare]
    weights = {c: len(y) / (10 * (y == c).sum()) for c in range(10)}
    balanced = classifier(class_weight="balanced").fit(A, y)
    for other in (classifier(class_weight=weights).fit(A, y), classifier().fit(A, y, [weights[c] for c in y])):
        np.testing.assert_allclose(balanced.network_.vector, other.network_.vector, rtol=0, atol=1e-12)
    assert np.abs(balanced.network_.vector - classifier().fit(A, y).network_.vector).max() > 1e-4
    half = np.full(len(y), 0.5)
    some = classifier(class_weight={3: 4.0}).fit(A, y, half)
    same = classifier().fit(A, y, np.where(y == 3, 2.0, 0.5))
    np.testing.assert_allclose(some.network_.vector, same.network_.vector, rtol=0, atol=1e-12)


def test_an_estimator_records_loss_and_score_on_validation_data() -> None:
    """Loss and score of the given set are recorded, and early stopping then holds no rows back."""
    train, held_out = (IMAGES[:300], DIGITS[:300]), (IMAGES[300:], DIGITS[300:])
    e = classifier(validation_data=held_out).fit(*train)
    assert len(e.validation_loss_curve_) == len(e.validation_scores_) == 4 and e.best_loss_ == min(e.loss_curve_)
    assert e.validation_scores_[-1] == e.score(*held_out)
    assert e.validation_loss_curve_[-1] == pytest.approx(e.network_.loss_of(*held_out, gn.CrossEntropy()), rel=1e-12)
    np.testing.assert_array_equal(e.network_.vector, classifier().fit(*train).network_.vector)
    weight = np.linspace(0.0, 1.0, 100)
    weighted = classifier(validation_data=(*held_out, weight)).fit(*train)
    assert weighted.validation_scores_[-1] == pytest.approx(e.score(*held_out, weight))
    own = -np.log(e.predict_proba(held_out[0])[np.arange(100), held_out[1]])
    assert weighted.validation_loss_curve_[-1] == pytest.approx(np.average(own, weights=weight), rel=1e-9)
    stopped = classifier(validation_data=held_out, early_stopping=True, max_iter=60, n_iter_no_change=2).fit(*train)
    assert stopped.t_ == 300 * stopped.n_iter_ and stopped.n_iter_ < 60
    assert stopped.score(*held_out) == stopped.best_validation_score_ == max(stopped.validation_scores_)
    assert stopped.history_.best_epoch == 1 + int(np.argmax(stopped.validation_scores_))


@pytest.mark.parametrize("weight", [None, np.linspace(0.0, 2.0, 20)], ids=["alike", "weighted"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_validation_score_of_a_regressor_is_the_r2_of_scikit_learn(outputs: int, weight: Any) -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.normal(size=(2, 20, outputs))
    constant = np.ones((20, outputs))
    y = y[:, 0] if outputs == 1 else y
    for truth, told in ((y, predicted), (constant, predicted), (constant, constant), (predicted, predicted)):
        assert determination(truth, told, weight) == pytest.approx(
            r2_score(truth, told, sample_weight=weight), rel=1e-12
        )


def test_a_regressor_records_loss_and_score_on_validation_data() -> None:
    held_out = X[300:], np.c_[Y, -2.0 * Y][300:]
    e = regressor(validation_data=held_out).fit(X[:300], np.c_[Y, -2.0 * Y][:300])
    assert e.validation_scores_[-1] == pytest.approx(e.score(*held_out))
    assert e.validation_loss_curve_[-1] == pytest.approx(((e.predict(held_out[0]) - held_out[1]) ** 2).mean() / 2)


@pytest.mark.parametrize("given", [True, False])
def test_early_stopping_in_partial_fit_restores_the_best_weights(given: bool) -> None:
    """The best weights come back after more calls than n_iter_no_change that were no better; then nothing changes."""
    held_out = (IMAGES[300:], DIGITS[300:])
    options = {"validation_data": held_out} if given else {"validation_fraction": 0.3}
    e = classifier(early_stopping=True, n_iter_no_change=3, learning_rate_init=0.02, **options)
    vectors = []
    for _ in range(60):
        e.partial_fit(IMAGES[:300], DIGITS[:300], classes=np.arange(10))
        vectors.append(e.network_.vector.copy())
        e = pickle.loads(pickle.dumps(e))
    calls = len(e.loss_curve_)
    assert 5 < calls < 60
    best = int(np.argmax(e.validation_scores_))
    assert calls - best > 3
    for vector in vectors[calls - 1 :]:
        np.testing.assert_array_equal(vector, vectors[best])
    if given:
        assert e.score(*held_out) == e.best_validation_score_
    else:
        assert e.t_ == calls * 300 - 90  # the first call keeps its part back


def test_an_estimator_calls_its_callbacks() -> None:
    seen: list[Any] = []
    flow = gn.GradientFlow()
    classifier(callbacks=[lambda epoch, record: seen.append((epoch, float(record["loss"][0]))), flow]).fit(
        IMAGES, DIGITS
    )
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4] and flow.epochs == [1, 2, 3, 4]

    class Enough(gn.Callback):
        def on_epoch(self, run: Any, record: Any) -> None:
            if run.epoch == 2:
                run.stop("enough")

    e = classifier(callbacks=Enough()).fit(IMAGES, DIGITS)
    assert e.n_iter_ == 2 and e.history_.stopped == "enough"
    np.testing.assert_array_equal(e.network_.vector, classifier(max_iter=2).fit(IMAGES, DIGITS).network_.vector)


def test_the_dtype_of_an_estimator_decides_that_of_weights_and_probabilities() -> None:
    for given, dtype, wanted in (
        ("f8", None, "f8"),
        ("f4", None, "f4"),
        ("f8", "float32", "f4"),
        ("f4", "float64", "f8"),
    ):
        e = classifier(dtype=dtype).fit(IMAGES.astype(given), DIGITS)
        assert e.coefs_[0].dtype == e.predict_proba(IMAGES).dtype == np.dtype(wanted)
    assert classifier(solver="lbfgs").fit(IMAGES.astype("f4"), DIGITS).coefs_[0].dtype == np.float64


def test_dropout_and_noise_of_an_estimator_depend_on_random_state_alone() -> None:
    for options in ({"dropout": 0.5}, {"input_noise": 0.5}):
        one, other = (classifier(**options).fit(IMAGES, DIGITS) for _ in range(2))
        np.testing.assert_array_equal(one.network_.vector, other.network_.vector)
        plain = classifier().fit(IMAGES, DIGITS)
        assert np.abs(plain.network_.vector - one.network_.vector).max() > 1e-3
        np.testing.assert_array_equal(same_start(one, IMAGES, DIGITS).vector, same_start(plain, IMAGES, DIGITS).vector)


def test_a_verbose_estimator_prints_losses_scores_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    classifier(verbose=True, early_stopping=True, tol=1.0, n_iter_no_change=1).fit(IMAGES, DIGITS)
    told = capsys.readouterr().out
    assert "epoch 1: loss 2." in told and "validation score 0." in told and "training ends" in told
    classifier(verbose=True, solver="sgd", learning_rate="adaptive", tol=1.0, n_iter_no_change=1).fit(IMAGES, DIGITS)
    assert "the rate is now 0.0002" in capsys.readouterr().out
    classifier(verbose=True, solver="lbfgs").fit(IMAGES, DIGITS)
    assert "lbfgs: loss" in capsys.readouterr().out
    classifier().fit(IMAGES, DIGITS)
    assert not capsys.readouterr().out


def test_an_adaptive_rate_ends_the_training_once_it_is_small() -> None:
    e = classifier(solver="sgd", learning_rate="adaptive", learning_rate_init=1e-4, tol=10.0, n_iter_no_change=1,
                   max_iter=100).fit(IMAGES, DIGITS)  # fmt: skip
    rates = e.history_["rate"]
    assert e.n_iter_ < 20 and 1e-7 < rates[-1] <= 1e-6 and rates[0] == 1e-4


def test_a_classifier_of_one_class_predicts_it_with_certainty() -> None:
    e = classifier().fit(IMAGES, np.full(400, 7))
    assert (e.predict(IMAGES) == 7).all() and (e.predict_proba(IMAGES) == 1.0).all()


def test_an_estimator_whose_weights_are_not_finite_raises_an_error() -> None:
    with pytest.raises(DataError, match="weights that stay finite, got non-finite loss at epoch"):
        regressor(solver="sgd", learning_rate_init=1e3, max_iter=50).fit(1e3 * X, 1e3 * Y)


def test_an_estimator_makes_no_step_for_a_batch_without_weight() -> None:
    weight = np.r_[np.ones(200), np.zeros(200)]
    options = {"optimizer": gn.SGD(0.1), "batch_size": 200, "shuffle": False, "max_iter": 1, "alpha": 1.0}
    e = classifier(**options).fit(IMAGES, DIGITS, weight)
    first = classifier(**options).fit(IMAGES[:200], DIGITS[:200])
    np.testing.assert_allclose(e.network_.vector, first.network_.vector, rtol=0, atol=1e-12)


def test_a_warm_start_refuses_other_layers() -> None:
    e = classifier(warm_start=True).fit(IMAGES, DIGITS)
    e.set_params(hidden_layer_sizes=(7,))
    with pytest.raises(ConfigurationError, match="warm_start and partial_fit: expected the layers that there are"):
        e.fit(IMAGES, DIGITS)
    assert e.set_params(warm_start=False).fit(IMAGES, DIGITS).coefs_[0].shape == (64, 7)


def test_an_estimator_warns_if_it_has_not_converged() -> None:
    with pytest.warns(ConvergenceWarning, match="4 epochs were not enough to converge; raise max_iter"):
        classifier().fit(IMAGES, DIGITS)
    with pytest.warns(ConvergenceWarning, match="lbfgs did not converge"):
        classifier(solver="lbfgs").fit(IMAGES, DIGITS)
    with pytest.warns(UserWarning, match="batch_size=500 is more than the 400 examples"):
        classifier(batch_size=500).fit(IMAGES, DIGITS)
