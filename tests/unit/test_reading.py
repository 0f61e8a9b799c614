"""Series to volume, on made and on real files."""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_node import errors
from dicom_node.reading import (
    contiguous,
    find_series,
    parse_header,
    read_series,
    slice_header,
    summarise,
)
from dicom_node.records import SliceHeader
from dicom_node.slices import whole
from tests.results import geometry, ramp, write_series

Change = Callable[[int, Dataset], Dataset | None]


@pytest.fixture(scope="session")
def unpacked(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpacks an archive of the shared data once."""
    done: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp("series")
            shutil.unpack_archive(shared_data / name, done[name])
        return done[name]

    return unpack


def _headers(files: list[Path]) -> list:
    return [slice_header(parse_header(path)) for path in files]


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_slices_are_ordered_by_position(tmp_path: Path, degrees: float) -> None:
    """SCOPE B1, B2: file names and numbers run backwards; values and the place of each voxel are right."""
    grid = geometry(degrees=degrees)
    files = write_series(tmp_path, grid)
    source = read_series(files)
    assert source.volume.array.dtype == np.int16
    assert np.array_equal(source.volume.array, ramp(grid).array)
    assert source.volume.geometry.same_grid(grid, 1e-3)
    assert np.linalg.det(source.volume.geometry.affine[:3, :3]) < 0  # [slice, row, column] against x, y, z
    assert source.summary.instances == 12
    assert source.summary.coverage_mm == pytest.approx(12 * 2.5)
    assert source.summary.slice_spacing_mm == pytest.approx(2.5)
    assert all("PixelData" not in dataset for dataset in source.datasets)
    positions = [float(dataset.ImagePositionPatient[2]) for dataset in source.datasets]
    assert positions == sorted(positions)
    assert contiguous(_headers(files))


def _without(keyword: str) -> Change:
    def change(number: int, dataset: Dataset) -> Dataset:
        delattr(dataset, keyword)
        return dataset

    return change


def _with(keyword: str, value: object, only: int | None = None) -> Change:
    def change(number: int, dataset: Dataset) -> Dataset:
        if only in {None, number}:
            setattr(dataset, keyword, value)
        return dataset

    return change


def _moved(offset: Callable[[int], tuple[float, float, float]]) -> Change:
    def change(number: int, dataset: Dataset) -> Dataset:
        there = np.array(dataset.ImagePositionPatient, float) + offset(number)
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in there]
        return dataset

    return change


REFUSALS: dict[str, tuple[Change, type[errors.NodeError], str]] = {
    "gap": (lambda n, d: None if n == 5 else d, errors.SliceGap, "5.00 mm between slices 5 and 6"),
    "duplicate": (
        _moved(lambda n: (0, 0, -2.5 if n == 4 else 0)), errors.DuplicatePosition, "12 images lie at 11",
    ),
    "orientation": (
        _with("ImageOrientationPatient", [1, 0, 0, 0, 0, 1], 3), errors.MixedOrientation, "1 of 12",
    ),
    "few": (lambda n, d: d if n < 2 else None, errors.TooFewSlices, "has 2 slices"),
    "tilt": (_moved(lambda n: (0, n * 0.5, 0)), errors.GantryTilt, "11.3 degrees"),
    "uneven": (_moved(lambda n: (0, 0, 0.8 * (n > 4))), errors.GeometryContradictory, "unevenly spaced"),
    "no position": (_without("ImagePositionPatient"), errors.GeometryMissing, "12 of 12 images lack"),
    "bad orientation": (
        _with("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), errors.GeometryContradictory, "perpendicular",
    ),
    "no spacing": (_without("PixelSpacing"), errors.GeometryMissing, "(0028,0030)"),
    "zero spacing": (_with("PixelSpacing", ["0", "0"]), errors.GeometryContradictory, "0 mm"),
    "other spacing": (_with("PixelSpacing", [0.8, 0.9], 7), errors.GeometryContradictory, "0.7000 to 0.9"),
    "frame of reference": (_with("FrameOfReferenceUID", "1.2", 7), errors.GeometryContradictory, "2 diff"),
    "patients": (_with("PatientID", "Somebody-Else", 7), errors.MixedPatients, "2 different"),
    "no rescale": (_without("RescaleIntercept"), errors.PixelsUndecodable, "Rescale Intercept"),
    "short pixels": (_with("PixelData", b"\0" * 100, 7), errors.FileDamaged, "Pixel data hold 100 bytes"),
    "multi-frame": (_with("NumberOfFrames", 5), errors.NotAVolume, "several frames"),
    "mosaic": (_with("ImageType", ["ORIGINAL", "PRIMARY", "MOSAIC"]), errors.NotAVolume, "mosaics"),
    "colour": (_with("SamplesPerPixel", 3), errors.NotAVolume, "12 x a colour image"),
    "localisers": (_with("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), errors.NotAVolume, "localiser"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_geometry_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """SCOPE B2: each has its own name, a sentence with the figures, and never a patient's name."""
    change, error, words = REFUSALS[case]
    files = write_series(tmp_path, change=change)
    with pytest.raises(error) as caught:
        read_series(files)
    assert type(caught.value) is error
    assert words in caught.value.sentence
    assert "Phantom" not in str(caught.value)
    assert "Somebody" not in str(caught.value)
    if case not in {"tilt", "no rescale", "short pixels", "patients"}:
        colourless = [h for h in _headers(files) if case != "colour"]
        assert not contiguous(colourless)
    summarise(_headers(files), "1", "2")  # whatever the geometry, routing gets its summary


def test_a_localiser_and_strays_are_left_out(tmp_path: Path) -> None:
    """SCOPE B2: what is no slice is named and the rest goes on."""

    def change(number: int, dataset: Dataset) -> Dataset:
        if number == 0:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        if number == 11:
            dataset.ImageType = ["DERIVED", "SECONDARY", "MPR"]
            dataset.Rows, dataset.Columns = 41, 30
        return dataset

    files = write_series(tmp_path, change=change)
    source = read_series(files)
    assert source.volume.array.shape == (10, 30, 41)
    reasons = sorted(reason for _, reason in source.left_out)
    assert reasons[0] == "a localiser"
    assert reasons[1].startswith("another image type (DERIVED\\SECONDARY\\MPR")
    assert contiguous(_headers(files))
    assert summarise(_headers(files), "1", "2").instances == 10


def test_the_same_file_twice_counts_once(tmp_path: Path) -> None:
    """SCOPE B2: a study sent twice is no duplicate position."""
    files = write_series(tmp_path)
    source = read_series([*files, files[3]])
    assert source.volume.array.shape[0] == 12
    assert source.left_out[0][1] == "the same instance again"


def test_two_series_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """SCOPE B2: interleaved series are separated before reading."""
    files = write_series(tmp_path, change=_with("SeriesInstanceUID", "1.2.3.4", 3))
    with pytest.raises(ValueError, match="2 series"):
        read_series(files)
    assert sorted(map(len, find_series(tmp_path).values())) == [1, 11]


def test_positions_rounded_to_a_tenth_still_make_a_volume(tmp_path: Path) -> None:
    """SCOPE B2: 0.625 mm steps written with one decimal are no gaps."""

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.ImagePositionPatient = ["-100", "33.3", f"{700 + number * 0.625:.1f}"]
        return dataset

    source = read_series(write_series(tmp_path, geometry((50, 8, 9)), change))
    assert source.volume.geometry.spacing[0] == pytest.approx(0.625, abs=0.002)


@pytest.mark.parametrize(
    "case",
    [
        (1, -1024, 0, False, np.int16, -1024.0),
        (1, 0, -1000, True, np.int16, -1000.0),
        (1, -1024, 65535, False, np.float32, 64511.0),  # fits no int16
        (2, -1000, 1500, False, np.int16, 2000.0),
        (0.5, -1000, 3, False, np.float32, -998.5),
        (1, -1024, -32768, True, np.float32, -33792.0),
    ],
)
def test_rescale(tmp_path: Path, case: tuple[float, float, int, bool, type, float]) -> None:
    """SCOPE B1: int16 where whole numbers fit, else float32; signed and unsigned."""
    slope, intercept, stored, signed, kind, first = case

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), str(intercept)
        dataset.PixelRepresentation = int(signed)
        dataset.BitsStored, dataset.HighBit = 16, 15
        pixels = np.zeros((30, 41), np.int16 if signed else np.uint16)
        pixels[0, 0] = stored
        dataset.PixelData = pixels.tobytes()
        return dataset

    volume = read_series(write_series(tmp_path, change=change)).volume
    assert volume.array.dtype == kind
    assert volume.array[0, 0, 0] == first
    assert volume.array[0, 0, 1] == intercept


