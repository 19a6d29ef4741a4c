"""Words of Keras, PyTorch and scikit-learn that have other names here; errors say what to write instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from gpunn.errors import ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])
Way = tuple[str, str]  # our word, or "" if there is none; and how to write it, or "" if only the name differs

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
_SEED: tuple[Way, ...] = (("seed", ""), ("", "give it to the network: gn.Network(layers, seed=0)"))
_STEPS: tuple[Way, ...] = (("steps", ""),)
_PARAMETERS: tuple[Way, ...] = (("", "leave it out: fit gives the optimizer the network's parameters"),)
_CLIP_NORM: tuple[Way, ...] = (("clip_norm", ""), ("", "give it to fit: fit(clip_norm=1.0)"))

# What to write instead of a word: the first way that fits, whose word the function or class has, or that has none.
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
    "early_stop": _STOP,
    "steps_per_epoch": (("", "leave it out: an epoch goes through all rows once; batch_size= says in how many steps"),),
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
    "random_state": _SEED,
    "seed": _SEED,
    "map_location": (("device", ""),),
    "p": _DROPOUT,
    "dropout": _DROPOUT,
    "drop_rate": _DROPOUT,
    "stddev": (("deviation", ""),),
    "sigma": (("deviation", ""),),
    "negative_slope": (("slope", ""),),
    # Optimizers and losses
    "params": _PARAMETERS,
    "parameters": _PARAMETERS,
    "momentum": (("", "give it to the optimizer: optimizer=gn.SGD(0.1, momentum=0.9)"),),
    "weight_decay": (
        ("regularization", "write regularization=gn.regularization.L2(1e-4), or give it to the optimizer"),
        *_DECAY,
    ),
    "T_max": _STEPS,
    "decay_steps": _STEPS,
    "total_steps": _STEPS,
    "epsilon": (("eps", ""),),
    "weight_decay_rate": _DECAY,
    "beta_1": _BETAS,
    "beta_2": _BETAS,
    "beta1": _BETAS,
    "beta2": _BETAS,
    "label_smoothing": (("smoothing", ""),),
    "from_logits": (("", "leave it out: CrossEntropy and BinaryCrossEntropy take logits, NLLM and NLL probabilities"),),
}

# Names of losses in Keras and PyTorch, as text, function or class, in small letters.
LOSSES = {
    "mse": "SquaredError",
    "mseloss": "SquaredError",
    "mse_loss": "SquaredError",
    "mean_squared_error": "SquaredError",
    "meansquarederror": "SquaredError",
    "squared_error": "SquaredError",
    "mae": "AbsoluteError",
    "l1loss": "AbsoluteError",
    "l1_loss": "AbsoluteError",
    "mean_absolute_error": "AbsoluteError",
    "meanabsoluteerror": "AbsoluteError",
    "absolute_error": "AbsoluteError",
    "huber": "Huber",
    "huberloss": "Huber",
    "huber_loss": "Huber",
    "smoothl1loss": "Huber",
    "smooth_l1_loss": "Huber",
    "bce": "BinaryCrossEntropy",
    "binarycrossentropy": "BinaryCrossEntropy",
    "binary_crossentropy": "BinaryCrossEntropy",
    "binary_cross_entropy": "BinaryCrossEntropy",
    "binary_cross_entropy_with_logits": "BinaryCrossEntropy",
    "bcewithlogitsloss": "BinaryCrossEntropy",
    "bceloss": "NLL",
    "crossentropy": "CrossEntropy",
    "crossentropyloss": "CrossEntropy",
    "cross_entropy": "CrossEntropy",
    "categoricalcrossentropy": "CrossEntropy",
    "categorical_crossentropy": "CrossEntropy",
    "sparsecategoricalcrossentropy": "CrossEntropy",
    "sparse_categorical_crossentropy": "CrossEntropy",
    "log_loss": "CrossEntropy",
    "nllloss": "CrossEntropy",  # after a log-softmax
    "nll_loss": "CrossEntropy",
    "nll": "NLLM",
}
AFTER = {  # what to use instead of these losses if the network ends in an activation
    "BinaryCrossEntropy": ", or gn.NLL() where the network ends in sigmoid",
    "CrossEntropy": ", or gn.NLLM() where the network ends in softmax",
}

_NO_IMAGES = "it has layers for tables and vectors, such as gn.Dense(100, 'relu')"
# Names in other libraries that `gn` does not have, without losses.
NAMES = {
    "Linear": "write gn.Dense(units, activation)",
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNormalization"), "write gn.BatchNorm()"),
    "LayerNormalization": "write gn.LayerNorm()",
    **dict.fromkeys(("Dropout1d", "Dropout2d", "AlphaDropout"), "write gn.Dropout(0.5)"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d", "Conv1D", "Conv2D", "Conv3D"), _NO_IMAGES),
    **dict.fromkeys(("MaxPool2d", "AvgPool2d", "MaxPooling2D", "AveragePooling2D"), _NO_IMAGES),
    **dict.fromkeys(("RNN", "LSTM", "GRU", "MultiheadAttention", "MultiHeadAttention", "Transformer"), _NO_IMAGES),
    **dict.fromkeys(("Model", "NeuralNetwork"), "write gn.Network([gn.Dense(100, 'relu'), gn.Dense(10)])"),
    "Module": "derive a layer of ones own from gn.Layer",
    **dict.fromkeys(("Input", "InputLayer"), "write gn.Network(layers, inputs=width), or leave the width out"),
    **dict.fromkeys(("Add", "Concatenate"), "write gn.Branch(layers, merge='add' or 'concatenate')"),
    "ModelCheckpoint": "write fit(checkpoint='run.gpunn')",
    "ReduceLROnPlateau": "write fit(plateau=gn.schedules.ReduceOnPlateau())",
    "CosineAnnealingLR": "write gn.Adam(gn.schedules.Cosine(1e-3, steps=1000))",
    "DataLoader": "give the arrays to fit: fit(X, y, batch_size=128)",
    "load_model": "write gn.load(path)",
}

_FIT = "write fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-3))"
_NO_MODE = "leave it out: fit trains, and predict and evaluate do not"
# Names in networks of other libraries that `Network` does not have.
METHODS = {
    "predict_proba": "write predict_probability",
    "predict_classes": "write predict(X).argmax(axis=-1)",
    "score": "write evaluate(X, y, metrics=['accuracy'])",
    "partial_fit": _FIT,
    "train_on_batch": _FIT,
    "train": f"{_FIT}; {_NO_MODE}",
    "eval": _NO_MODE,
    "forward": "write predict",
    "backward": "write gradients(X, y, loss)",
    "zero_grad": "leave it out: gradients are made new for each batch",
    "named_parameters": "write parameters, a mapping from names to arrays",
    "weights": "write parameters, a mapping from names to arrays",
    "get_weights": "write parameters, a mapping from names to arrays",
    "set_weights": "write load_parameters",
    "state_dict": "write parameters and state, or save(path)",
    "load_state_dict": "write load_parameters, or gn.load(path)",
    "load_weights": "write gn.load(path)",
    "save_weights": "write save(path)",
    "to": "say it at the start: gn.Network(layers, device='cuda')",
    "cuda": "say it at the start: gn.Network(layers, device='cuda')",
    "layers": "write network.layers",
    "add": "give all layers at once: gn.Network([gn.Dense(100, 'relu'), gn.Dense(10)])",
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
    """The name in a history for a name in other libraries: "val_acc" is "validation_accuracy"."""
    part, held_out = name.removeprefix("val_"), "validation_" * name.startswith("val_")
    return f"{held_out}{METRICS.get(part, part)}"


def check_words(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise an error for the first unknown word for which there is a hint."""
    for word in given:
        if word not in known:
            _refuse(where, word, given[word], known)


