"""OpenVINO on the CPU: the fastest engine without a GPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.engines.base import EngineBase, Float, Size
from worker.errors import EngineFailed, EngineUnavailable

_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}


class OpenVinoEngine(EngineBase):
    """Compiles the network for one window shape, tuned for latency; a batch runs window by window.

    Precision "auto" is bf16 on a CPU that computes it natively (AVX-512 BF16 or AMX), else fp32.
    """

    kind = "openvino"

    _model: Any = None
    _compiled: Any = None
    _shape: tuple[int, ...] = ()

    def _load(self) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineUnavailable(f"OpenVINO cannot be loaded: {error}.", engine=self.kind) from error
        self.version = str(openvino.__version__).split("-")[0]
        self._core = openvino.Core()
        native = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        wanted = self.settings.precision
        if wanted == "fp16" or (wanted == "bf16" and not native):
            raise EngineUnavailable(f"This CPU has no native {wanted} in OpenVINO.", engine=self.kind)
        self.precision = "bf16" if native and wanted in {"auto", "bf16"} else "fp32"
        try:
            self._model = self._core.read_model(self.path)
            shape = self._model.input(0).partial_shape
            self.channels = shape[1].get_length() if shape[1].is_static else 1
            self._model.output(0)
        except (RuntimeError, IndexError) as error:
            raise EngineUnavailable(
                f"OpenVINO cannot read {self.path.name}: {_first_line(error)}.", engine=self.kind
            ) from error

    def _compile(self, size: Size) -> None:
        shape = (1, self.channels, *size)
        options: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
        }
        if self.settings.threads:
            options["INFERENCE_NUM_THREADS"] = self.settings.threads
        if self.settings.cache:
            options["CACHE_DIR"] = str(self.settings.cache)
        try:
            self._model.reshape({self._model.input(0): list(shape)})
            compiled = self._core.compile_model(self._model, "CPU", options)
            used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineUnavailable(
                f"OpenVINO cannot compile {self.path.name} for {shape}: {_first_line(error)}.",
                engine=self.kind,
            ) from error
        self.precision = _NAMES.get(used, used)
        self._compiled, self._shape = compiled, shape

    def _run(self, batch: Float) -> NDArray[Any]:
        if self._model is None:
            raise EngineFailed("OpenVINO is not open.", engine=self.kind)
        try:
            if self._shape != (1, *batch.shape[1:]):
                self._compile((batch.shape[2], batch.shape[3], batch.shape[4]))
            return np.concatenate(
                [self._request.infer([window[None]], share_inputs=True)[0] for window in batch]
            )
        except (RuntimeError, EngineUnavailable) as error:
            raise EngineFailed(f"OpenVINO failed: {_first_line(error)}.", engine=self.kind) from error

    def close(self) -> None:
        """See Engine."""
        self._model = self._compiled = self._request = None
        self._shape = ()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