def test_slope_may_differ_between_slices(tmp_path: Path) -> None:
    """SCOPE B1: rescale is applied per slice (PET)."""

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.RescaleSlope, dataset.Modality = f"{0.25 * (number + 1)}", "PT"
        dataset.RescaleIntercept = "0"
        dataset.PixelData = np.full((30, 41), 8, np.uint16).tobytes()
        return dataset

    source = read_series(write_series(tmp_path, change=change))
    assert source.volume.unit == "stored"
    assert source.volume.array[:, 0, 0].tolist() == [2.0 * (n + 1) for n in range(12)]


def test_overlay_bits_and_padding(tmp_path: Path) -> None:
    """SCOPE B1: unused high bits are no value; padding that was written unsigned becomes air, not metal."""

    def change(number: int, dataset: Dataset) -> Dataset:
        pixels = np.full((30, 41), 1000, np.uint16)
        if number == 3:
            dataset.BitsStored, dataset.HighBit = 12, 11
            pixels[0, 0] |= 0x8000
        else:
            dataset.BitsStored, dataset.HighBit = 16, 15
            dataset.add_new("PixelPaddingValue", "US", 63536)
            pixels[0, 1] = 63536
        dataset.RescaleIntercept = "-1024"
        dataset.PixelData = pixels.tobytes()
        return dataset

    array = read_series(write_series(tmp_path, change=change)).volume.array
    assert array.dtype == np.int16
    assert array[3, 0, 0] == -24
    assert array[2, 0, 1] == -1024


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_encodings_of_the_data_set(tmp_path: Path, syntax: UID) -> None:
    """SCOPE A1, B1: implicit, big-endian, deflated and run-length encoded, with padding to be read right."""

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.add_new("PixelPaddingValue", "US", 0x0800)
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)
            return dataset
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        plain = Dataset(dataset)
        plain.file_meta = dataset.file_meta
        plain.file_meta.TransferSyntaxUID = syntax
        return plain

    source = read_series(write_series(tmp_path, change=change))
    assert np.array_equal(source.volume.array, ramp(geometry()).array)
    assert whole(source.datasets[0], "PixelPaddingValue") == 0x0800
    assert contiguous(_headers(sorted(tmp_path.iterdir())))


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: float) -> None:
    """SCOPE B1: a file cut anywhere is refused; pydicom alone would take it."""
    files = write_series(tmp_path)
    content = files[4].read_bytes()
    files[4].write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(errors.FileDamaged):
        read_series(files)
    with pytest.raises(errors.NotParseable):
        parse_header(files[4])


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400), syntax=st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", ""]))
def test_garbage_is_not_parseable_or_harmless(data: bytes, syntax: str) -> None:
    """SCOPE A2: whatever the bytes, the header parser ends with NotParseable and nothing else."""
    with pytest.raises(errors.NotParseable):
        parse_header(b"\0" * 128 + b"DICM" + data if not syntax else data, syntax)


