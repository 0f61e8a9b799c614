"""Reads results back another way than they were written (pydicom and numpy, no highdicom) and compares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import VerificationFailed
from dicom_node.writing.codes import UNITS
from models.labels import LabelMap, Measurement
from models.volume import Geometry

_POSITION_MM = 0.01
"""Decimal strings hold at least this precision for any position in a body."""
_CENTROID_MM = 0.05
_VOLUME_PART = 1e-4


@dataclass(frozen=True)
class _Frame:
    segment: int
    index: int
    """Slice of the label map's grid."""
    corner: NDArray[np.float64]


def verify_segmentation(path: Path, label_map: LabelMap, found: Sequence[Measurement]) -> int:
    """Compares a BINARY Segmentation with the label map in memory; returns the number of its frames.

    `found` has the measurements of segments 1, 2, 3 ... in order. Compared are grid, the eight corners of the
    stack of frames, every voxel, and each segment's voxel count, volume (mL) and centroid (LPS mm), computed
    from the object's own geometry. Raises VerificationFailed. PS3.3 C.8.20, C.7.6.16.
    """
    seg = dcmread(path)
    if seg.SegmentationType != "BINARY" or (seg.Rows, seg.Columns) != label_map.geometry.shape[1:]:
        raise VerificationFailed(f"Frames are {seg.Rows} x {seg.Columns} {seg.SegmentationType}.")
    if [item.SegmentNumber for item in seg.SegmentSequence] != list(range(1, len(found) + 1)):
        raise VerificationFailed(
            f"The object describes {len(seg.SegmentSequence)} segments, not {len(found)}."
        )
    rows, columns, normal = _directions(seg)
    frames = list(_frames(seg, label_map.geometry, normal))
    _compare_corners(seg, frames, label_map.geometry, rows, columns)
    sums = _compare_voxels(seg, frames, label_map, found)
    for number, measurement in enumerate(found, start=1):
        _compare_segment(sums[number - 1], measurement, seg, frames, (rows, columns))
    expected = int(np.count_nonzero(label_map.array))
    written = int(sum(item[0] for item in sums))
    if expected != written:
        raise VerificationFailed(f"The label map has {expected} voxels, the object {written}.")
    return len(frames)


def verify_report(path: Path, found: Sequence[Measurement], segmentation: Path | None) -> None:
    """Compares a TID 1500 report with the measurements and with the segmentation that it cites.

    Raises VerificationFailed where a number, unit, tracking pair or reference differs.
    """
    report = dcmread(path)
    template = report.ContentTemplateSequence[0].TemplateIdentifier
    if template != "1500":
        raise VerificationFailed(f"The report's root template is {template}, not 1500.")
    groups = [item for item in _walk(report) if _name(item) == "125007"]
    volumetric = [group for group in groups if any(_name(item) == "121191" for item in group.ContentSequence)]
    if len(volumetric) != len(found) or not groups:
        raise VerificationFailed(f"The report measures {len(volumetric)} segments, not {len(found)}.")
    for item in _walk(report):
        unit = _unit(item)
        if unit is not None and unit not in UNITS:
            raise VerificationFailed(f"The report uses the unit {unit}.")
    seg = dcmread(segmentation, stop_before_pixels=True) if segmentation is not None else None
    for number, (group, measurement) in enumerate(zip(volumetric, found, strict=True), start=1):
        _compare_numbers(group, measurement)
        if seg is not None:
            _compare_reference(group, number, seg)
    _compare_evidence(report, seg)


