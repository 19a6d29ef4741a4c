"""When an estimator's training ends and when its rate falls: scikit-learn's rules, and their state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SMALLEST_RATE = 1e-6  # below which an adaptive rate is lowered no further


@dataclass
class Rules:
    """Judge epochs by their loss, or with `early_stopping` by the score on the validation set.

    Training ends after more than `patience` epochs in a row that are not better than the best by at least `tolerance`.
    An adaptive rate is divided by 5 instead, until it is small. The state is kept between calls of fit or partial_fit.
    """

    early_stopping: bool
    tolerance: float
    patience: float
    rate: float  # of the optimizer
    power: float | None = None  # of the number of examples seen: 1 / t^power
    adaptive: bool = False
    verbose: bool = False

    seen: int = 0  # examples, since the weights were drawn
    waited: int = 0
    factor: float = 1.0  # of the rate
    ended: bool = False
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    best_score: float = -math.inf

    def judge(self, examples: int, loss: float, score: float | None, validation_loss: float | None) -> bool:
        """Count an epoch; returns whether its weights are the best so far, and sets `ended` if it was the last."""
        self.losses.append(loss)
        better = score is not None and score > self.best_score
        if score is not None and validation_loss is not None:
            self.scores.append(score)
            self.validation_losses.append(validation_loss)
        if self.early_stopping and score is not None:
            stagnates = score < self.best_score + self.tolerance
        else:
            stagnates = loss > self.best_loss - self.tolerance
        self.waited = self.waited + 1 if stagnates else 0
        self.best_score = max(self.best_score, score) if better and score is not None else self.best_score
        self.best_loss = min(self.best_loss, loss)
        self.seen += examples
        self._say(loss, score)
        if self.power is not None:
            self.factor = (self.seen + 1) ** -self.power
        if self.waited > self.patience:
            self._lose_patience()
        return better

    def _lose_patience(self) -> None:
        if self.adaptive and self.rate * self.factor > SMALLEST_RATE:
            self.factor, self.waited = self.factor / 5.0, 0
            if self.verbose:
                print(f"no better for {self.patience} epochs: the rate is now {self.rate * self.factor:g}")
        else:
            self.ended = True
            if self.verbose:
                print(f"no better for {self.patience} epochs: training ends")

    @property
    def reason(self) -> str:
        what = "score" if self.early_stopping else "loss"
        return f"{what} no better by {self.tolerance:g} for {self.patience} epochs"

    def _say(self, loss: float, score: float | None) -> None:
        if self.verbose:
            told = "" if score is None else f", validation score {score:.6f}"
            print(f"epoch {len(self.losses)}: loss {loss:.8f}{told}")
