"""Arguments and names of Keras, PyTorch and scikit-learn: the error says what to write instead."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import initializers, regularization, schedules, words
from gpunn.errors import ConfigurationError
from gpunn.losses import Loss
from gpunn.value import Value
from tests.faults import contents, exactly

X, Y = np.zeros((6, 4), "float32"), np.zeros(6, int)
CROSS, ADAM = gn.CrossEntropy(), gn.Adam(1e-3)


def network() -> gn.Network:
    return gn.Network([gn.Dense(2)], 4, device="cpu")


def fit(**given: Any) -> Any:
    return network().fit(X, Y, **{"loss": CROSS, "optimizer": ADAM, "epochs": 1, **given})


WIDTH = "leave it out: a layer takes the width of what comes before it, the first one that of Network(inputs=)"
STOPPING = "write stopping=gn.EarlyStopping(patience=10), best beside validation=0.2"
TO_FIT = "give it to fit: fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-3))"
ANY_LOSS = "write loss= and one of gpunn's losses, such as gn.CrossEntropy()"
PARAMETERS = "expected a rate, got a {}; an optimizer takes no parameters here: gn.{}(1e-3)"
COMPILE = "gpunn has no compile step: pass loss= and optimizer= to fit"
OPTIMIZER = "fit optimizer: expected an optimizer such as gn.Adam(1e-3)"
A_LOSS = "fit loss: expected a loss such as gn.CrossEntropy()"
NO_WIDTH = "leave the width out: a layer takes it from the one before"
WORDS: dict[str, tuple[Callable[[], Any], str]] = {
    "Adam lr": (lambda: gn.Adam(lr=0.01), "Adam: expected rate=, got lr=; write rate=0.01"),
    "SGD learning_rate": (
        lambda: gn.SGD(learning_rate=0.1, momentum=0.9), "SGD: expected rate=, got learning_rate=; write rate=0.1",
    ),
    "SGD weight_decay_rate": (
        lambda: gn.SGD(0.1, weight_decay_rate=1e-4),
        "SGD: expected weight_decay=, got weight_decay_rate=; write weight_decay=0.0001",
    ),
    "AdamW beta_1": (
        lambda: gn.AdamW(beta_1=0.9), "AdamW: expected betas=, got beta_1=; write betas=(0.9, 0.999)",
    ),
    "Adam clipnorm": (
        lambda: gn.Adam(clipnorm=1.0),
        "Adam: expected no clipnorm=, got clipnorm=1.0; give it to fit: fit(clip_norm=1.0)",
    ),
    "fit lr": (
        lambda: fit(lr=0.1),
        "fit: expected no lr=, got lr=0.1; give it to the optimizer: optimizer=gn.Adam(1e-3)",
    ),
    "fit validation_split": (
        lambda: fit(validation_split=0.2), "fit: expected validation=, got validation_split=; write validation=0.2",
    ),
    "fit validation_data": (
        lambda: fit(validation_data=(X, Y)),
        "fit: expected validation=, got validation_data=; write validation=(X_valid, y_valid)",
    ),
    "fit verbose": (
        lambda: fit(verbose=2),
        "fit: expected progress=, got verbose=; write progress=True for a line an epoch, or progress=False for none",
    ),
    "fit batch": (lambda: fit(batch=32), "fit: expected batch_size=, got batch=; write batch_size=32"),
    "fit n_epochs": (lambda: fit(n_epochs=3), "fit: expected epochs=, got n_epochs=; write epochs=3"),
    "fit nb_epoch": (lambda: fit(nb_epoch=3), "fit: expected epochs=, got nb_epoch=; write epochs=3"),
    "fit max_iter": (lambda: fit(max_iter=3), "fit: expected epochs=, got max_iter=; write epochs=3"),
    "fit shuffle": (
        lambda: fit(shuffle=False),
        "fit: expected sampling=, got shuffle=; "
        "write sampling='shuffle', which is the default, or sampling='sequential'",
    ),
    "fit class_weights": (
        lambda: fit(class_weights="balanced"),
        "fit: expected class_weight=, got class_weights=; write class_weight='balanced'",
    ),
    "fit sample_weights": (
        lambda: fit(sample_weights=np.ones(6)),
        "fit: expected sample_weight=, got sample_weights=; write sample_weight=...",
    ),
    "fit early_stopping": (
        lambda: fit(early_stopping=True), f"fit: expected stopping=, got early_stopping=; {STOPPING}",
    ),
    "fit patience": (lambda: fit(patience=3), f"fit: expected stopping=, got patience=; {STOPPING}"),
    "fit loss_fn": (lambda: fit(loss_fn=CROSS), f"fit: expected loss=, got loss_fn=; {ANY_LOSS}"),
    "fit criterion": (lambda: fit(criterion=CROSS), f"fit: expected loss=, got criterion=; {ANY_LOSS}"),
    "evaluate verbose": (
        lambda: network().evaluate(X, Y, loss=CROSS, verbose=0),
        "evaluate: expected no verbose=, got verbose=0; leave it out: it shows nothing",
    ),
    "predict batch": (
        lambda: network().predict(X, batch=2), "predict: expected batch_size=, got batch=; write batch_size=2",
    ),
    "predict_probability criterion": (
        lambda: network().predict_probability(X, criterion=CROSS),
        f"predict_probability: expected loss=, got criterion=; {ANY_LOSS}",
    ),
    "gradients loss_fn": (
        lambda: network().gradients(X, Y, loss_fn=CROSS), f"gradients: expected loss=, got loss_fn=; {ANY_LOSS}",
    ),
    "loss_of loss_fn": (
        lambda: network().loss_of(X, Y, loss_fn=CROSS), f"loss_of: expected loss=, got loss_fn=; {ANY_LOSS}",
    ),
    "Network input_dim": (
        lambda: gn.Network([gn.Dense(2)], input_dim=4), "Network: expected inputs=, got input_dim=; write inputs=4",
    ),
    "Network input_shape": (
        lambda: gn.Network([gn.Dense(2)], input_shape=(8, 8)),
        "Network: expected inputs=, got input_shape=; write inputs=(8, 8)",
    ),
    "Network optimizer": (
        lambda: gn.Network([gn.Dense(2)], optimizer="adam"),
        f"Network: expected no optimizer=, got optimizer='adam'; {TO_FIT}",
    ),
    "Network random_state": (
        lambda: gn.Network([gn.Dense(2)], random_state=3), "Network: expected seed=, got random_state=; write seed=3",
    ),
    "Dense input_dim": (
        lambda: gn.Dense(units=3, input_dim=4),
        f"Dense: expected no input_dim=, got input_dim=4; {WIDTH}",
    ),
    "Dense input_shape": (
        lambda: gn.Dense(3, input_shape=(4,)), f"Dense: expected no input_shape=, got input_shape=(4,); {WIDTH}",
    ),
    "Dense in_features": (
        lambda: gn.Dense(in_features=4, out_features=3),
        f"Dense: expected no in_features=, got in_features=4; {WIDTH}",
    ),
    "Dense out_features": (
        lambda: gn.Dense(out_features=3), "Dense: expected units=, got out_features=; write units=3",
    ),
    "Dense kernel_initializer": (
        lambda: gn.Dense(3, kernel_initializer="he_normal"),
        "Dense: expected initializer=, got kernel_initializer=; "
        "write initializer= and one of gn.initializers, such as He()",
    ),
    "Dense use_bias": (lambda: gn.Dense(3, use_bias=False), "Dense: expected bias=, got use_bias=; write bias=False"),
    "Dense dropout": (
        lambda: gn.Dense(3, dropout=0.5),
        "Dense: expected no dropout=, got dropout=0.5; make it a layer: gn.Dropout(0.5)",
    ),
    "a dropout where rate is the step's": (
        lambda: gn.Adam(dropout=0.5),
        "Adam: expected no dropout=, got dropout=0.5; make it a layer: gn.Dropout(0.5)",
    ),
    "Dropout p": (lambda: gn.Dropout(p=0.3), "Dropout: expected rate=, got p=; write rate=0.3"),
    "BatchNorm epsilon": (
        lambda: gn.BatchNorm(epsilon=1e-3), "BatchNorm: expected eps=, got epsilon=; write eps=0.001",
    ),
    "Embedding": (
        lambda: gn.Embedding(num_embeddings=9, embedding_dim=2),
        "Embedding: expected categories=, got num_embeddings=; write categories=9",
    ),
    "Embedding of Keras": (
        lambda: gn.Embedding(9, output_dim=2), "Embedding: expected width=, got output_dim=; write width=2",
    ),
    "CrossEntropy label_smoothing": (
        lambda: gn.CrossEntropy(label_smoothing=0.1),
        "CrossEntropy: expected smoothing=, got label_smoothing=; write smoothing=0.1",
    ),
    "BinaryCrossEntropy from_logits": (
        lambda: gn.BinaryCrossEntropy(from_logits=True),
        "BinaryCrossEntropy: expected no from_logits=, got from_logits=True; "
        "leave it out: CrossEntropy and BinaryCrossEntropy take logits, NLLM and NLL probabilities",
    ),
    "EarlyStopping min_delta": (
        lambda: gn.EarlyStopping(5, min_delta=0.01),
        "EarlyStopping: expected minimum_change=, got min_delta=; write minimum_change=0.01",
    ),
    "fit seed": (
        lambda: fit(seed=3), "fit: expected no seed=, got seed=3; give it to the network: gn.Network(layers, seed=0)",
    ),
    "fit random_state": (
        lambda: fit(random_state=3),
        "fit: expected no random_state=, got random_state=3; give it to the network: gn.Network(layers, seed=0)",
    ),
    "fit weight_decay": (
        lambda: fit(weight_decay=1e-4),
        "fit: expected regularization=, got weight_decay=; "
        "write regularization=gn.regularization.L2(1e-4), or give it to the optimizer",
    ),
    "fit momentum": (
        lambda: fit(momentum=0.9),
        "fit: expected no momentum=, got momentum=0.9; give it to the optimizer: optimizer=gn.SGD(0.1, momentum=0.9)",
    ),
    "fit steps_per_epoch": (
        lambda: fit(steps_per_epoch=10),
        "fit: expected no steps_per_epoch=, got steps_per_epoch=10; "
        "leave it out: an epoch goes through all rows once; batch_size= says in how many steps",
    ),
    "fit early_stop": (lambda: fit(early_stop=True), f"fit: expected stopping=, got early_stop=; {STOPPING}"),
    "load map_location": (
        lambda: gn.load("none.gpunn", map_location="cpu"),
        "load: expected device=, got map_location=; write device='cpu'",
    ),
    "Cosine T_max": (
        lambda: schedules.Cosine(1e-3, T_max=100), "Cosine: expected steps=, got T_max=; write steps=100",
    ),
    "Adam params": (
        lambda: gn.Adam(params=[], lr=0.1),
        "Adam: expected no params=, got params=...; leave it out: fit gives the optimizer the network's parameters",
    ),
    "parameters and lr": (
        lambda: gn.Adam(network().parameters, lr=1e-3), f"Adam: {PARAMETERS.format('Views', 'Adam')}",
    ),
    "parameters and a rate": (
        lambda: gn.SGD(network().parameters, 0.1), f"SGD: {PARAMETERS.format('Views', 'SGD')}",
    ),
    "a list of parameters": (
        lambda: gn.SGD(list(network().parameters.values()), 0.1), f"SGD: {PARAMETERS.format('list', 'SGD')}",
    ),
    "parameters as a call": (
        lambda: gn.SGD(network().parameters(), lr=0.1),
        "Network.parameters: expected no parentheses, got a call; "
        "it is a mapping from names to arrays; an optimizer takes no parameters here: gn.Adam(1e-3)",
    ),
    "compile": (
        lambda: network().compile(optimizer="adam", loss="mse"),
        f"Network.compile: expected a number of rows, got optimizer='adam', loss='mse'; {COMPILE}",
    ),
    "compile in order": (
        lambda: network().compile("adam", "mse"),
        f"Network.compile: expected a number of rows, got 'adam', 'mse'; {COMPILE}",
    ),
    "compile nothing": (
        lambda: network().compile(), f"Network.compile: expected a number of rows, got nothing; {COMPILE}",
    ),
    # Values
    "a width as eps": (lambda: gn.BatchNorm(64), f"BatchNorm eps: expected a number below 1, got 64; {NO_WIDTH}"),
    "of LayerNorm": (lambda: gn.LayerNorm(64), f"LayerNorm eps: expected a number below 1, got 64; {NO_WIDTH}"),
    "of RMSNorm": (lambda: gn.RMSNorm(1), f"RMSNorm eps: expected a number below 1, got 1; {NO_WIDTH}"),
    "Adam epsilon": (
        lambda: gn.Adam(epsilon=1e-7), "Adam epsilon: expected 'pytorch' or 'hat', got 1e-07; write eps=1e-07",
    ),
    "optimizer by name": (lambda: fit(optimizer="adam"), f"{OPTIMIZER}, got 'adam'; write gn.Adam(1e-3)"),
    "optimizer of no name": (
        lambda: fit(optimizer="newton"), f"{OPTIMIZER}, got 'newton'; pass one of gpunn's optimizers",
    ),
    "loss by name": (lambda: fit(loss="mse"), f"{A_LOSS}, got 'mse'; write gn.SquaredError()"),
    "loss of no name": (lambda: fit(loss="hinge"), f"{A_LOSS}, got 'hinge'; pass one of gpunn's losses"),
    "monitor": (
        lambda: fit(stopping=gn.EarlyStopping(monitor="val_loss"), validation=(X, Y)),
        "EarlyStopping: expected one of the recorded names loss, validation_loss, seconds, got 'val_loss'; "
        "write 'validation_loss'",
    ),
    "monitor a metric": (
        lambda: fit(stopping=gn.EarlyStopping(monitor="val_acc"), validation=(X, Y), metrics=["accuracy"]),
        "EarlyStopping: expected one of the recorded names loss, accuracy, validation_loss, validation_accuracy, "
        "seconds, got 'val_acc'; write 'validation_accuracy'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_the_error_for_an_argument_of_another_library_names_ours(case: str) -> None:
    call, message = WORDS[case]
    with pytest.raises(ConfigurationError, match=exactly(message)):
        call()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("nll_loss", "CrossEntropy"), ("MSELoss", "SquaredError"), ("L1Loss", "AbsoluteError"),
        ("CrossEntropyLoss", "CrossEntropy"), ("BCEWithLogitsLoss", "BinaryCrossEntropy"), ("BCELoss", "NLL"),
        ("binary_crossentropy", "BinaryCrossEntropy"), ("categorical_crossentropy", "CrossEntropy"),
        ("SparseCategoricalCrossentropy", "CrossEntropy"), ("huber_loss", "Huber"),
    ],
)  # fmt: skip
def test_the_error_for_a_loss_of_another_library_names_ours(name: str, ours: str) -> None:
    """As text in `fit`, and as an attribute of `gn`."""
    ends = {
        "CrossEntropy": ", or gn.NLLM() where the network ends in softmax",
        "BinaryCrossEntropy": ", or gn.NLL() where the network ends in sigmoid",
    }
    fix = f"write gn.{ours}(){ends.get(ours, '')}"
    message = f"fit loss: expected a loss such as gn.CrossEntropy(), got {name!r}; {fix}"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        fit(loss=name)
    with pytest.raises(AttributeError, match=exactly(f"module 'gpunn' has no {name!r}: {fix}")):
        getattr(gn, name)


def test_the_error_for_a_class_of_another_library_names_ours() -> None:
    for name, ours in (("Linear", "Dense"), ("BatchNorm1d", "BatchNorm"), ("Conv2d", "Dense"), ("Model", "Network")):
        with pytest.raises(AttributeError, match=rf"^module 'gpunn' has no '{name}': .*gn\.{ours}\("):
            getattr(gn, name)
    with pytest.raises(AttributeError, match="^module 'gpunn' has no attribute 'unheard'$"):
        gn.unheard  # noqa: B018
    assert not {*words.NAMES, *words.LOSSES} & {*gn.__all__, *vars(gn)}


def test_the_error_for_a_method_of_another_library_names_ours() -> None:
    net = network()
    for name, ours in (("predict_proba", "predict_probability"), ("score", "evaluate"), ("train", "fit")):
        with pytest.raises(AttributeError, match=f"^Network has no '{name}': write {ours}"):
            getattr(net, name)
    with pytest.raises(AttributeError, match="^Network has no attribute 'unheard'$"):
        net.unheard  # noqa: B018
    assert not any(hasattr(net, name) for name in ("__array__", "__wrapped__", "_repr_html_", *words.METHODS))
    for twin in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert contents(twin) == contents(net)
    assert not hasattr(object.__new__(gn.Network), "network")  # as copy and pickle make it


def test_parameters_of_a_network_are_a_read_only_mapping() -> None:
    net = network()
    assert dict(net.parameters).keys() == {"0.W", "0.b"}
    assert len(net.parameters) == 2
    assert repr(net.state) == "Views({})"
    with pytest.raises(TypeError, match="does not support item assignment"):
        net.parameters["0.W"] = X  # type: ignore[index]


def test_an_unknown_argument_of_fit_trains_nothing() -> None:
    net = network()
    before = contents(net)
    with pytest.raises(ConfigurationError, match="^fit: expected epochs="):
        net.fit(X, Y, loss=CROSS, optimizer=ADAM, n_epochs=3)  # type: ignore[call-arg]
    assert contents(net) == before


def constructors() -> dict[str, type]:
    """Every public class that is a value, and Network."""
    spaces = (gn, initializers, regularization, schedules)
    found = [value for space in spaces for value in vars(space).values() if inspect.isclass(value)]
    values = [cls for cls in found if issubclass(cls, Value) and "__init__" in vars(cls)]
    return {cls.__name__: cls for cls in [*values, gn.Network]}


CONSTRUCTORS = constructors()


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_every_constructor_answers_arguments_of_other_libraries(name: str) -> None:
    """Each foreign argument that a constructor does not have is answered with one that it has, or with advice."""
    cls = CONSTRUCTORS[name]
    known = set(inspect.signature(cls).parameters)
    for word in words.FOREIGN.keys() - known:
        with pytest.raises((ConfigurationError, TypeError)) as caught:
            cls(**{word: 1})
        if isinstance(caught.value, ConfigurationError):
            assert caught.value.expected.removesuffix("=") in known | {f"no {word}"}
        else:
            assert f"unexpected keyword argument '{word}'" in str(caught.value)


def test_every_loss_and_optimizer_by_name_exists() -> None:
    for name in words.LOSSES.values():
        assert issubclass(getattr(gn, name), Loss)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gn.Dense(unit=3), r"^Dense\(\) got an unexpected keyword argument 'unit'. Did you mean 'units'\?$"),
        (lambda: gn.Dense(3, unheard=3), "unexpected keyword argument 'unheard'$"),
        (lambda: fit(epoch=3), r"^fit\(\) got an unexpected keyword argument 'epoch'. Did you mean 'epochs'\?$"),
        (lambda: fit(unheard=3), "unexpected keyword argument 'unheard'$"),
        (lambda: gn.Network([gn.Dense(2)], input=4), r"'input'. Did you mean 'inputs'\?$"),
        (lambda: gn.Network([gn.Dense(2)], 4, unheard=4), "unexpected keyword argument 'unheard'$"),
    ],
)
def test_an_unknown_argument_is_a_type_error(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_values_with_checked_arguments_are_copied_pickled_and_replaced() -> None:
    for value in (gn.Dense(3, "relu", bias=False), gn.Adam(1e-2, eps=1e-6), gn.Residual([gn.Dense(4)]), CROSS):
        for twin in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value)), replace(value)):
            assert type(twin) is type(value)
            assert twin == value
    assert replace(gn.Dense(3), units=4) == gn.Dense(4)
    assert str(inspect.signature(gn.Dropout)) == "(rate: 'float | tuple[float, ...]' = 0.5) -> None"
    assert list(inspect.signature(gn.Network.fit).parameters)[:3] == ["self", "X", "y"]


def test_a_value_without_fields_takes_no_arguments() -> None:
    for given, named in (((3,), {}), ((), {"gain": 3})):
        with pytest.raises(TypeError, match=r"^Initializer\(\) takes no arguments$"):
            initializers.Initializer(*given, **named)  # type: ignore[call-arg]


def test_a_user_defined_value_may_take_any_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Value, "known", dict(Value.known))

    class Free(gn.Identity):
        def __init__(self, lr: float = 0.0, **others: Any) -> None:
            object.__setattr__(self, "given", {"lr": lr, **others})

    assert vars(Free(lr=1.0, verbose=2))["given"] == {"lr": 1.0, "verbose": 2}

    @dataclass(frozen=True)
    class Own(gn.Identity):
        lr: float = 0.5

    assert Own(lr=2.0).lr == 2.0
    assert type(gn.Activation("identity").resolved) is gn.Identity  # which is not replaced by one without a name
    with pytest.raises(TypeError, match="Did you mean 'lr'"):
        Own(lrr=2.0)  # type: ignore[call-arg]