def _directions(seg: Dataset) -> tuple[NDArray[np.float64], ...]:
    """Steps along rows and along columns in mm, and the unit normal, from the shared functional groups."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    normal = np.cross(orientation[:3], orientation[3:])
    return orientation[3:] * spacing[0], orientation[:3] * spacing[1], normal


def _frames(seg: Dataset, geometry: Geometry, normal: NDArray[np.float64]) -> Iterator[_Frame]:
    origin = geometry.affine[:3, 3]
    step = float(geometry.affine[:3, 0] @ normal)
    shared = seg.SharedFunctionalGroupsSequence[0]
    seen = set()
    for item in seg.PerFrameFunctionalGroupsSequence:
        corner = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        # with one segment only, what is the same for every frame is shared (PS3.3 C.7.6.16)
        owner = item if "SegmentIdentificationSequence" in item else shared
        segment = int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        index = round(float((corner - origin) @ normal) / step)
        if not 0 <= index < geometry.shape[0] or (segment, index) in seen:
            raise VerificationFailed(f"A frame of segment {segment} lies at slice {index}, outside or twice.")
        seen.add((segment, index))
        yield _Frame(segment, index, corner)
    dimensions = {
        tuple(item.FrameContentSequence[0].DimensionIndexValues)
        for item in seg.PerFrameFunctionalGroupsSequence
    }
    if len(dimensions) != len(seen) or int(seg.NumberOfFrames) != len(seen):
        raise VerificationFailed(
            f"{seg.NumberOfFrames} frames have {len(dimensions)} different dimension index values."
        )


def _compare_corners(
    seg: Dataset,
    frames: Sequence[_Frame],
    geometry: Geometry,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> None:
    """Raises unless the four corners of every frame lie where the grid has them."""
    last_row, last_column = seg.Rows - 1, seg.Columns - 1
    slices = np.array([frame.index for frame in frames])
    origins = np.array([frame.corner for frame in frames])
    for row, column in ((0, 0), (0, last_column), (last_row, 0), (last_row, last_column)):
        there = origins + row * rows + column * columns
        grid = geometry.to_patient(
            np.stack([slices, np.full_like(slices, row), np.full_like(slices, column)], 1)
        )
        apart = float(np.abs(there - grid).max())
        if apart > _POSITION_MM:
            raise VerificationFailed(f"A corner of a frame lies {apart:.3f} mm off the source grid.")


def _compare_voxels(
    seg: Dataset, frames: Sequence[_Frame], label_map: LabelMap, found: Sequence[Measurement]
) -> list[tuple[int, NDArray[np.float64]]]:
    """Per segment the voxel count and the sums over its voxels of row index, column index and frame corner.

    Raises at the first frame with a voxel that differs.
    """
    data = np.frombuffer(seg.PixelData, np.uint8)
    pixels = seg.Rows * seg.Columns
    if len(data) * 8 < pixels * len(frames):
        raise VerificationFailed(f"{len(frames)} frames do not fit into {len(data)} bytes.")
    count = np.zeros(len(found), np.int64)
    depth = np.zeros((len(found), seg.Rows, seg.Columns), np.uint16)
    origins = np.zeros((len(found), 3))
    for number, frame in enumerate(frames):
        first = number * pixels
        bits = np.unpackbits(data[first // 8 : (first + pixels + 7) // 8], bitorder="little")
        mask = bits[first % 8 : first % 8 + pixels].reshape(seg.Rows, seg.Columns)
        wanted = label_map.array[frame.index] == found[frame.segment - 1].label.number
        if not np.array_equal(mask.view(bool), wanted):
            raise VerificationFailed(f"Segment {frame.segment} differs in slice {frame.index}.")
        voxels = np.count_nonzero(mask.view(bool))
        count[frame.segment - 1] += voxels
        depth[frame.segment - 1] += mask
        origins[frame.segment - 1] += frame.corner * voxels
    rows = depth.sum(axis=2) @ np.arange(seg.Rows)
    columns = depth.sum(axis=1) @ np.arange(seg.Columns)
    return [(int(n), np.array([r, c, *o])) for n, r, c, o in zip(count, rows, columns, origins, strict=True)]


def _compare_segment(
    totals: tuple[int, NDArray[np.float64]],
    measurement: Measurement,
    seg: Dataset,
    frames: Sequence[_Frame],
    steps: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Compares voxel count, volume and centroid with what was measured before writing."""
    voxels, sums = totals
    name = measurement.label.name
    if voxels != measurement.voxels or not voxels:
        raise VerificationFailed(f"{name} has {voxels} voxels, {measurement.voxels} were measured.")
    thickness = _distance_between_frames(seg)
    area = float(np.linalg.norm(np.cross(steps[0], steps[1])))
    volume = voxels * area * thickness / 1000.0
    if abs(volume - measurement.volume_ml) > _VOLUME_PART * measurement.volume_ml + 1e-3:
        raise VerificationFailed(f"{name} has {volume:.3f} mL, {measurement.volume_ml:.3f} were measured.")
    centroid = (sums[0] * steps[0] + sums[1] * steps[1] + sums[2:]) / voxels
    apart = float(np.linalg.norm(centroid - np.array(measurement.centroid_lps)))
    if apart > _CENTROID_MM:
        raise VerificationFailed(f"The centroid of {name} is {apart:.2f} mm off.")


def _distance_between_frames(seg: Dataset) -> float:
    measures: Any = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return float(measures.SpacingBetweenSlices)


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from _walk(child)


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def _unit(item: Dataset) -> str | None:
    if item.get("ValueType") != "NUM":
        return None
    return str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue)


def _compare_numbers(group: Dataset, measurement: Measurement) -> None:
    expected = {
        "118565006": measurement.volume_ml,
        "373098007": measurement.mean,
        "386136009": measurement.sd,
        "255605001": measurement.minimum,
        "56851009": measurement.maximum,
    }
    volumes = 0
    for item in group.ContentSequence:
        if item.ValueType != "NUM":
            continue
        kinds = [
            str(child.ConceptCodeSequence[0].CodeValue)
            for child in item.get("ContentSequence", [])
            if _name(child) == "121401"
        ]
        kind = kinds[0] if kinds else _name(item)
        volumes += kind == "118565006"
        value = float(item.MeasuredValueSequence[0].NumericValue)
        if abs(value - expected[kind]) > 0.006:
            raise VerificationFailed(
                f"The report says {value} for {measurement.label.name}, measured was {expected[kind]:.3f}."
            )
    if volumes != 1:
        raise VerificationFailed(f"The report has {volumes} volumes of {measurement.label.name}.")


def _compare_reference(group: Dataset, number: int, seg: Dataset) -> None:
    """Same segment, SOP Instance and tracking pair in report and segmentation; the source series is cited."""
    values = {_name(item): item for item in group.ContentSequence}
    cited = values["121191"].ReferencedSOPSequence[0]
    segment = seg.SegmentSequence[number - 1]
    if (
        cited.ReferencedSOPInstanceUID != seg.SOPInstanceUID
        or int(cited.ReferencedSegmentNumber) != number
        or segment.TrackingUID != values["112040"].UID
        or values["112039"].TextValue != segment.TrackingID
        or seg.ReferencedSeriesSequence[0].SeriesInstanceUID != values["121232"].UID
    ):
        raise VerificationFailed(
            f"The report's group {number} cites another segment, series or tracking UID."
        )


def _compare_evidence(report: Dataset, seg: Dataset | None) -> None:
    """The SEG and every instance it derives from are in the report's evidence (PS3.3 C.17.2.3)."""
    evidence = {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    if seg is None:
        return
    sources = {
        str(i.ReferencedSOPInstanceUID) for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    if not sources | {str(seg.SOPInstanceUID)} <= evidence or report.StudyInstanceUID != seg.StudyInstanceUID:
        raise VerificationFailed(
            "The report's evidence does not name every source image and the segmentation."
        )
