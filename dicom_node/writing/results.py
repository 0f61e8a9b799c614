"""Label map and measurements to verified result files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from highdicom._standard_utils import is_attribute_in_iod
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicom_node.errors import WritingFailed
from dicom_node.reading import SourceSeries
from dicom_node.records import ResultObject
from dicom_node.writing.context import ResultContext
from dicom_node.writing.files import publish, write_beside
from dicom_node.writing.headers import source_images
from dicom_node.writing.seg import build_segmentation
from dicom_node.writing.sr import build_report
from dicom_node.writing.verify import verify_report, verify_segmentation
from models.labels import LabelMap, Measurement

__all__ = ["ResultContext", "warm_up", "write_results"]


def warm_up() -> None:
    """Loads highdicom's tables of the standard (about half a second), so that no job waits for them."""
    is_attribute_in_iod("PixelData", SegmentationStorage)


def write_results(
    source: SourceSeries,
    label_map: LabelMap,
    measurements: Sequence[Measurement],
    context: ResultContext,
    folder: Path,
) -> tuple[ResultObject, ...]:
    """Writes `seg.dcm` (where a label was found) and `sr.dcm` into `folder`, each read back and compared.

    `label_map` is on the grid of `source.volume`; `measurements` has one entry per label of the model, those
    with no voxel included. Paths of the results are relative to `folder`. The same arguments give the same
    bytes. Raises ValueError for a label map on another grid, VerificationFailed where what was written
    differs from what was meant, WritingFailed where an object cannot be made or stored.
    """
    if not label_map.geometry.same_grid(source.volume.geometry):
        raise ValueError("The label map must lie on the grid of the source.")
    try:
        return _write(source, label_map, sorted(measurements, key=lambda m: m.label.number), context, folder)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WritingFailed(f"A result object could not be made ({type(error).__name__}).") from error
    except OSError as error:
        raise WritingFailed(f"A result object could not be stored: {error.strerror}.") from error


def _write(
    source: SourceSeries,
    label_map: LabelMap,
    measurements: Sequence[Measurement],
    context: ResultContext,
    folder: Path,
) -> tuple[ResultObject, ...]:
    images = source_images(source)
    found = [m for m in measurements if m.voxels]
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    segmentation = None
    seg_path = None
    if found:
        segmentation = build_segmentation(source, images, label_map, [m.label for m in found], context)
        seg_path = folder / "seg.dcm"
        part = write_beside(segmentation, seg_path)
        frames = verify_segmentation(part, label_map, found)
        publish(part, seg_path)
        facts = {
            "frames": frames,
            "segments": [_facts(n, m, context, images) for n, m in enumerate(found, 1)],
        }
        results.append(_result("SEG", segmentation, seg_path, facts))
    report = build_report(source, images, measurements, segmentation, context, _cut_off(label_map))
    sr_path = folder / "sr.dcm"
    part = write_beside(report, sr_path)
    verify_report(part, found, seg_path)
    publish(part, sr_path)
    absent = [m.label.name for m in measurements if not m.voxels]
    results.append(_result("SR", report, sr_path, {"absent": absent}))
    return tuple(results)


def _cut_off(label_map: LabelMap) -> frozenset[int]:
    """Labels that reach the first or last slice: the structure may go on outside the image."""
    return frozenset(int(n) for n in np.unique(label_map.array[[0, -1]]) if n)


def _facts(number: int, m: Measurement, context: ResultContext, images: Sequence[Dataset]) -> dict[str, Any]:
    return {
        "segment": number,
        "label": m.label.number,
        "name": m.label.name,
        "voxels": m.voxels,
        "volume_ml": m.volume_ml,
        "centroid_lps": list(m.centroid_lps),
        "tracking_uid": context.tracking(images[0].StudyInstanceUID, m.label)[1],
    }


def _result(kind: str, dataset: Dataset, path: Path, facts: dict[str, Any]) -> ResultObject:
    content = path.read_bytes()
    return ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        path=Path(path.name),
        size=len(content),
        digest=hashlib.sha256(content).hexdigest(),
        facts=facts,
    )
