"""An engine without a network, for tests and for trying a site's wiring: it thresholds its input."""

from pathlib import Path

import numpy as np

from worker.engines.base import EngineBase, EngineSettings, Float, Size
from worker.errors import EngineFailed


class FakeEngine(EngineBase):
    """Class n of `classes` scores highest where the first channel lies in the n-th of equal parts of 0..1.

    Low values are background. Deterministic; reads no file.
    """

    kind = "fake"
    version = "1"

    def __init__(
        self, path: Path = Path(), settings: EngineSettings | None = None, *, classes: int = 2
    ) -> None:
        super().__init__(path, settings)
        self.classes = classes
        self._ready = False

    def _load(self) -> None:
        self._ready = True

    def _compile(self, size: Size) -> None:
        """Nothing to do."""

    def _run(self, batch: Float) -> Float:
        if not self._ready:
            raise EngineFailed("The fake engine is not open.", engine=self.kind)
        middles = (np.arange(self.classes, dtype=np.float32) + np.float32(0.5)) / np.float32(self.classes)
        scores: Float = -np.abs(batch[:, :1] - middles[:, None, None, None])
        return scores

    def close(self) -> None:
        """See Engine."""
        self._ready = False
