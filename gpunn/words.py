"""Words of Keras, PyTorch and scikit-learn that are called otherwise here: an error says what, and how to write it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from gpunn.errors import ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])
Way = tuple[str, str]  # our word, or "" where there is none, and how to write it; no text where only the name differs

_RATE: tuple[Way, ...] = (("rate", ""), ("", "give it to the optimizer: optimizer=gn.Adam(1e-3)"))
_WIDTH: tuple[Way, ...] = (
    ("inputs", ""),
    ("", "leave it out: a layer takes the width of what comes before it, the first one that of Network(inputs=)"),
)
_HELD_OUT: tuple[Way, ...] = (("validation", "write validation=(X_valid, y_valid)"),)
_EPOCHS: tuple[Way, ...] = (("epochs", ""),)
_STOP: tuple[Way, ...] = (("stopping", "write stopping=gn.EarlyStopping(patience=10), best beside validation=0.2"),)
_LOSS: tuple[Way, ...] = (("loss", "write loss= and one of gpunn's losses, such as gn.CrossEntropy()"),)
_OPTIMIZER: tuple[Way, ...] = (("optimizer", "write optimizer=gn.Adam(1e-3)"),)
_UNITS: tuple[Way, ...] = (("units", ""),)
_DROPOUT: tuple[Way, ...] = (("Dropout.rate", ""), ("", "make it a layer: gn.Dropout(0.5)"))
_DECAY: tuple[Way, ...] = (
    ("weight_decay", ""),
    ("", "say it of the whole network: fit(regularization=gn.regularization.L2(1e-4))"),
)
_BETAS: tuple[Way, ...] = (("betas", "write betas=(0.9, 0.999)"),)
_CLIP_NORM: tuple[Way, ...] = (("clip_norm", ""), ("", "give it to fit: fit(clip_norm=1.0)"))

# What is written here in place of a word: the first way whose own word the function or class has, where it names one.
FOREIGN: dict[str, tuple[Way, ...]] = {
    # Training
    "lr": _RATE,
    "learning_rate": _RATE,
    "learning_rate_init": _RATE,
    "validation_split": (("validation", ""),),
    "validation_fraction": (("validation", ""),),
    "validation_data": _HELD_OUT,
    "validation_set": _HELD_OUT,
    "eval_set": _HELD_OUT,
    "verbose": (
        ("progress", "write progress=True for a line an epoch, or progress=False for none"),
        ("", "leave it out: it shows nothing"),
    ),
    "batch": (("batch_size", ""),),
    "n_epochs": _EPOCHS,
    "nb_epoch": _EPOCHS,
    "num_epochs": _EPOCHS,
    "max_epochs": _EPOCHS,
    "max_iter": _EPOCHS,
    "shuffle": (("sampling", "write sampling='shuffle', which is the default, or sampling='sequential'"),),
    "class_weights": (("class_weight", ""),),
    "sample_weights": (("sample_weight", ""),),
    "early_stopping": _STOP,
    "patience": _STOP,
    "n_iter_no_change": (("patience", ""), *_STOP),
    "loss_fn": _LOSS,
    "loss_function": _LOSS,
    "criterion": _LOSS,
    "objective": _LOSS,
    "loss": (("", "give it to fit: fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-3))"),),
    "optim": _OPTIMIZER,
    "solver": _OPTIMIZER,
    "optimizer": (("", "give it to fit: fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-3))"),),
    "scheduler": (("", "give it to the optimizer as its rate: gn.Adam(gn.schedules.Cosine(1e-3, steps=1000))"),),
    "clipnorm": _CLIP_NORM,
    "max_grad_norm": _CLIP_NORM,
    "clipvalue": (("clip_value", ""), ("", "give it to fit: fit(clip_value=1.0)")),
    "min_delta": (("minimum_change", ""),),
    "restore_best_weights": (("", "leave it out: fit(keep='best') is the default"),),
    # Networks and layers
    "input_dim": (("Embedding.categories", ""), *_WIDTH),
    "input_shape": _WIDTH,
    "input_size": _WIDTH,
    "in_features": _WIDTH,
    "num_features": _WIDTH,
    "out_features": _UNITS,
    "output_dim": (("Embedding.width", ""), *_UNITS),
    "num_embeddings": (("categories", ""),),
    "embedding_dim": (("width", ""),),
    "kernel_initializer": (("initializer", "write initializer= and one of gn.initializers, such as He()"),),
    "use_bias": (("bias", ""),),
    "kernel_regularizer": _DECAY,
    "random_state": (("seed", ""),),
    "p": _DROPOUT,
    "dropout": _DROPOUT,
    "drop_rate": _DROPOUT,
    "stddev": (("deviation", ""),),
    "sigma": (("deviation", ""),),
    "negative_slope": (("slope", ""),),
    # Optimizers and losses
    "epsilon": (("eps", ""),),
    "weight_decay_rate": _DECAY,
    "beta_1": _BETAS,
    "beta_2": _BETAS,
    "beta1": _BETAS,
    "beta2": _BETAS,
    "label_smoothing": (("smoothing", ""),),
    "from_logits": (("", "leave it out: CrossEntropy and BinaryCrossEntropy take logits, NLLM and NLL probabilities"),),
}

LOSSES = {
    "mse": "SquaredError",
    "mean_squared_error": "SquaredError",
    "mae": "AbsoluteError",
    "mean_absolute_error": "AbsoluteError",
    "huber": "Huber",
    "bce": "BinaryCrossEntropy",
    "binary_crossentropy": "BinaryCrossEntropy",
    "crossentropy": "CrossEntropy",
    "cross_entropy": "CrossEntropy",
    "categorical_crossentropy": "CrossEntropy",
    "sparse_categorical_crossentropy": "CrossEntropy",
    "log_loss": "CrossEntropy",
    "nll": "NLLM",
}

METRICS = {
    "acc": "accuracy",
    "binary_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "root_mean_squared_error": "rmse",
    "r2_score": "r2",
    "roc_auc": "auc",
    "roc_auc_score": "auc",
    "ap": "average_precision",
    "f1_score": "f1",
    "f1_macro": "f1",
    "logloss": "log_loss",
    "neg_log_loss": "log_loss",
    "top_k_categorical_accuracy": "top_5",
}


def recorded(name: str) -> str:
    """What a history calls that which other libraries name so: "val_acc" is "validation_accuracy"."""
    part, held_out = name.removeprefix("val_"), "validation_" * name.startswith("val_")
    return f"{held_out}{METRICS.get(part, part)}"


def check_words(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse the first word that is not known, if there is anything helpful to say of it."""
    for word in given:
        if word not in known:
            _refuse(where, word, given[word], known)