def _refuse(where: str, word: str, value: Any, known: Collection[str]) -> None:
    for ours, how in FOREIGN.get(word, ()):
        owner, _, name = ours.rpartition(".")
        if not name or (name in known and owner in ("", where)):
            raise ConfigurationError(
                where,
                expected=f"{name}=" if name else f"no {word}=",
                got=f"{word}=" if name else f"{word}={_code(value)}",
                fix=how or f"write {name}={_code(value)}",
            )
    from difflib import get_close_matches

    if close := get_close_matches(word, known, 1):
        raise TypeError(f"{where}() got an unexpected keyword argument {word!r}. Did you mean {close[0]!r}?")


def _code(value: Any) -> str:
    """A short value as code, or "..."."""
    plain = all(isinstance(part, (bool, int, float, str)) for part in (value if isinstance(value, tuple) else (value,)))
    return repr(value) if plain and len(repr(value)) <= 20 else "..."


def missing(where: str, name: str, ways: Mapping[str, str]) -> AttributeError:
    """The error for a missing attribute, with what to write instead if `ways` has it."""
    told = f"{where} has no {name!r}: {ways[name]}" if name in ways else f"{where} has no attribute {name!r}"
    return AttributeError(told)


def missing_name(name: str) -> AttributeError:
    """The error for a name that `gn` does not have."""
    loss = LOSSES.get(name.lower())
    return missing("module 'gpunn'", name, NAMES if loss is None else {name: f"write gn.{loss}(){AFTER.get(loss, '')}"})


def of_rows(method: Function) -> Function:
    """Decorate `compile`, which takes a number of rows: for others, as in Keras, an error says what to do."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **words: Any) -> Any:
        if not (arguments and hasattr(arguments[0], "__index__")) and not hasattr(words.get("rows"), "__index__"):
            given = [*map(_code, arguments), *(f"{word}={_code(value)}" for word, value in words.items())]
            raise ConfigurationError(
                "Network.compile",
                expected="a number of rows",
                got=", ".join(given) or "nothing",
                fix="gpunn has no compile step: pass loss= and optimizer= to fit",
            )
        return method(self, *arguments, **words)

    return call  # type: ignore[return-value]


def own_words(where: str) -> Callable[[Function], Function]:
    """Decorate a function or method: for an unknown argument, its error says what to write instead."""

    def decorated(function: Function) -> Function:
        known = frozenset(inspect.signature(function).parameters)

        @functools.wraps(function)
        def call(*arguments: Any, **words: Any) -> Any:
            if not words.keys() <= known:
                check_words(where, words, known)
            return function(*arguments, **words)

        return call  # type: ignore[return-value]

    return decorated
