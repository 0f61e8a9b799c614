"""Which engine runs a package on this machine."""

import logging

from models.registry import ModelPackage
from worker.engines.base import Engine, EngineBase, EngineSettings
from worker.engines.fake import FakeEngine
from worker.engines.onnxruntime import OnnxRuntimeEngine
from worker.engines.openvino import OpenVinoEngine
from worker.errors import EngineFailed, EngineUnavailable

_log = logging.getLogger(__name__)

_KINDS: dict[str, type[EngineBase]] = {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}


def open_engine(package: ModelPackage, pinned: str = "auto", threads: int = 0) -> Engine:
    """The first engine that the manifest allows and that opens and runs one empty window; close it after use.

    `pinned` names the only engine to try ("fake" thresholds the input and needs no network file); `threads`
    0 means all cores. Engines that failed are named in `passed_over` and in the log. Raises EngineUnavailable
    with every reason when none is left.
    """
    choice = package.manifest.engine
    if pinned not in {"auto", "fake", *choice.allowed}:
        raise EngineUnavailable(
            f"{package.name} may not run on {pinned}; allowed: {', '.join(choice.allowed)}.", engine=pinned
        )
    settings = EngineSettings(threads=threads, precision=choice.precision)
    passed_over: list[str] = []
    for kind in choice.allowed if pinned == "auto" else (pinned,):
        engine = _make(kind, package, settings)
        if engine is None:
            continue
        try:
            engine.open()
            engine.warm_up(package.manifest.window.size)
        except (EngineUnavailable, EngineFailed) as error:
            engine.close()
            passed_over.append(f"{kind}: {error.sentence}")
            _log.warning(
                "engine passed over", extra={"model": package.name, "engine": kind, "reason": error.name}
            )
            continue
        engine.passed_over = tuple(passed_over)
        return engine
    reasons = " ".join(passed_over) or "none of the allowed engines is part of this version."
    raise EngineUnavailable(f"No engine runs {package.name}: {reasons}", model=package.name)


def _make(kind: str, package: ModelPackage, settings: EngineSettings) -> EngineBase | None:
    if kind == "fake":
        return FakeEngine(classes=len(package.manifest.labels) + 1)
    maker = _KINDS.get(kind)
    return maker(package.path(package.manifest.engine.file), settings) if maker else None