def _refuse(where: str, word: str, value: Any, known: Collection[str]) -> None:
    for ours, how in FOREIGN.get(word, ()):
        owner, _, name = ours.rpartition(".")
        if not name or (name in known and owner in ("", where)):
            raise ConfigurationError(
                where,
                expected=f"{name}=" if name else f"words that {where} has",
                got=f"{word}=",
                fix=how or f"write {name}={_code(value)}",
            )
    from difflib import get_close_matches

    if close := get_close_matches(word, known, 1):
        raise TypeError(f"{where}() got an unexpected keyword argument {word!r}. Did you mean {close[0]!r}?")


def _code(value: Any) -> str:
    """A short value as one writes it."""
    plain = all(isinstance(part, (bool, int, float, str)) for part in (value if isinstance(value, tuple) else (value,)))
    return repr(value) if plain and len(repr(value)) <= 20 else "..."


def own_words(where: str) -> Callable[[Function], Function]:
    """A function or method that says of a word it does not know what is written in its place."""

    def decorated(function: Function) -> Function:
        known = frozenset(inspect.signature(function).parameters)

        @functools.wraps(function)
        def call(*arguments: Any, **words: Any) -> Any:
            if not words.keys() <= known:
                check_words(where, words, known)
            return function(*arguments, **words)

        return call  # type: ignore[return-value]

    return decorated
