"""Headers of source images, repaired as far as a result object that cites them needs it.

Real series lack Study ID, Accession Number, dates or patient attributes, carry malformed values, or have been
blanked by an anonymiser. A result copies what is usable (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.3.1) and leaves
empty what is not; the identifying UIDs are never changed.
"""

from collections.abc import Iterable, Sequence

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName, validate_value

from dicom_node.reading import SourceSeries
from dicom_node.slices import numbers, text
from dicom_node.uids import result_uid

CHARACTER_SET = "ISO_IR 192"

_REQUIRED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2 attributes: present in every result, empty where unknown."""
_OPTIONAL = (
    "IssuerOfPatientID", "PatientBirthTime", "PatientAge", "PatientSize", "PatientWeight",
    "PatientIdentityRemoved", "DeidentificationMethod", "StudyDescription", "TimezoneOffsetFromUTC",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)  # fmt: skip
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
_REQUEST = (
    "AccessionNumber", "RequestedProcedureID", "RequestedProcedureDescription", "ScheduledProcedureStepID",
    "ScheduledProcedureStepDescription",
)  # fmt: skip
_REFERENCED_REQUEST = (
    "AccessionNumber", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID", "RequestedProcedureDescription",
)  # fmt: skip
_SEXES = frozenset({"M", "F", "O"})


def source_images(source: SourceSeries) -> list[Dataset]:
    """One small header per slice, in the volume's order, complete and valid; the first carries the patient.

    A series without Frame of Reference UID gets one that follows from its Series Instance UID.
    """
    first = source.datasets[0]
    frame = text(first, "FrameOfReferenceUID")
    frame = frame or result_uid("frame of reference of series", text(first, "SeriesInstanceUID"))
    images = [_slice(dataset, frame) for dataset in source.datasets]
    thickness = numbers(first, "SliceThickness", 1)
    known = thickness is not None and thickness[0] > 0
    images[0].SliceThickness = thickness[0] if thickness and known else source.volume.geometry.spacing[0]
    _copy(first, images[0], _OPTIONAL)
    _copy_codes(first, images[0], "ProcedureCodeSequence")
    _copy_codes(first, images[0], "DeidentificationMethodCodeSequence")
    for image in images:
        image.SpecificCharacterSet = CHARACTER_SET
    return images


def request_attributes(source: SourceSeries) -> list[Dataset]:
    """Items for Request Attributes Sequence (0040,0275), as far as the source has usable ones."""
    items = []
    for request in _items(source.datasets[0], "RequestAttributesSequence"):
        item = Dataset()
        _copy(request, item, _REQUEST)
        _copy_codes(request, item, "RequestedProcedureCodeSequence")
        if "RequestedProcedureID" in item:
            items.append(item)
    return items


def referenced_requests(source: SourceSeries) -> list[Dataset]:
    """Items for Referenced Request Sequence (0040,A370) of a report: which order it answers."""
    first = source.datasets[0]
    items = []
    for request in _items(first, "RequestAttributesSequence"):
        item = Dataset()
        for keyword in _REFERENCED_REQUEST:
            setattr(item, keyword, "")
        if text(first, "AccessionNumber"):
            _copy(first, item, ("AccessionNumber",))
        _copy(request, item, _REFERENCED_REQUEST)
        item.StudyInstanceUID = text(first, "StudyInstanceUID")
        item.ReferencedStudySequence = []
        item.RequestedProcedureCodeSequence = []
        _copy_codes(request, item, "RequestedProcedureCodeSequence")
        items.append(item)
    return items


def _slice(dataset: Dataset, frame_of_reference: str) -> Dataset:
    image = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"):
        setattr(image, keyword, text(dataset, keyword))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        setattr(image, keyword, text(dataset, keyword).split("\\"))
    for keyword in ("Rows", "Columns"):
        setattr(image, keyword, dataset[keyword].value)
    image.FrameOfReferenceUID = frame_of_reference
    image.PositionReferenceIndicator = ""
    for keyword in _REQUIRED:
        setattr(image, keyword, _valid(dataset, keyword) or "")
    if image.PatientSex not in _SEXES:
        image.PatientSex = ""
    name = str(image.PatientName)
    if name and "^" not in name:  # highdicom's warning about such a name would quote it
        image.PatientName = f"{name}^"
    return image


def _copy(source: Dataset, target: Dataset, keywords: Iterable[str]) -> None:
    """Copies the attributes that have a valid value."""
    for keyword in keywords:
        value = _valid(source, keyword)
        if value:
            setattr(target, keyword, value)


def _copy_codes(source: Dataset, target: Dataset, keyword: str) -> None:
    """Copies a sequence of codes (PS3.3 8.8) without the items that lack value, scheme or meaning."""
    items = []
    for code in _items(source, keyword):
        item = Dataset()
        _copy(code, item, _CODE)
        if {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"} <= {e.keyword for e in item}:
            items.append(item)
    if items:
        setattr(target, keyword, items)


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    try:
        return list(dataset.get(keyword) or [])
    except (ValueError, TypeError, AttributeError, NotImplementedError, OSError):
        return []


def _valid(dataset: Dataset, keyword: str) -> str | None:
    """The value as text in Unicode, or None where it is absent or breaks the rules of its VR (PS3.5 6.2)."""
    vr = dictionary_VR(keyword)
    value = text(dataset, keyword)
    try:
        if vr == "PN":
            value = str(PersonName(value))
        validate_value(vr, value, RAISE)
        if vr in {"DS", "IS"} and value:
            float(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return None if not value or "\\" in value else value
