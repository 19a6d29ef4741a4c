"""PyTorch: the usual loop, the same with the loss compiled, or the whole step captured as one CUDA graph."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from benchmarks.cases import Problem
from benchmarks.harness import NOT_INSTALLED, MissingPeerError


class Loss(nn.Module):
    """The loss of some rows of the data, which are buffers so that a captured graph need not copy them."""

    X: torch.Tensor
    y: torch.Tensor

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        case = problem.case
        self.register_buffer("X", torch.from_numpy(problem.X))
        self.register_buffer("y", torch.from_numpy(problem.y))
        layers: list[nn.Module] = []
        for i, values in enumerate(problem.weights):
            into, out = values["W"].shape
            linear = nn.Linear(into, out, bias="b" in values)
            layers.append(linear)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(values["W"]).T)
                if "b" in values:
                    linear.bias.copy_(torch.from_numpy(values["b"])[0])
            if i < len(problem.weights) - 1:
                layers += [nn.BatchNorm1d(out)] * case.norm + [nn.ReLU()]
                layers += [nn.Dropout(case.dropout)] * (case.dropout > 0)
        self.net = nn.Sequential(*layers)
        self.criterion = nn.MSELoss() if case.regression else nn.CrossEntropyLoss()
        self.mixed = case.dtype != "float32"

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        cast = torch.autocast(self.X.device.type, torch.bfloat16) if self.mixed else contextlib.nullcontext()
        with cast:
            value: torch.Tensor = self.criterion(self.net(self.X[rows]), self.y[rows])
        return value


class Steps:
    """Steps on data, weights and order of the problem."""

    grain = 1

    def __init__(self, problem: Problem, kind: str, *, compiled: bool = False, captured: bool = False) -> None:
        if kind == "cuda" and not torch.cuda.is_available():
            raise MissingPeerError(f"{NOT_INSTALLED}: torch {torch.__version__} sees no GPU")
        torch.manual_seed(0)
        self.kind, self.batch, self.epoch = kind, problem.case.batch, problem.batches
        self.compiled = compiled
        self.loss = Loss(problem).to(kind)
        made: dict[str, Any] = {"lr": problem.case.rate, "fused": True}
        if problem.case.optimizer == "Adam":
            self.optimizer: Any = torch.optim.Adam(self.loss.parameters(), capturable=captured, **made)
        else:
            self.optimizer = torch.optim.SGD(self.loss.parameters(), **made)
        self.order = torch.from_numpy(problem.order).to(kind)
        self.call: Any = self.loss
        if compiled:
            self.call = torch.compile(self.loss, mode="reduce-overhead" if kind == "cuda" else None)
        self.graph = self._capture() if captured else None

    def _step(self, rows: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.call(rows)
        value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _capture(self) -> Any:
        """A graph of one step, which reads its rows at a cursor on the device and moves it on."""
        start = [parameter.detach().clone() for parameter in self.loss.parameters()]
        self.cursor = torch.zeros(1, dtype=torch.int64, device=self.kind)
        places = torch.arange(self.batch, device=self.kind)

        def step() -> torch.Tensor:
            value = self._step(self.order[places + self.cursor])
            self.cursor.add_(self.batch)
            return value

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.value = step()
        with torch.no_grad():  # what the warm-up has changed
            for parameter, value in zip(self.loss.parameters(), start):
                parameter.copy_(value)
        for moments in self.optimizer.state.values():
            for tensor in filter(torch.is_tensor, moments.values()):
                tensor.zero_()
        return graph

    def begin(self) -> None:
        if self.graph is not None:
            self.cursor.zero_()
        self._wait()

    def run(self, steps: int) -> None:
        if self.graph is not None:
            for _ in range(steps):
                self.graph.replay()
        else:
            for i in range(steps):
                self._step(self.order[i * self.batch : (i + 1) * self.batch])
        self._wait()

    def _wait(self) -> None:
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def losses(self, steps: int) -> list[float]:
        """Of each of the first steps."""
        return [self._loss(i % self.epoch) for i in range(steps)]

    def _loss(self, i: int) -> float:
        """Of the i-th step of an epoch."""
        if self.graph is None:
            return self._step(self.order[i * self.batch : (i + 1) * self.batch]).item()
        if i == 0:
            self.begin()
        self.graph.replay()
        return self.value.item()

    def close(self) -> None:
        """Forget compiled code, of which torch keeps only so much, and free the device."""
        if self.compiled:
            torch.compiler.reset()
        if self.kind == "cuda":
            torch.cuda.empty_cache()
