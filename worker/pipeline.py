"""One series and one model, from files to verified DICOM objects: the whole of it on this page."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from dicom_node.reading import SourceSeries
from dicom_node.records import ResultObject
from dicom_node.writing.results import ResultContext, write_results
from models.cleanup import clean_scores
from models.labels import LabelMap, Measurement
from models.measurements import measure
from models.preparation import prepare, restore
from models.registry import ModelPackage
from models.volume import Volume
from models.windows import infer_windows, plan_windows
from worker.engines.base import Engine

SOFTWARE_VERSION = version("segnode")

Step = Callable[[str], AbstractContextManager[None]]
"""`with step("prepare"):` records how long the block took."""


@dataclass(frozen=True)
class Order:
    """What is asked of the pipeline: a model on an open engine, and where the objects go.

    `content_digest` identifies the content of the series; `content_time` is written into the objects, so
    that the same order again gives the same bytes. `node` is the name of the installation.
    """

    package: ModelPackage
    engine: Engine
    content_digest: str
    content_time: datetime
    folder: Path
    node: str = "segnode"


@dataclass(frozen=True)
class Segmentation:
    """What came of it: labels on the source grid, their measurements, the verified objects."""

    label_map: LabelMap
    measurements: tuple[Measurement, ...]
    objects: tuple[ResultObject, ...]


def segment(source: SourceSeries, order: Order, step: Step) -> Segmentation:
    """Steps 7 to 11 of the design: find the labels, measure them, write the objects and verify them.

    Raises what the steps raise: GeometryInvalid, EngineFailed, WritingFailed, VerificationFailed.
    """
    label_map = find_labels(source.volume, order.package, order.engine, step)
    with step("measure"):
        measurements = measure(label_map, source.volume)
    with step("write and verify"):
        context = ResultContext(
            manifest=order.package.manifest,
            engine=order.engine.kind,
            engine_version=order.engine.version,
            precision=order.engine.precision,
            software_version=SOFTWARE_VERSION,
            content_digest=order.content_digest,
            completed_at=order.content_time,
            node_name=order.node,
        )
        objects = write_results(source, label_map, measurements, context, order.folder)
    return Segmentation(label_map, measurements, objects)


def find_labels(volume: Volume, package: ModelPackage, engine: Engine, step: Step) -> LabelMap:
    """Prepares the volume, runs the network over it, and brings the cleaned labels back onto its grid.

    Raises GeometryInvalid, EngineFailed.
    """
    manifest = package.manifest
    with step("prepare"):
        prepared = prepare([volume], manifest.input)
    with step("infer"):
        plan = plan_windows(prepared.geometry.shape, manifest.window)
        scores = infer_windows(prepared, plan, engine)
    with step("restore"):
        cleaned = clean_scores(scores, manifest.labels, prepared.geometry.voxel_ml)
        return restore(cleaned, prepared, manifest.segment_labels)


class Stopwatch:
    """Collects the time of each step, in order; `record` hears of each as it ends."""

    def __init__(self, record: Callable[[str, float], None] = lambda name, seconds: None) -> None:
        self.seconds: dict[str, float] = {}
        self._record = record

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times the block."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._record(name, seconds)


def summary_of(measurements: Sequence[Measurement]) -> str:
    """One sentence on what was found; no patient data."""
    found = [f"{item.label.name} {item.volume_ml:.0f} mL" for item in measurements if item.voxels]
    return ", ".join(found) if found else "none of the model's structures found"
