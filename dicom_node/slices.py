"""One instance's header as completion, routing and the listener see it: what places it, no pixels."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from dicom_node.elements import open_encoded, walk
from dicom_node.errors import NotParseable
from dicom_node.records import SliceHeader
from dicom_node.uids import result_uid

_KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "AccessionNumber", "Modality",
    "Manufacturer", "SeriesDescription", "PatientID", "BodyPartExamined", "SliceThickness",
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel", "NumberOfFrames", "Rows",
    "Columns", "PixelSpacing",
)  # fmt: skip
_TAGS = {tag_for_keyword(keyword): keyword for keyword in _KEYWORDS}
_REQUIRED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def parse_header(source: bytes | Path, transfer_syntax_uid: str = "") -> Dataset:
    """What listener and routing need of a Part 10 file or, its transfer syntax given, of a bare data set.

    Walks the whole structure, so a truncated data set is noticed; decodes nothing. Empty UIDs are
    filled as `complete_identity` says. Raises NotParseable for a damaged data set, for one
    without Study, Series or SOP Instance UID, and for what is not DICOM.
    """
    encoded = open_encoded(source, transfer_syntax_uid)
    dataset = encoded.dataset([e for e in walk(encoded) if e.tag in _TAGS and not e.undefined])
    complete_identity(dataset)
    for keyword in _REQUIRED:
        if not text(dataset, keyword):
            raise NotParseable(f"The data set has no {keyword}.")
    return dataset


def complete_identity(dataset: Dataset) -> None:
    """Fills empty UIDs that identify the instance, as blanked by some archives and anonymisers.

    SOP Class and SOP Instance UID come from the file meta information; Series and Study Instance UID, where
    empty, are derived from the Frame of Reference UID, so that the slices of one acquisition stay together.
    """
    for keyword, source in (
        ("SOPClassUID", "MediaStorageSOPClassUID"),
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    ):
        known = str(dataset.file_meta.get(source, ""))
        if known and not text(dataset, keyword):
            setattr(dataset, keyword, known)
    frame = text(dataset, "FrameOfReferenceUID")
    if frame and not text(dataset, "SeriesInstanceUID"):
        parts = (text(dataset, keyword) for keyword in ("Modality", "SeriesNumber", "SeriesDescription"))
        dataset.SeriesInstanceUID = result_uid("series of frame of reference", frame, *parts)
    if frame and not text(dataset, "StudyInstanceUID"):
        dataset.StudyInstanceUID = result_uid("study of frame of reference", frame)


def slice_header(dataset: Dataset) -> SliceHeader:
    """The header of one instance; an absent or malformed value becomes None or empty, never an error."""
    position = numbers(dataset, "ImagePositionPatient", 3)
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    spacing = numbers(dataset, "PixelSpacing", 2)
    thickness = numbers(dataset, "SliceThickness", 1)
    return SliceHeader(
        modality=text(dataset, "Modality"),
        rows=whole(dataset, "Rows"),
        columns=whole(dataset, "Columns"),
        frames=whole(dataset, "NumberOfFrames") or 1,
        instance_number=whole(dataset, "InstanceNumber"),
        position=(position[0], position[1], position[2]) if position else None,
        orientation=_six(orientation),
        pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness=thickness[0] if thickness else None,
        image_type=tuple(part.strip().upper() for part in text(dataset, "ImageType").split("\\") if part),
        body_part=text(dataset, "BodyPartExamined").upper(),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID"),
        series_description=text(dataset, "SeriesDescription"),
        manufacturer=text(dataset, "Manufacturer"),
    )


def find_series(
    folder: Path, skipped: Callable[[Path, str], None] = lambda path, reason: None
) -> dict[str, list[Path]]:
    """Files of each Series Instance UID below `folder`; `skipped` hears of every other file and why."""
    found: dict[str, list[Path]] = {}
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(parent) / name
            if not path.is_file():  # a pipe would never end
                skipped(path, "not a file")
                continue
            try:
                uid = text(parse_header(path), "SeriesInstanceUID")
            except NotParseable as error:
                skipped(path, error.sentence)
            except OSError as error:
                skipped(path, f"The file cannot be read: {error.strerror}.")
            else:
                found.setdefault(uid, []).append(path)
    return found


def text(dataset: Dataset, keyword: str) -> str:
    """The value as text, several joined by backslashes; empty where it is absent or malformed."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return ""
    item: DataElement | RawDataElement = dataset.get_item(tag)
    if isinstance(item, RawDataElement) and item.VR not in {"US", "SS"}:
        raw: bytes = item.value or b""
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii").strip("\0 ")
    try:
        value = dataset[tag].value
    except (ValueError, TypeError, OverflowError, LookupError, NotImplementedError, AttributeError):
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(str(part) for part in value)
    return "" if value is None else str(value).strip("\0 ")


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite decimal numbers, or None."""
    parts = text(dataset, keyword).split("\\")
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """One whole number (IS; US, without regard to a sign), or None."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return None
    item: DataElement | RawDataElement = dataset.get_item(tag)
    if isinstance(item, RawDataElement) and item.VR != "IS" and keyword in _BINARY_NUMBERS:
        value = item.value or b""
        if len(value) != 2:
            return None
        return int.from_bytes(value, "little" if item.is_little_endian else "big")
    try:
        return int(text(dataset, keyword))
    except ValueError:
        return None


_BINARY_NUMBERS = frozenset(
    {
        "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
        "PixelPaddingValue", "PixelPaddingRangeLimit",
    }
)  # fmt: skip


def _six(values: tuple[float, ...] | None) -> tuple[float, float, float, float, float, float] | None:
    return (values[0], values[1], values[2], values[3], values[4], values[5]) if values else None
