"""NIfTI files: label maps out, acceptance cases in.

NIfTI counts voxels (column, row, slice), and its world is RAS: x and y point the other way than in LPS.
"""

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError
from models.labels import LabelMap
from models.volume import Affine, Geometry, Volume

_Nifti1Image: Any = nibabel.Nifti1Image  # nibabel is only partly typed
_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
"""Takes an index (column, row, slice, 1) to (slice, row, column, 1)."""


def save_nifti(image: LabelMap | Volume, path: Path) -> None:
    """Writes `.nii` or `.nii.gz` with the affine in both qform and sform, in mm."""
    array = image.array.astype(image.array.dtype.newbyteorder("="), copy=False)
    affine = _LPS_RAS @ image.geometry.affine @ _REVERSED
    file = _Nifti1Image(array.transpose(2, 1, 0), affine)
    file.header.set_xyzt_units("mm")
    file.set_sform(affine, code="scanner")
    file.set_qform(affine, code="scanner", strip_shears=True)
    nibabel.save(file, path)


def load_volume(path: Path, unit: str = "HU", modality: str = "CT") -> Volume:
    """A 3-D image as a volume, float32 or its integer type. Raises ModelsError for what is no such file."""
    array, affine = _load(path)
    return Volume(array, Geometry((array.shape[0], array.shape[1], array.shape[2]), affine), unit, modality)


def load_labels(path: Path) -> NDArray[np.uint8]:
    """Label numbers (slices, rows, columns) of a 3-D label image. Raises ModelsError."""
    return _load(path)[0].round().astype(np.uint8)


def _load(path: Path) -> tuple[NDArray[Any], Affine]:
    try:
        file: Any = nibabel.load(path)
        data = np.asanyarray(file.dataobj)
        affine = np.asarray(file.affine)
    except (OSError, EOFError, zlib.error, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise ModelsError(f"{path} cannot be read as NIfTI: {error}.", path=str(path)) from error
    if data.ndim != 3:
        raise ModelsError(f"{path} has {data.ndim} dimensions, not 3.", path=str(path))
    if data.dtype not in (np.int16, np.uint8):
        data = data.astype(np.float32)
    return np.ascontiguousarray(data.transpose(2, 1, 0)), _LPS_RAS @ affine @ _REVERSED
