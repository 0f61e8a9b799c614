"""ONNX Runtime on the CPU: slower, but runs anywhere."""

from typing import Any

from numpy.typing import NDArray

from worker.engines.base import EngineBase, Float, Size
from worker.errors import EngineFailed, EngineUnavailable

_ERRORS = (
    "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented",
    "RuntimeException", "EPFail", "ModelLoaded", "NoModel", "EngineError",
)  # fmt: skip


class OnnxRuntimeEngine(EngineBase):
    """fp32 by the CPU execution provider."""

    kind = "onnxruntime"

    _session: Any = None
    _errors: tuple[type[Exception], ...] = (RuntimeError,)

    def _load(self) -> None:
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as native
        except ImportError as error:
            raise EngineUnavailable(f"ONNX Runtime cannot be loaded: {error}.", engine=self.kind) from error
        self.version = str(onnxruntime.__version__)
        if self.settings.precision not in {"auto", "fp32"}:
            raise EngineUnavailable(
                f"ONNX Runtime has no {self.settings.precision} on the CPU.", engine=self.kind
            )
        named = tuple(getattr(native, name) for name in _ERRORS if hasattr(native, name))
        self._errors = (RuntimeError, ValueError, IndexError, *named)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
            entry = self._session.get_inputs()[0]
        except self._errors as error:
            raise EngineUnavailable(
                f"ONNX Runtime cannot read {self.path.name}: {type(error).__name__}.", engine=self.kind
            ) from error
        self._input = entry.name
        self.channels = entry.shape[1] if isinstance(entry.shape[1], int) else 1

    def _compile(self, size: Size) -> None:
        """Nothing to do: the session takes any shape that the network takes."""

    def _run(self, batch: Float) -> NDArray[Any]:
        if self._session is None:
            raise EngineFailed("ONNX Runtime is not open.", engine=self.kind)
        try:
            scores: NDArray[Any] = self._session.run(None, {self._input: batch})[0]
        except self._errors as error:
            raise EngineFailed(f"ONNX Runtime failed: {type(error).__name__}.", engine=self.kind) from error
        return scores

    def close(self) -> None:
        """See Engine."""
        self._session = None
