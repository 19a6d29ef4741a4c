"""How long does one training step take: gather, forward, loss, backward, update, beside PyTorch and JAX?

    python -m benchmarks.step

All have the same data, on the device before the clock starts, the same initial weights, order and arithmetic. Whose
losses over the first 20 steps are not those of gpunn, dropout left out, is not timed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.cases import Case, Problem, cases
from benchmarks.command import alone
from benchmarks.harness import (
    LEFT_OUT,
    DisagreementError,
    MissingPeerError,
    Row,
    Setting,
    disagreement,
    failure,
    say,
    timed,
)
from benchmarks.peers import Peer, ours, peers

COMPARED = 20  # steps
# Of the loss. Adam's first steps have the size of the rate however small a gradient is, so that they magnify rounding;
# half precision rounds differently in every library.
TOLERANCE = {("SGD", "float32"): 1e-4, ("Adam", "float32"): 3e-3, ("SGD", "bfloat16"): 5e-2, ("Adam", "bfloat16"): 5e-2}


def run(setting: Setting) -> list[Row]:
    kind = ours.kind_of(setting.device)
    rows: list[Row] = []
    for case in cases(kind, setting.quick, setting.selection):
        if setting.late:
            names = ("gpunn", *(peer.name for peer in peers(kind)))
            rows += [Row("step", str(case), name, "µs", note=f"{LEFT_OUT}: its time was up") for name in names]
            continue
        say(f"step: {case}")
        rows += measure(case, setting, kind)
    return rows


def measure(case: Case, setting: Setting, kind: str) -> list[Row]:
    """Make, compare, then time all competitors in one case."""
    notes: dict[str, str] = {}
    with competing() as made:
        try:
            own = made["gpunn"] = ours.Steps(case, setting.device)
            reference = ours.Steps(case.without_dropout(), setting.device) if case.dropout else own
            expected = reference.losses(COMPARED)
        except Exception as error:
            made.clear()
            notes["gpunn"] = failure(error)
            notes |= {peer.name: f"{LEFT_OUT}: nothing to compare with" for peer in peers(kind)}
        else:
            for peer in peers(kind):
                try:
                    made[peer.name] = contender(peer, case, kind, own.problem, reference.problem, expected)
                except (MissingPeerError, DisagreementError) as error:
                    notes[peer.name] = str(error)
                except Exception as error:
                    notes[peer.name] = failure(error)
        rows = timed("step", str(case), made, setting)
        for row in rows:
            if row.competitor == "gpunn" and row.runs:
                row.details = own.details()
    rows += [Row("step", str(case), name, "µs", note=note) for name, note in notes.items()]
    order = ["gpunn", *(peer.name for peer in peers(kind))]
    return sorted(rows, key=lambda row: order.index(row.competitor))


def contender(peer: Peer, case: Case, kind: str, problem: Problem, reference: Problem, expected: list[float]) -> Any:
    """A competitor to be timed on the problem, whose losses on the reference, which has no dropout, are as expected."""
    subject = peer.make(reference, kind, checked=case.dropout > 0)
    note = disagreement(expected, subject.losses(COMPARED), TOLERANCE[case.optimizer, case.dtype])
    if note or case.dropout:
        subject.close()
    if note:
        raise DisagreementError(note)
    return peer.make(problem, kind) if case.dropout else subject


@contextmanager
def competing() -> Iterator[dict[str, Any]]:
    """Competitors by name; they give back what they hold in the end."""
    made: dict[str, Any] = {}
    yield made
    for subject in made.values():
        subject.close()
    made.clear()
    gc.collect()


if __name__ == "__main__":
    alone("step")