def test_nested_sequences_are_limited() -> None:
    """SCOPE A2: a few hundred bytes of nested sequences are refused before pydicom can choke on them."""
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = b"".join(b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + item for _ in range(60))
    with pytest.raises(errors.NotParseable, match="nested"):
        parse_header(nested, "1.2.840.10008.1.2.1")


def test_deflated_bombs_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """SCOPE A2: a small deflated data set may not become a huge one."""
    monkeypatch.setattr("dicom_node.elements.MAX_INFLATED", 1 << 20)
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = engine.compress(b"\0" * (8 << 20)) + engine.flush()
    with pytest.raises(errors.NotParseable, match="more than 1 MiB"):
        parse_header(bomb, "1.2.840.10008.1.2.1.99")


def test_find_series_reports_what_it_skips(tmp_path: Path) -> None:
    """SCOPE B2: any files, any depth; what is not DICOM is named."""
    write_series(tmp_path / "a" / "b")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty").touch()
    skipped: dict[str, str] = {}
    found = find_series(tmp_path, lambda path, reason: skipped.update({path.name: reason}))
    assert [len(files) for files in found.values()] == [12]
    assert set(skipped) == {"notes.txt", "empty"}


@pytest.mark.parametrize(
    ("archive", "shape", "spacing", "values"),
    [
        ("dicom_ct/chest_siemens_sensation10_8mm.tar.xz", (30, 512, 512), (8.0, 0.646, 0.646), (-1024, 1548)),
        ("dicom_ct/abdomen_siemens_mct_j2k_20slices.zip", (20, 512, 512), (2.0, 0.977, 0.977), (-1024, 1839)),
        ("dicom_ct/headphantom_philips_study1_scout_axial_sc.tar.xz:S2010",
         (28, 512, 512), (5.0, 0.451, 0.451), (-1024, 782)),
        ("dicom_mr/brain_t1_siemens_skyra_child_sagittal_192.tar.xz",
         (192, 256, 256), (0.9, 0.859, 0.859), (0, 713)),
        ("dicom_mr/brain_t1_7t_implicitvr_nonsquare_384.tar.xz",
         (384, 384, 274), (0.667, 0.667, 0.700), (0, 278)),
    ],
)  # fmt: skip
def test_real_series(
    unpacked: Callable[[str], Path], archive: str, shape: tuple[int, ...], spacing: tuple[float, ...],
    values: tuple[int, int],
) -> None:  # fmt: skip
    """SCOPE B1, B2: real series of four vendors, as the data's own table describes them."""
    name, _, folder = archive.partition(":")
    [files] = find_series(unpacked(name) / folder).values()
    source = read_series(files)
    assert source.volume.array.shape == shape
    assert source.volume.geometry.spacing == pytest.approx(spacing, abs=0.001)
    assert (source.volume.array.min(), source.volume.array.max()) == values
    assert contiguous(_headers(files))


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        ("dicom_ct/headphantom_philips_tilt16_58slices.tar.xz", errors.GantryTilt),
        ("dicom_mr/brain_epi_ge_10vol_timeseries.zip", errors.DuplicatePosition),
        ("dicom_mr/brain_epi_siemens_mosaic.zip", errors.NotAVolume),
        ("dicom_mr/brain_enhanced_multiframe_philips_fieldmap.zip", errors.NotAVolume),
        ("odd_dicom/broken_geometry_ct_mr.zip:gantrytilting", errors.GantryTilt),
        ("odd_dicom/broken_geometry_ct_mr.zip:notavolume", errors.DuplicatePosition),
        ("odd_dicom/broken_geometry_ct_mr.zip:slicecount", errors.TooFewSlices),
        ("odd_dicom/broken_geometry_ct_mr.zip:sliceincrement/001", errors.SliceGap),
        ("odd_dicom/broken_geometry_ct_mr.zip:sliceincrement/002", errors.SliceGap),
        ("odd_dicom/broken_geometry_ct_mr.zip:sliceorientation", errors.MixedOrientation),
    ],
)
def test_real_series_that_are_no_volume(
    unpacked: Callable[[str], Path], archive: str, error: type[errors.NodeError]
) -> None:
    """SCOPE B2: real headers that other software stacks without a word."""
    name, _, folder = archive.partition(":")
    [files] = find_series(unpacked(name) / folder).values()
    with pytest.raises(error):
        read_series(files)


