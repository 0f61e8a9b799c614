"""The reader-back must notice what it is there for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import VerificationFailed
from dicom_node.reading import read_series
from dicom_node.writing.results import write_results
from dicom_node.writing.verify import verify_report, verify_segmentation
from models.labels import LabelMap
from models.measurements import measure
from tests.results import CONTEXT, geometry, two_blocks, write_series


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("verify")
    source = read_series(write_series(folder / "source", geometry(degrees=10)))
    label_map = two_blocks(source.volume.geometry)
    measurements = measure(label_map, source.volume)
    write_results(source, label_map, measurements, CONTEXT, folder)
    return folder, source, label_map, [m for m in measurements if m.voxels]


def _frames(seg: Dataset):
    return seg.PerFrameFunctionalGroupsSequence


def _flip_slices(seg: Dataset) -> None:
    """The mirrored stack that a known tool shipped for months."""
    places = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in _frames(seg)]
    for segment in (1, 2):
        own = [n for n, f in enumerate(_frames(seg))
               if f.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment]  # fmt: skip
        for here, there in zip(own, reversed(own), strict=True):
            _frames(seg)[here].PlanePositionSequence[0].ImagePositionPatient = places[there]


def _pixels(seg: Dataset) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    return bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(-1, seg.Rows, seg.Columns)


def _store(seg: Dataset, pixels: np.ndarray) -> None:
    data = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    seg.PixelData = data + b"\0" * (len(data) % 2)


def _mirror(axis: int) -> Callable[[Dataset], None]:
    return lambda seg: _store(seg, np.flip(_pixels(seg), axis))


def _one_voxel(seg: Dataset) -> None:
    pixels = _pixels(seg).copy()
    pixels[3, 5, 5] ^= 1
    _store(seg, pixels)


def _shift(seg: Dataset) -> None:
    for frame in _frames(seg):
        plane = frame.PlanePositionSequence[0]
        plane.ImagePositionPatient = [plane.ImagePositionPatient[0] + 0.7, *plane.ImagePositionPatient[1:]]


def _shift_half_a_slice(seg: Dataset) -> None:
    for frame in _frames(seg):
        plane = frame.PlanePositionSequence[0]
        plane.ImagePositionPatient = [*plane.ImagePositionPatient[:2], plane.ImagePositionPatient[2] + 0.5]


def _measures(seg: Dataset) -> Dataset:
    return seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


def _swap_spacing(seg: Dataset) -> None:
    _measures(seg).PixelSpacing = list(reversed(_measures(seg).PixelSpacing))


def _wrong_slice_spacing(seg: Dataset) -> None:
    _measures(seg).SpacingBetweenSlices = 2.0


def _turn(seg: Dataset) -> None:
    plane = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def _drop_frame(seg: Dataset) -> None:
    pixels = _pixels(seg)
    seg.PerFrameFunctionalGroupsSequence = list(_frames(seg))[1:]
    seg.NumberOfFrames -= 1
    _store(seg, pixels[1:])


def _drop_position(seg: Dataset) -> None:
    _frames(seg)[1].PlanePositionSequence[0] = _frames(seg)[0].PlanePositionSequence[0]


def _same_dimensions(seg: Dataset) -> None:
    _frames(seg)[1].FrameContentSequence[0].DimensionIndexValues = (
        _frames(seg)[0].FrameContentSequence[0].DimensionIndexValues
    )


def _swap_segments(seg: Dataset) -> None:
    for frame in _frames(seg):
        item = frame.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = 3 - item.ReferencedSegmentNumber


def _lose_pixels(seg: Dataset) -> None:
    seg.PixelData = seg.PixelData[: len(seg.PixelData) // 2]


DAMAGES = [
    _flip_slices, _mirror(1), _mirror(2), _one_voxel, _shift, _shift_half_a_slice, _swap_spacing,
    _wrong_slice_spacing, _turn, _drop_frame, _drop_position, _same_dimensions, _swap_segments, _lose_pixels,
]  # fmt: skip


def test_the_sound_object_passes(case) -> None:
    """SCOPE G1: no false alarm."""
    folder, _, label_map, found = case
    assert verify_segmentation(folder / "seg.dcm", label_map, found) == len(
        dcmread(folder / "seg.dcm").PerFrameFunctionalGroupsSequence
    )
    verify_report(folder / "sr.dcm", found, folder / "seg.dcm")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(case, tmp_path: Path, damage: Callable[[Dataset], None]) -> None:
    """SCOPE G1: mirrored, shifted, mis-spaced, turned, a frame or a voxel lost: none may leave."""
    folder, _, label_map, found = case
    seg = dcmread(folder / "seg.dcm")
    damage(seg)
    seg.save_as(tmp_path / "seg.dcm")
    with pytest.raises(VerificationFailed):
        verify_segmentation(tmp_path / "seg.dcm", label_map, found)


def test_a_voxel_of_no_segment_is_noticed(case) -> None:
    """SCOPE G1: a label in the map that nobody wrote."""
    folder, _, label_map, found = case
    array = label_map.array.copy()
    array[0, 0, 0] = 3
    with pytest.raises(VerificationFailed, match="voxels"):
        verify_segmentation(folder / "seg.dcm", LabelMap(array, label_map.geometry, label_map.labels), found)


@pytest.mark.parametrize(
    "change",
    [{"volume_ml": 1.0}, {"voxels": 7}, {"centroid_lps": (0.0, 0.0, 0.0)}],
    ids=lambda c: next(iter(c)),
)
def test_wrong_measurements_are_noticed(case, change: dict) -> None:
    """SCOPE G1: measured before writing and counted in the file must agree."""
    folder, _, label_map, found = case
    with pytest.raises(VerificationFailed):
        verify_segmentation(folder / "seg.dcm", label_map, [replace(found[0], **change), found[1]])


@pytest.mark.parametrize("field", ["volume_ml", "mean", "sd", "minimum", "maximum"])
def test_a_wrong_number_in_the_report_is_noticed(case, field: str) -> None:
    """SCOPE G2: each figure of the report is compared."""
    folder, _, _, found = case
    wrong = replace(found[1], **{field: getattr(found[1], field) + 0.02})
    with pytest.raises(VerificationFailed, match="Right lung"):
        verify_report(folder / "sr.dcm", [found[0], wrong], folder / "seg.dcm")


def test_a_report_on_another_segmentation_is_noticed(case, tmp_path: Path) -> None:
    """SCOPE G2, CONFORMANCE A16: the SEG cited is the SEG written."""
    folder, source, label_map, found = case
    other = replace(CONTEXT, precision="fp32")
    write_results(source, label_map, found, other, tmp_path)
    with pytest.raises(VerificationFailed, match="cites another"):
        verify_report(folder / "sr.dcm", found, tmp_path / "seg.dcm")


def test_nothing_is_published_unverified(case, tmp_path: Path) -> None:
    """SCOPE G1: where verification fails, no file gets a result's name."""
    _, source, label_map, found = case
    with pytest.raises(VerificationFailed):
        write_results(source, label_map, [replace(found[0], voxels=7), found[1]], CONTEXT, tmp_path)
    assert not (tmp_path / "seg.dcm").exists()
    assert not (tmp_path / "sr.dcm").exists()
