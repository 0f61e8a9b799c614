"""What tests of reading and writing share: small series, a model's labels, a label map, a job's context."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.phantom_series import write_ct_series
from dicom_node.writing.results import ResultContext
from models.labels import LabelMap
from models.manifest import ModelManifest
from models.volume import Geometry, Volume

_STRUCTURE = ("91723000", "SCT", "Anatomical Structure")
_LUNG = ("39607008", "SCT", "Lung structure")
MANIFEST = ModelManifest.model_validate(
    {
        "model": {
            "name": "ct-lungs", "version": "1.2.3", "title": "Lungs on chest CT", "purpose": "test",
            "not_for": "patients", "code_licence": "Apache-2.0", "weights_licence": "CC0-1.0",
            "anatomy": ("51185008", "SCT", "Thoracic structure"),
        },
        "input": {"spacing_mm": (3, 3, 3), "clip": (-1000, 400)},
        "window": {"size": (64, 64, 64)},
        "labels": [
            {"number": 1, "name": "Left lung", "category": _STRUCTURE, "type": _LUNG,
             "colour": (197, 165, 145), "modifier": ("7771000", "SCT", "Left"), "plausible_ml": (500, 4000)},
            {"number": 2, "name": "Right lung", "category": _STRUCTURE, "type": _LUNG,
             "colour": (90, 165, 200), "modifier": ("24028007", "SCT", "Right"), "plausible_ml": (0, 1e9)},
            {"number": 3, "name": "Trachea", "category": _STRUCTURE, "colour": (0, 0, 255),
             "type": ("44567001", "SCT", "Tracheal structure"), "plausible_ml": (0, 1e9)},
        ],
        "acceptance": {"volume": "v.nii.gz", "reference": "r.nii.gz"},
        "provenance": {"trained_on": "phantoms", "labels": "phantoms", "recipe": "-", "date": "2026-01-01"},
        "files": {"model.onnx": "0", "v.nii.gz": "0", "r.nii.gz": "0"},
        "digest": "ab" * 32,
    }
)  # fmt: skip
CONTEXT = ResultContext(
    MANIFEST, "openvino", "2026.4", "bf16", "0.1.0", "cd" * 32,
    datetime(2026, 11, 20, 12, 0, 1, 250_000, tzinfo=UTC), "TESTNODE", ("Tested only.",),
)  # fmt: skip


def geometry(shape: tuple[int, int, int] = (12, 30, 41), degrees: float = 0.0) -> Geometry:
    """A grid with three different steps, turned about x so that nothing is parallel to an axis."""
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    # columns: step along slices (to the head), along rows (to the back), along columns (to the left)
    affine[:3, :3] = turn @ np.array([[0, 0, 0.7], [0, 0.8, 0], [2.5, 0, 0]])
    affine[:3, 3] = (-101.5, 33.25, 700.0)
    return Geometry(shape, affine)


def ramp(grid: Geometry) -> Volume:
    """A volume whose every voxel has another value, so that any mix-up of axes or slices shows."""
    values = np.arange(np.prod(grid.shape)).reshape(grid.shape) % 4000 - 1000
    return Volume(values.astype(np.int16), grid)


def write_series(
    folder: Path,
    grid: Geometry | None = None,
    change: Callable[[int, Dataset], Dataset | None] = lambda number, dataset: dataset,
) -> list[Path]:
    """A CT series of `ramp`; `change` may alter a slice's data set, or drop the slice by returning None.

    File names and instance numbers run against the order of positions.
    """
    files = write_ct_series(ramp(grid or geometry()), folder)
    kept = []
    for number, path in enumerate(files):
        dataset = dcmread(path)
        dataset.InstanceNumber = len(files) - number
        changed = change(number, dataset)
        path.unlink()
        if changed is not None:
            target = folder / f"{len(files) - number:04d}"
            changed.file_meta.MediaStorageSOPInstanceUID = changed.SOPInstanceUID
            changed.save_as(target, enforce_file_format=True)
            kept.append(target)
    return sorted(kept)


def two_blocks(grid: Geometry) -> LabelMap:
    """Labels 1 and 2 as boxes of different size inside the grid, each with a dent; label 3 absent."""
    array = np.zeros(grid.shape, np.uint8)
    slices, rows, columns = grid.shape
    array[1 : slices // 2, 2 : rows // 2, 3 : columns // 2] = 1
    array[slices // 3 : slices - 1, rows // 3 : rows - 2, columns // 2 + 2 : columns - 1] = 2
    array[slices // 2, rows // 2, :] = 0
    return LabelMap(array, grid, MANIFEST.segment_labels)


def thresholded(volume: Volume) -> LabelMap:
    """Left and right halves of what is dark (CT) or bright (others): ragged labels on any real series."""
    low, high = np.quantile(volume.array[:: max(1, len(volume.array) // 10)], (0.3, 0.6))
    mask = volume.array <= low if volume.unit == "HU" else volume.array >= high
    array = np.zeros(volume.array.shape, np.uint8)
    half = volume.array.shape[2] // 2
    array[..., :half][mask[..., :half]] = 2
    array[..., half:][mask[..., half:]] = 1
    return LabelMap(array, volume.geometry, MANIFEST.segment_labels)
