"""What an inference engine owes."""

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from worker.errors import EngineFailed

Float = NDArray[np.float32]
Size = tuple[int, int, int]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class EngineSettings:
    """`threads` 0 means all cores; `cache` is a folder for compiled networks, None for no cache."""

    threads: int = 0
    precision: Precision = "auto"
    cache: Path | None = None


class Engine(Protocol):
    """Runs a network on windows; open, warm up, infer, close, or `with engine:` for the first and the last.

    `kind` and `version` name the library, `precision` the arithmetic in use once open ("fp32", "bf16").
    `timings` holds seconds: "open", "warm_up" and the sum of all "infer". `passed_over` says which engines
    were tried before this one, each with the reason.
    """

    kind: str
    version: str
    precision: str
    timings: dict[str, float]
    passed_over: tuple[str, ...]

    def open(self) -> None:
        """Loads the network. Raises EngineUnavailable."""

    def warm_up(self, size: Size) -> None:
        """Compiles for windows (slices, rows, columns) and runs one. Raises EngineUnavailable."""

    def infer(self, batch: Float) -> Float:
        """Windows (n, channels, slices, rows, columns) to scores (n, classes, slices, rows, columns).

        Threads that share an engine take turns. Raises EngineFailed, also for scores that are not finite.
        """

    def close(self) -> None:
        """Lets go of the network; closing twice is allowed."""

    def __enter__(self) -> "Engine": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class EngineBase(ABC):
    """The part that all engines share: one window at a time, timing, checking and the context manager."""

    kind = ""
    version = ""
    precision = "fp32"

    def __init__(self, path: Path, settings: EngineSettings | None = None) -> None:
        self.path = path
        self.settings = settings or EngineSettings()
        self.timings: dict[str, float] = {}
        self.passed_over: tuple[str, ...] = ()
        self.channels = 1
        self._turn = threading.Lock()

    @abstractmethod
    def _load(self) -> None:
        """Loads the network and sets version, precision and channels; raises EngineUnavailable."""

    @abstractmethod
    def _compile(self, size: Size) -> None:
        """Gets ready for windows of this size; raises EngineUnavailable."""

    @abstractmethod
    def _run(self, batch: Float) -> NDArray[Any]:
        """Scores of a batch; raises EngineFailed."""

    @abstractmethod
    def close(self) -> None:
        """See Engine."""

    def open(self) -> None:
        """See Engine."""
        start = time.perf_counter()
        self._load()
        self._count("open", start)

    def warm_up(self, size: Size) -> None:
        """See Engine."""
        start = time.perf_counter()
        self._compile(size)
        self._checked(np.zeros((1, self.channels, *size), np.float32))
        self._count("warm_up", start)

    def infer(self, batch: Float) -> Float:
        """See Engine."""
        with self._turn:
            start = time.perf_counter()
            scores = self._checked(np.ascontiguousarray(batch, np.float32))
            self._count("infer", start)
        return scores

    def _checked(self, batch: Float) -> Float:
        scores: Float = np.asarray(self._run(batch), np.float32)
        if scores.ndim != 5 or scores.shape[0] != len(batch) or scores.shape[2:] != batch.shape[2:]:
            raise EngineFailed(
                f"{self.kind} gave scores {scores.shape} for windows {batch.shape}.", engine=self.kind
            )
        if not np.isfinite(scores.sum()):
            raise EngineFailed(
                f"{self.kind} {self.version} in {self.precision} gave scores that are not finite.",
                engine=self.kind,
            )
        return scores

    def _count(self, step: str, start: float) -> None:
        self.timings[step] = self.timings.get(step, 0.0) + time.perf_counter() - start

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
