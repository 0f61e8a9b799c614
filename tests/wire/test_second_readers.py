"""What other people's programs say of our objects, on real series of several vendors and on the phantom."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dicom_node.phantom_series import write_ct_series
from dicom_node.reading import find_series, read_series
from dicom_node.writing.results import write_results
from models.labels import LabelMap, Measurement
from models.measurements import measure
from models.phantom import PhantomSpec, thorax_phantom
from tests.results import CONTEXT, MANIFEST, thresholded

_CASES = {
    "phantom": "",
    "CT chest, Siemens": "dicom_ct/chest_siemens_sensation10_8mm.tar.xz",
    "CT abdomen, Siemens, blanked UIDs": "dicom_ct/abdomen_siemens_mct_j2k_20slices.zip",
    "CT head, Philips": "dicom_ct/headphantom_philips_study1_scout_axial_sc.tar.xz:S2010",
    "CT thigh, GE": "dicom_ct_mr_pet_rtstruct/sarcoma_sts_003.tar.xz:dicom/CT/image",
    "MR thigh, GE": "dicom_ct_mr_pet_rtstruct/sarcoma_sts_010.tar.xz:dicom/MR_T1/image",
    "PET, GE": "dicom_ct_mr_pet_rtstruct/sarcoma_sts_012.tar.xz:dicom/PET/image",
    "MR sagittal oblique, Siemens": "dicom_mr/brain_t1_siemens_skyra_child_sagittal_192.tar.xz",
    "MR not square, implicit VR": "dicom_mr/brain_t1_7t_implicitvr_nonsquare_384.tar.xz",
    "MR of 4 slices, RLE": "odd_dicom/mr_4slices_each_transfer_syntax.zip:compressed_rle",
}
_PIXELMED = [
    "-Xss512m", "-Djdk.xml.xpathExprOpLimit=0", "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0", "-cp", "/usr/share/java/pixelmed.jar",
    "com.pixelmed.validate.DicomSRValidator",
]  # fmt: skip


@dataclass(frozen=True)
class Written:
    """Results of one series in `folder`, and in `empty` those of a label map without a voxel."""

    name: str
    folder: Path
    empty: Path
    label_map: LabelMap
    measurements: tuple[Measurement, ...]


@pytest.fixture(scope="module", params=_CASES)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_data: Path
) -> Written:
    folder = tmp_path_factory.mktemp("second")
    archive, _, inside = _CASES[request.param].partition(":")
    if archive:
        shutil.unpack_archive(shared_data / archive, folder / "source")
    else:
        write_ct_series(
            thorax_phantom(PhantomSpec((60, 256, 256), (5.0, 1.6, 1.6))).volume, folder / "source"
        )
    found = find_series(folder / "source" / inside)
    source = read_series(next(iter(found.values())))
    label_map = thresholded(source.volume)
    measurements = measure(label_map, source.volume)
    write_results(source, label_map, measurements, CONTEXT, folder)
    nothing = LabelMap(np.zeros_like(label_map.array), label_map.geometry, MANIFEST.segment_labels)
    write_results(source, nothing, measure(nothing, source.volume), CONTEXT, folder / "empty")
    return Written(request.param, folder, folder / "empty", label_map, measurements)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=300
    )
    return done.stdout + done.stderr


def test_dciodvfy_finds_no_error(written: Written, program: Callable[[str], str]) -> None:
    """SCOPE G1, G2; CONFORMANCE A11: attribute by attribute against the standard's modules."""
    for path in (written.folder / "seg.dcm", written.folder / "sr.dcm", written.empty / "sr.dcm"):
        said = _run(program("dciodvfy"), path)
        assert "Segmentation" in said or "Comprehensive3DSR" in said
        assert not [line for line in said.splitlines() if line.startswith("Error")]


def test_pixelmed_finds_no_error(written: Written, program: Callable[[str], str]) -> None:
    """SCOPE G2; CONFORMANCE A4, A5, A7, A10: the report against its templates."""
    if not Path("/usr/share/java/pixelmed.jar").exists():
        program("pixelmed.jar")  # absent: skips by name, or fails
    paths = [written.folder / "sr.dcm"]
    if written.name in {"CT chest, Siemens", "PET, GE"}:  # a run takes seconds, and these are all alike
        paths.append(written.empty / "sr.dcm")
    for path in paths:
        said = _run(program("java"), *_PIXELMED, path)
        assert "Found Root Template TID_1500" in said
        assert "IOD validation complete" in said
        assert not [line for line in said.splitlines() if line.startswith("Error")]


def test_dsrdump_reads_the_report(written: Written, program: Callable[[str], str]) -> None:
    """SCOPE G2; CONFORMANCE A10: DCMTK accepts the relationships and shows our figures."""
    said = _run(program("dsrdump"), written.folder / "sr.dcm")
    assert not [line for line in said.splitlines() if line.startswith(("E:", "F:"))]
    for measured in written.measurements:
        if measured.voxels:
            # a decimal string has at most 16 characters, so compare as numbers
            volumes = [float(line.split('"')[3]) for line in said.splitlines() if '"Volume")=' in line]
            assert any(volume == pytest.approx(measured.volume_ml, abs=5e-4) for volume in volumes)
    assert 'has concept mod CODE:(,,"Finding Site")=(39607008' in said
    assert "contains IMAGE:" in said


def test_dcmqi_reads_the_same_voxels(written: Written, program: Callable[[str], str], tmp_path: Path) -> None:
    """SCOPE G1; CONFORMANCE A13, A14: 3D Slicer's reader: every voxel at its place in the patient."""
    itk = pytest.importorskip("SimpleITK")
    beside_python = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
    said = _run(
        beside_python or program("segimage2itkimage"), "--inputDICOM", written.folder / "seg.dcm",
        "--outputDirectory", tmp_path, "-t", "nrrd",
    )  # fmt: skip
    files = sorted(tmp_path.glob("*.nrrd"))
    found = [m for m in written.measurements if m.voxels]
    assert len(files) == len(found), said
    for path, measured in zip(files, found, strict=True):
        image = itk.ReadImage(str(path))
        mask = itk.GetArrayFromImage(image) > 0
        there = np.argwhere(mask)
        placed = there[:, ::-1] @ (_directions(image) * image.GetSpacing()).T + image.GetOrigin()
        # ITK and DICOM share the axes (LPS), so positions compare directly
        grid = written.label_map.geometry
        index = (placed - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
        assert np.abs(index - np.rint(index)).max() < 0.01
        again = np.zeros(grid.shape, bool)
        again[tuple(np.rint(index).astype(int).T)] = True
        assert np.array_equal(again, written.label_map.array == measured.label.number)
        volume = mask.sum() * np.prod(image.GetSpacing()) / 1000
        assert volume == pytest.approx(measured.volume_ml, rel=1e-4)
        assert placed.mean(axis=0) == pytest.approx(measured.centroid_lps, abs=0.05)


def _directions(image: object) -> np.ndarray:
    return np.array(image.GetDirection()).reshape(3, 3)  # type: ignore[attr-defined]