@pytest.mark.parametrize(
    "folder", ["anatomical", "compressed_j2k", "compressed_jpeg", "compressed_jpegls", "compressed_rle"]
)
def test_compressed_series_are_read_as_itk_reads_them(unpacked: Callable[[str], Path], folder: str) -> None:
    """SCOPE B1: JPEG 2000, JPEG lossless, JPEG-LS and RLE, voxel by voxel against another reader."""
    itk = pytest.importorskip("SimpleITK")
    [files] = find_series(unpacked("odd_dicom/mr_4slices_each_transfer_syntax.zip") / folder).values()
    source = read_series(files)
    by_uid = {str(parse_header(path).SOPInstanceUID): path for path in files}
    for dataset, values in zip(source.datasets, source.volume.array, strict=True):
        image = itk.GetArrayFromImage(itk.ReadImage(str(by_uid[str(dataset.SOPInstanceUID)])))
        assert np.array_equal(values, image[0])


def test_a_lying_code_stream_is_not_decoded(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    """SCOPE A2: size inside the compressed image against the header, before a native decoder sees it."""
    [files] = find_series(
        unpacked("odd_dicom/mr_4slices_each_transfer_syntax.zip") / "compressed_jpegls"
    ).values()
    for path in files:
        content = bytearray(path.read_bytes())
        at = content.index(b"\xff\xf7")
        content[at + 5 : at + 9] = (60000).to_bytes(2, "big") * 2
        (tmp_path / path.name).write_bytes(content)
    with pytest.raises(errors.PixelsUndecodable, match="60000 x 60000"):
        read_series(sorted(tmp_path.iterdir()))


def test_organs_are_where_their_labels_are(unpacked: Callable[[str], Path], shared_data: Path) -> None:
    """SCOPE B1: mean HU inside liver, spleen, aorta and T12 of a real CT with blanked UIDs (J2K)."""
    nibabel = pytest.importorskip("nibabel")
    [files] = find_series(unpacked("dicom_ct/abdomen_siemens_mct_j2k_20slices.zip")).values()
    volume = read_series(files).volume
    image = nibabel.load(shared_data / "dicom_ct" / "abdomen_siemens_mct_j2k_20slices_labels.nii.gz")
    labels = np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1]
    for number, mean in ((5, 89), (1, 80), (52, 177)):
        assert volume.array[labels == number].mean() == pytest.approx(mean, abs=1)
    corner = np.diag([-1, -1, 1, 1]) @ image.affine @ np.array([0, 511, 0, 1])
    assert volume.geometry.affine[:3, 3] == pytest.approx(corner[:3], abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(3, 20), step=st.floats(0.3, 10), degrees=st.floats(-80, 80), order=st.randoms(),
    missing=st.integers(1, 100),
)  # fmt: skip
def test_contiguous_sees_any_missing_slice(
    count: int, step: float, degrees: float, order, missing: int
) -> None:
    """SCOPE A3: any order, spacing and orientation; one inner slice missing is a gap."""
    angle = np.radians(degrees)
    direction = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    normal = np.cross(direction[:3], direction[3:])
    headers = [
        SliceHeader("CT", 64, 64, 1, n, tuple(normal * step * n + 5), direction, (1.0, 1.0), step,
                    ("ORIGINAL", "PRIMARY", "AXIAL"), "", "1.2.3")
        for n in range(count)
    ]  # fmt: skip
    order.shuffle(headers)
    assert contiguous(headers)
    summary = summarise(headers, "1", "2")
    assert summary.coverage_mm == pytest.approx(count * step, rel=1e-6)
    inner = sorted(headers, key=lambda h: h.instance_number or 0)
    if count > 4:
        inner.pop(1 + missing % (count - 2))
        assert not contiguous(inner)


def test_patient_names_in_other_alphabets(tmp_path: Path) -> None:
    """SCOPE H1: text is decoded by the data set's own character set."""

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "Müller^Jörg"
        return dataset

    source = read_series(write_series(tmp_path, change=change))
    assert str(source.datasets[0].PatientName) == "Müller^Jörg"
    assert dcmread(tmp_path / "0001").PatientName == "Müller^Jörg"
