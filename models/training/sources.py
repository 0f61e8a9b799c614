"""Real volumes for training and judging: DICOM archives and NIfTI files of a data folder."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ExtraMissing, RecipeInvalid
from models.nifti import load_volume
from models.volume import Geometry, Volume


def read_volume(path: Path, series: str = "") -> Volume:
    """A CT from a NIfTI file, or from an archive or folder with DICOM files.

    `series` names the folder inside the archive when it holds several. Raises RecipeInvalid when there is no
    volume at `path`, ExtraMissing when DICOM is asked for and SimpleITK is not installed.
    """
    if not path.exists():
        raise RecipeInvalid(f"{path} does not exist.", remedy="Correct the path or the data folder.")
    if path.name.endswith((".nii", ".nii.gz")):
        volume = load_volume(path)
        return Volume(np.rint(volume.array).astype(np.int16), volume.geometry)
    if path.is_dir():
        return _read_dicom(path / series)
    with tempfile.TemporaryDirectory() as folder:
        options: Any = {} if path.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(path, folder, **options)
        return _read_dicom(_deepest(Path(folder), series))


def _deepest(folder: Path, series: str) -> Path:
    """The folder with the most files, of those whose path ends in `series`."""
    counts = {
        parent: sum(1 for p in parent.iterdir() if p.is_file())
        for parent in {p.parent for p in folder.rglob("*") if p.is_file()}
        if str(parent).endswith(series)
    }
    if not counts:
        raise RecipeInvalid(f"The archive has no folder {series!r} with files.")
    return max(counts, key=lambda parent: counts[parent])


def _read_dicom(folder: Path) -> Volume:
    try:
        import SimpleITK
    except ImportError as error:
        raise ExtraMissing(
            "SimpleITK is needed to train on DICOM.", remedy="pip install 'segnode[dev]'"
        ) from error
    sitk: Any = SimpleITK  # untyped
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    names = max((sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), s) for s in series), key=len)
    image = sitk.ReadImage(names)
    array = np.clip(sitk.GetArrayFromImage(image), -32768, 32767).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return Volume(array, Geometry(array.shape, affine))
