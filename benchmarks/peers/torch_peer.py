"""PyTorch: the usual loop, the same with the loss compiled, or the whole step captured as one CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.cases import Case, Problem, Training
from benchmarks.harness import NOT_INSTALLED, MissingPeerError


def require(kind: str) -> None:
    """Refuse to compete on a GPU that is not there."""
    if kind == "cuda" and not torch.cuda.is_available():
        raise MissingPeerError(f"{NOT_INSTALLED}: torch {torch.__version__} sees no GPU")


def products(shapes: list[tuple[int, int, int]]) -> Callable[[], None]:
    """Products of these (m, k, n) one after the other, on the CPU."""
    given = {shape for m, k, n in shapes for shape in ((m, k), (k, n))}
    matrices = {shape: torch.randn(shape) for shape in sorted(given)}
    results = {(m, n): torch.empty(m, n) for m, _, n in shapes}

    def function() -> None:
        for m, k, n in shapes:
            torch.mm(matrices[m, k], matrices[k, n], out=results[m, n])

    return function


def network(case: Case, weights: list[dict[str, Any]]) -> nn.Sequential:
    """The net of a case that starts with these weights."""
    layers: list[nn.Module] = []
    for i, values in enumerate(weights):
        into, out = values["W"].shape
        linear = nn.Linear(into, out, bias="b" in values)
        layers.append(linear)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(values["W"]).T)
            if "b" in values:
                linear.bias.copy_(torch.from_numpy(values["b"])[0])
        if i < len(weights) - 1:
            layers += [nn.BatchNorm1d(out)] * case.norm + [nn.ReLU()]
            layers += [nn.Dropout(case.dropout)] * (case.dropout > 0)
    return nn.Sequential(*layers)


class Loss(nn.Module):
    """The loss of some rows of the data, which are buffers so that a captured graph need not copy them."""

    X: torch.Tensor
    y: torch.Tensor

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        case = problem.case
        self.register_buffer("X", torch.from_numpy(problem.X))
        self.register_buffer("y", torch.from_numpy(problem.y))
        self.net = network(case, problem.weights)
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
        require(kind)
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


def batches(X: torch.Tensor, y: torch.Tensor, batch: int, shuffle: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's batches, sliced from the tensors."""
    order = torch.randperm(len(X), device=X.device) if shuffle else torch.arange(len(X), device=X.device)
    for rows in order.split(batch):
        yield X[rows], y[rows]


def loader(X: torch.Tensor, y: torch.Tensor, batch: int, shuffle: bool) -> Any:
    """An epoch's batches, as PyTorch's guides make them."""
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, y), batch, shuffle=shuffle)


def fit(training: Training, kind: str, source: Callable[..., Any]) -> list[float]:
    """From NumPy arrays to the mean loss of every epoch."""
    require(kind)
    case = training.case
    torch.manual_seed(training.seed)
    net = network(case, training.weights).to(kind)
    optimizer, criterion = torch.optim.Adam(net.parameters(), lr=case.rate, fused=True), nn.CrossEntropyLoss()
    X, y = (torch.from_numpy(part).to(kind) for part in (training.X, training.y))

    def classes(X: Any) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(X).to(kind)).argmax(1).cpu().numpy()

    losses = []
    for _ in range(training.epochs):
        total = torch.zeros((), device=kind)
        for inputs, targets in source(X, y, case.batch, training.shuffle):
            value = criterion(net(inputs), targets)
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += value.detach() * len(targets)
        losses.append(total.item() / len(X))
        training.ended(classes)
    return losses
