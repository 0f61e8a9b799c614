"""NIfTI out and in: the same voxel at the same place."""

import gzip

import nibabel
import numpy as np
import pytest

from models.errors import ModelsError
from models.labels import Code, Label, LabelMap
from models.nifti import load_labels, load_volume, save_nifti
from models.volume import Geometry, Volume

AFFINE = np.array([[0.1, 0.05, 0.7, -120], [0.2, -0.8, 0.1, 33], [1.5, 0.1, 0, 900], [0, 0, 0, 1]])
LABELS = (Label(1, "x", Code("a", "SCT", "x"), Code("b", "SCT", "x")),)


def test_an_independent_reader_finds_each_voxel_where_it_is(tmp_path):
    """SCOPE G5: nibabel's world is RAS; index (column, row, slice) there is (slice, row, column) here."""
    geometry = Geometry((4, 5, 6), AFFINE)
    array = np.random.default_rng(1).integers(0, 2, geometry.shape).astype(np.uint8)
    save_nifti(LabelMap(array, geometry, LABELS), tmp_path / "labels.nii.gz")
    image = nibabel.load(tmp_path / "labels.nii.gz")
    data = np.asanyarray(image.dataobj)
    assert data.dtype == np.uint8
    assert data.shape == (6, 5, 4)
    for index in ((0, 0, 0), (3, 4, 5), (1, 2, 3)):
        assert data[index[::-1]] == array[index]
        x, y, z = geometry.to_patient(np.array(index))
        assert (image.affine @ [*index[::-1], 1])[:3] == pytest.approx((-x, -y, z), abs=1e-3)
    assert np.array_equal(load_labels(tmp_path / "labels.nii.gz"), array)


def test_volumes_come_back(tmp_path):
    """SCOPE I7: an acceptance case keeps its values and its geometry."""
    volume = Volume(np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6), Geometry((4, 5, 6), AFFINE))
    save_nifti(volume, tmp_path / "case.nii.gz")
    found = load_volume(tmp_path / "case.nii.gz")
    assert found.array.dtype == np.int16
    assert np.array_equal(found.array, volume.array)
    assert found.geometry.same_grid(volume.geometry)
    assert (found.unit, found.modality) == ("HU", "CT")


def test_a_real_volume_of_other_orientation(shared_data):
    """SCOPE B2: a head stored LIA keeps its place: the brain's top lies above its bottom."""
    volume = load_volume(shared_data / "nifti" / "brain_t1_conformed" / "t1_crop.nii.gz", "stored", "MR")
    assert volume.array.shape == (256, 256, 256)
    world = nibabel.load(shared_data / "nifti" / "brain_t1_conformed" / "t1_crop.nii.gz").affine
    x, y, z = (world @ [10, 20, 30, 1])[:3]
    assert volume.geometry.to_patient(np.array([30, 20, 10])) == pytest.approx((-x, -y, z))


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 100, gzip.compress(b"nonsense" * 100)[:60]])
@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz"])
def test_what_is_no_nifti_is_named(tmp_path, content, name):
    """SCOPE I7: a damaged file is an error with its name."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelsError, match=name):
        load_volume(tmp_path / name)


def test_a_file_cut_short_is_named(tmp_path):
    """SCOPE I7: a file that ends in the middle of its voxels."""
    volume = Volume(np.zeros((20, 20, 20), np.int16), Geometry((20, 20, 20), AFFINE))
    for name in ("case.nii", "case.nii.gz"):
        save_nifti(volume, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(ModelsError, match=name):
            load_volume(tmp_path / name)
