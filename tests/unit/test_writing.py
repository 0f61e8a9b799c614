"""Results as CONFORMANCE.md wants them, row by row, on a made series with orders and odd headers."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_node.errors import WritingFailed
from dicom_node.reading import SourceSeries, read_series
from dicom_node.records import ResultObject
from dicom_node.segmentation_reader import read_segmentation
from dicom_node.writing.results import write_results
from models.labels import LabelMap, Measurement
from models.measurements import measure
from tests.results import CONTEXT, MANIFEST, geometry, two_blocks, write_series

SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


def _ordered(number: int, dataset: Dataset) -> Dataset:
    """A slice that came with an order."""
    request, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CHEST", "99HOSP", "CT chest"
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP7", "SPS8"
    request.RequestedProcedureDescription = "Thorax"
    request.AccessionNumber = "A0001"
    request.PlacerOrderNumberImagingServiceRequest = "PL1"
    request.FillerOrderNumberImagingServiceRequest = "FI1"
    request.RequestedProcedureCodeSequence = [code]
    dataset.RequestAttributesSequence = [request]
    dataset.TimezoneOffsetFromUTC = "+0100"
    return dataset


@dataclass(frozen=True)
class Written:
    """A source and its results, read back plainly."""

    source: SourceSeries
    label_map: LabelMap
    measurements: tuple[Measurement, ...]
    results: tuple[ResultObject, ...]
    folder: Path

    def open(self, kind: str) -> Dataset:
        [result] = [r for r in self.results if r.kind == kind]
        return dcmread(self.folder / result.path)


def _written(
    folder: Path,
    change: Callable[[int, Dataset], Dataset | None] = _ordered,
    label: Callable[..., LabelMap] = two_blocks,
) -> Written:
    source = read_series(write_series(folder / "source", geometry(degrees=15), change))
    label_map = label(source.volume.geometry)
    measurements = measure(label_map, source.volume)
    results = write_results(source, label_map, measurements, CONTEXT, folder / "out")
    return Written(source, label_map, measurements, results, folder / "out")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return _written(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def seg(written: Written) -> Dataset:
    return written.open("SEG")


@pytest.fixture(scope="module")
def sr(written: Written) -> Dataset:
    return written.open("SR")


def _items(item: Dataset, code: str) -> list[Dataset]:
    """All content items of that concept, anywhere below."""
    found = []
    for child in item.get("ContentSequence", []):
        if "ConceptNameCodeSequence" in child and child.ConceptNameCodeSequence[0].CodeValue == code:
            found.append(child)
        found += _items(child, code)
    return found


def _code(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


def test_a1_only_allowed_classes(written: Written) -> None:
    """CONFORMANCE A1, SCOPE G1, G2: a Segmentation and a Comprehensive 3D SR."""
    assert [(r.kind, r.sop_class_uid) for r in written.results] == [("SEG", SEG_CLASS), ("SR", SR_CLASS)]
    for result in written.results:
        dataset = dcmread(written.folder / result.path)
        assert (
            dataset.file_meta.MediaStorageSOPInstanceUID == result.sop_instance_uid == dataset.SOPInstanceUID
        )
        assert result.size == (written.folder / result.path).stat().st_size
    assert sorted(p.name for p in written.folder.iterdir()) == ["seg.dcm", "sr.dcm"]


def test_a2_root_template(sr: Dataset) -> None:
    """CONFORMANCE A2: TID 1500 at the root."""
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert sr.ContentTemplateSequence[0].MappingResource == "DCMR"


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_a3_contributing_equipment(written: Written, kind: str) -> None:
    """CONFORMANCE A3: the algorithm as equipment, its Device UID changes with the model."""
    [item] = written.open(kind).ContributingEquipmentSequence
    assert item.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Algorithm"
    assert (item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions) == (
        "segnode",
        "ct-lungs",
        "1.2.3",
    )
    other = replace(CONTEXT, manifest=MANIFEST.model_copy(update={"digest": "ef" * 32}))
    assert item.DeviceUID == CONTEXT.device_uid != other.device_uid


def test_a5_language_and_procedure(sr: Dataset) -> None:
    """CONFORMANCE A5: language of the document, procedure reported."""
    assert _code(_items(sr, "121049")[0]) == "en-US"
    assert _code(_items(sr, "121058")[0]) == "25045-6"
    assert _items(sr, "126010")


def test_a6_device_observer(sr: Dataset) -> None:
    """CONFORMANCE A6: a device observed, no person; its UID is there."""
    assert [_code(item) for item in _items(sr, "121005")] == ["121007"]
    assert CONTEXT.device_uid == _items(sr, "121012")[0].UID
    assert not _items(sr, "121008")


def test_a7_groups(written: Written, sr: Dataset) -> None:
    """CONFORMANCE A7, SCOPE G2: per label found one group with one segment, its source, and the figures."""
    groups = _items(sr, "125007")
    assert len(groups) == 2
    for number, (group, measured) in enumerate(zip(groups, written.measurements[:2], strict=True), 1):
        [segment] = _items(group, "121191")
        assert segment.ReferencedSOPSequence[0].ReferencedSegmentNumber == number
        [series] = _items(group, "121232")
        assert written.source.summary.series_instance_uid == series.UID
        assert len(_items(group, "112039")) == len(_items(group, "112040")) == 1
        [volume] = _items(group, "118565006")
        assert float(volume.MeasuredValueSequence[0].NumericValue) == pytest.approx(
            measured.volume_ml, abs=5e-4
        )
        values = {
            _code(_items(item, "121401")[0]): float(item.MeasuredValueSequence[0].NumericValue)
            for item in _items(group, "112031")
        }
        assert values["373098007"] == pytest.approx(measured.mean, abs=0.006)
        assert values["386136009"] == pytest.approx(measured.sd, abs=0.006)
        assert values["255605001"] == measured.minimum
        assert values["56851009"] == measured.maximum


def test_a8_algorithm(sr: Dataset) -> None:
    """CONFORMANCE A8: name, version, and parameters with engine and precision, in every group."""
    for group in _items(sr, "125007"):
        assert [i.TextValue for i in _items(group, "111001")] == ["ct-lungs"]
        assert [i.TextValue for i in _items(group, "111003")] == ["1.2.3"]
        parameters = {i.TextValue for i in _items(group, "111002")}
        assert {"engine=openvino 2026.4", "precision=bf16"} <= parameters


def test_a9_nothing_found_is_a_report(tmp_path: Path) -> None:
    """CONFORMANCE A9: no SEG, but an SR with a group per label that says absent."""

    def nothing(grid):
        return LabelMap(np.zeros(grid.shape, np.uint8), grid, MANIFEST.segment_labels)

    written = _written(tmp_path, label=nothing)
    assert [r.kind for r in written.results] == ["SR"]
    sr = written.open("SR")
    assert len(_items(sr, "125007")) == 3
    assert [_code(item) for item in _items(sr, "121052")] == ["121054"] * 3
    assert not _items(sr, "121191")
    assert written.results[0].facts["absent"] == ["Left lung", "Right lung", "Trachea"]


def test_an_absent_label_beside_found_ones(sr: Dataset) -> None:
    """CONFORMANCE A9, A14: the trachea was not found, and the report says so."""
    [absent] = _items(sr, "121052")
    assert _code(absent) == "121054"
    assert _code(_items(absent, "363698007")[0]) == "44567001"


def test_a10_finding_site(sr: Dataset) -> None:
    """CONFORMANCE A10, A15: finding site is HAS CONCEPT MOD and carries the side."""
    sites = [site for group in _items(sr, "125007") for site in _items(group, "363698007")]
    assert [_code(site) for site in sites] == ["39607008"] * 2
    assert [site.RelationshipType for site in sites] == ["HAS CONCEPT MOD"] * 2
    assert [_code(_items(site, "272741003")[0]) for site in sites] == ["7771000", "24028007"]


def test_quality_sentences(sr: Dataset) -> None:
    """SCOPE G2: a volume outside the plausible range is said; so are the remarks of the job."""
    codes = [[_code(i) for i in _items(group, "QC01")] for group in _items(sr, "125007")]
    assert codes == [["QC02"], []]
    assert [i.TextValue for i in _items(sr, "121106")] == ["Tested only."]
    assert [i.CodingSchemeDesignator for i in sr.CodingSchemeIdentificationSequence] == ["99SEGNODE"]


def test_a_structure_that_may_be_cut_off(tmp_path: Path) -> None:
    """SCOPE G2: a label in the first slice may go on outside the image, and the report says so."""

    def cut(grid):
        label_map = two_blocks(grid)
        label_map.array[0, 20:25, 20:30] = 2
        return label_map

    sr = _written(tmp_path, label=cut).open("SR")
    assert [[_code(i) for i in _items(g, "QC01")] for g in _items(sr, "125007")] == [["QC02"], ["QC03"]]


def test_a11_evidence(written: Written, sr: Dataset, seg: Dataset) -> None:
    """CONFORMANCE A11, A16: every source image and the SEG are in the evidence; all of this study."""
    [study] = sr.CurrentRequestedProcedureEvidenceSequence
    cited = {
        str(i.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    }
    sources = {str(d.SOPInstanceUID) for d in written.source.datasets}
    assert cited == sources | {str(seg.SOPInstanceUID)}
    assert study.StudyInstanceUID == sr.StudyInstanceUID == seg.StudyInstanceUID
    assert seg.StudyInstanceUID == written.source.summary.study_instance_uid


def test_a12_functional_groups(seg: Dataset, written: Written) -> None:
    """CONFORMANCE A12, A22: every frame has what the standard asks for, and its own dimension values."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx([0.8, 0.7])
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == pytest.approx(2.5)
    assert len(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == 6
    sources = {str(d.SOPInstanceUID): d for d in written.source.datasets}
    seen = set()
    for frame in seg.PerFrameFunctionalGroupsSequence:
        seen.add(tuple(frame.FrameContentSequence[0].DimensionIndexValues))
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber in {1, 2}
        derivation = frame.DerivationImageSequence[0]
        assert derivation.DerivationCodeSequence[0].CodeValue == "113076"
        image = derivation.SourceImageSequence[0]
        assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        source = sources[str(image.ReferencedSOPInstanceUID)]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert position == pytest.approx([float(v) for v in source.ImagePositionPatient])
    assert len(seen) == seg.NumberOfFrames == written.results[0].facts["frames"]


def test_a13_frame_of_reference_and_grid(written: Written, seg: Dataset) -> None:
    """CONFORMANCE A13: same frame of reference, same grid."""
    first = written.source.datasets[0]
    assert seg.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert (seg.Rows, seg.Columns) == (first.Rows, first.Columns)


def test_a14_a15_segments(seg: Dataset) -> None:
    """CONFORMANCE A14, A15: numbered 1, 2; each fully described, none like the other."""
    assert [s.SegmentNumber for s in seg.SegmentSequence] == [1, 2]
    kinds = set()
    for segment in seg.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentAlgorithmName == "ct-lungs"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == "1.2.3"
        assert "precision=bf16" in algorithm.AlgorithmParameters
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert len(segment.RecommendedDisplayCIELabValue) == 3
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        side = kind.SegmentedPropertyTypeModifierCodeSequence[0]
        kinds.add((kind.CodeValue, side.CodeValue))
    assert kinds == {("39607008", "7771000"), ("39607008", "24028007")}


def test_a14_labels_are_renumbered(tmp_path: Path) -> None:
    """CONFORMANCE A14: with label 1 absent, labels 2 and 3 become segments 1 and 2."""

    def shifted(grid):
        label_map = two_blocks(grid)
        label_map.array[label_map.array > 0] += 1
        return label_map

    written = _written(tmp_path, label=shifted)
    segments = written.open("SEG").SegmentSequence
    assert [(s.SegmentNumber, s.SegmentLabel) for s in segments] == [(1, "Right lung"), (2, "Trachea")]


@pytest.mark.parametrize("slices", [slice(None), slice(2, 3)])
def test_a_single_structure_is_written_and_read(tmp_path: Path, slices: slice) -> None:
    """CONFORMANCE A12: one label only, on many slices or on one: its segment number may be a shared group."""

    def alone(grid):
        label_map = two_blocks(grid)
        kept = np.zeros_like(label_map.array)
        kept[slices] = label_map.array[slices] == 1
        return LabelMap(kept, grid, label_map.labels)

    written = _written(tmp_path, label=alone)
    assert [result.kind for result in written.results] == ["SEG", "SR"]
    found = read_segmentation(written.folder / "seg.dcm", written.source.volume.geometry)
    assert np.array_equal(found.array, written.label_map.array)


def test_a16_same_tracking_pair(seg: Dataset, sr: Dataset) -> None:
    """CONFORMANCE A16: SR and SEG name the same thing by the same UID, and the SR cites the SEG."""
    for segment, group in zip(seg.SegmentSequence, _items(sr, "125007"), strict=True):
        assert segment.TrackingUID == _items(group, "112040")[0].UID
        assert _items(group, "112039")[0].TextValue == segment.TrackingID
        cited = _items(group, "121191")[0].ReferencedSOPSequence[0]
        assert cited.ReferencedSOPInstanceUID == seg.SOPInstanceUID


def test_a17_units(sr: Dataset) -> None:
    """CONFORMANCE A17: UCUM units from the allow-list."""
    units = {
        (unit.CodeValue, unit.CodingSchemeDesignator)
        for group in _items(sr, "125007")
        for item in group.ContentSequence
        if item.ValueType == "NUM"
        for unit in item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence
    }
    assert units == {("mL", "UCUM"), ("[hnsf'U]", "UCUM")}


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_a18_identity(written: Written, kind: str) -> None:
    """CONFORMANCE A18, SCOPE H1: patient, study and order copied; own series that names the model."""
    dataset, first = written.open(kind), written.source.datasets[0]
    for keyword in (
        "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
        "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
        "TimezoneOffsetFromUTC",
    ):  # fmt: skip
        assert dataset[keyword].value == first[keyword].value, keyword
    assert dataset.SeriesInstanceUID != first.SeriesInstanceUID
    assert dataset.SeriesNumber >= 9000
    assert dataset.SeriesDescription.startswith("ct-lungs 1.2.3 ")
    assert (dataset.ContentDate, str(dataset.ContentTime)) == ("20261120", "130001.250000")  # at +0100
    if kind == "SEG":
        [request] = dataset.RequestAttributesSequence
    else:
        [request] = dataset.ReferencedRequestSequence
        assert request.FillerOrderNumberImagingServiceRequest == "FI1"
        assert request.StudyInstanceUID == first.StudyInstanceUID
        assert request.AccessionNumber == "A0001"
    assert request.RequestedProcedureID == "RP7"
    assert request.RequestedProcedureCodeSequence[0].CodeValue == "CHEST"


def test_a18_series_are_different(seg: Dataset, sr: Dataset) -> None:
    """CONFORMANCE A18: SEG and SR are series of their own, by UID and number."""
    assert seg.SeriesInstanceUID != sr.SeriesInstanceUID
    assert seg.SeriesNumber != sr.SeriesNumber


def test_a21_again_gives_the_same_bytes(written: Written, tmp_path: Path) -> None:
    """CONFORMANCE A21, SCOPE G7: written again, byte by byte the same, whatever the clock says."""
    again = write_results(written.source, written.label_map, written.measurements, CONTEXT, tmp_path)
    for one, other in zip(written.results, again, strict=True):
        assert one == other
        assert (written.folder / one.path).read_bytes() == (tmp_path / other.path).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"content_digest": "ee" * 32},
        {"engine": "onnxruntime"},
        {"engine_version": "2027.0"},
        {"precision": "fp32"},
        {"software_version": "0.2.0"},
        {"manifest": MANIFEST.model_copy(update={"digest": "ef" * 32})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a21_other_work_has_other_uids(written: Written, tmp_path: Path, change: dict) -> None:
    """CONFORMANCE A21: whatever changes the content changes every UID of the result."""
    context = replace(CONTEXT, **change)
    other = write_results(written.source, written.label_map, written.measurements, context, tmp_path)
    for one, two in zip(written.results, other, strict=True):
        assert one.sop_instance_uid != two.sop_instance_uid
        assert one.series_instance_uid != two.series_instance_uid


def test_time_alone_keeps_the_uids(written: Written, tmp_path: Path) -> None:
    """SCOPE G7: the same series sent again much later gives the same objects, so none appears twice."""
    later = replace(CONTEXT, completed_at=CONTEXT.completed_at + timedelta(days=3))
    again = write_results(written.source, written.label_map, written.measurements, later, tmp_path)
    assert [r.sop_instance_uid for r in again] == [r.sop_instance_uid for r in written.results]


def _blanked(number: int, dataset: Dataset) -> Dataset:
    for keyword in (
        "StudyID", "AccessionNumber", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate",
        "StudyTime", "SliceThickness", "ReferringPhysicianName", "SeriesNumber", "FrameOfReferenceUID",
        "PatientID",
    ):  # fmt: skip
        if keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def _malformed(number: int, dataset: Dataset) -> Dataset:
    request, empty = Dataset(), Dataset()
    empty.CodeMeaning = "a code without a value"
    request.RequestedProcedureCodeSequence = [empty]
    dataset.RequestAttributesSequence = [request]
    dataset.ProcedureCodeSequence = [empty]
    for keyword, vr, raw in (
        ("StudyDate", "DA", b"2026-01-02x"), ("StudyTime", "TM", b"9:61"),
        ("PatientBirthDate", "DA", b"unknown"), ("PatientSex", "CS", b"male"), ("PatientAge", "AS", b"57"),
        ("PatientWeight", "DS", b"heavy"), ("StudyID", "SH", b"an identifier that is too long"),
        ("SliceThickness", "DS", b"thin"), ("SeriesNumber", "IS", b"three"),
        ("TimezoneOffsetFromUTC", "SH", b"CET"),
    ):  # fmt: skip
        tag = BaseTag(tag_for_keyword(keyword) or 0)
        dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    return dataset


@pytest.mark.parametrize("change", [_blanked, _malformed])
def test_broken_headers_do_not_stop_us(tmp_path: Path, change: Callable[[int, Dataset], Dataset]) -> None:
    """SCOPE B2, I1: what is missing or malformed is left empty; the result is written and valid."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom's warnings quote values
        written = _written(tmp_path, change)
    seg = written.open("SEG")
    for keyword in ("StudyDate", "StudyTime", "PatientBirthDate", "PatientSex", "StudyID"):
        assert seg[keyword].value in {"", None}
    assert seg.FrameOfReferenceUID
    assert "ProcedureCodeSequence" not in seg
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == pytest.approx(2.5)


def test_text_of_another_character_set(tmp_path: Path) -> None:
    """CONFORMANCE A18: names survive the change to UTF-8."""

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "Müller^Jörg"
        return dataset

    for kind in ("SEG", "SR"):
        dataset = _written(tmp_path / kind, change).open(kind)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == "Müller^Jörg"


def test_a_name_without_caret_stays_private(tmp_path: Path) -> None:
    """SCOPE I9, CONFORMANCE A18: such a name is copied as it is and no warning quotes it."""

    def change(number: int, dataset: Dataset) -> Dataset:
        dataset.PatientName = "Nobody"
        return dataset

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = _written(tmp_path, change)
    assert [str(written.open(kind).PatientName) for kind in ("SEG", "SR")] == ["Nobody", "Nobody"]


def test_another_grid_is_a_mistake_of_the_caller(written: Written, tmp_path: Path) -> None:
    """SCOPE G1: the label map must lie on the source grid."""
    other = two_blocks(geometry((12, 30, 41), 3.0))
    with pytest.raises(ValueError, match="grid"):
        write_results(written.source, other, written.measurements, CONTEXT, tmp_path)


def test_a_full_disk_is_named(written: Written, tmp_path: Path) -> None:
    """SCOPE I6: what cannot be stored is WritingFailed, and no half file gets a result's name."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(WritingFailed, match="could not be stored"):
        write_results(written.source, written.label_map, written.measurements, CONTEXT, blocked)
