"""The element structure of a data set (PS3.5 7), walked over raw bytes within limits, before pydicom sees it.

Nothing is decoded: an element is a tag, a VR and the place of its value. So a hostile data set costs what its
structure costs, bounded by MAX_DEPTH and MAX_ELEMENTS, and a truncated one is noticed.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pydicom.config
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag

from dicom_node.errors import NotParseable

# Its warnings quote values, and so patients, in logs; what we use is checked where it is used.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

MAX_DEPTH = 12
MAX_ELEMENTS = 400_000
MAX_INFLATED = 1 << 29
"""Bytes that a deflated data set may become."""

PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
_VRS = {
    vr.encode(): (vr, vr in _LONG_VRS)
    for vr in {entry[0][:2] for entry in DicomDictionary.values()} | _LONG_VRS
}
_SEQUENCE_TAGS = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_DEFLATED_LE = "1.2.840.10008.1.2.1.99"
_EXPLICIT_BE = "1.2.840.10008.1.2.2"

Buffer = bytes | memoryview | mmap.mmap


class Element(NamedTuple):
    """Where an element's value lies: `start` to `stop` in the buffer, closing delimiter included."""

    tag: int
    vr: str | None
    start: int
    stop: int
    undefined: bool


@dataclass(frozen=True)
class Encoded:
    """A data set as bytes, from `start` on, and how it is encoded; `meta` is its file meta information."""

    buffer: Buffer
    start: int
    transfer_syntax_uid: str
    implicit: bool
    little: bool
    meta: FileMetaDataset

    def dataset(self, elements: list[Element]) -> Dataset:
        """A pydicom Dataset of these elements, each decoded only when somebody asks for it."""
        raw: dict[BaseTag, DataElement | RawDataElement] = {
            BaseTag(e.tag): RawDataElement(
                BaseTag(e.tag), e.vr, e.stop - e.start, bytes(self.buffer[e.start : e.stop]), e.start,
                self.implicit, self.little,
            )
            for e in elements
        }  # fmt: skip
        dataset = Dataset(raw)
        dataset.set_original_encoding(self.implicit, self.little)
        dataset.file_meta = self.meta
        return dataset


def open_encoded(source: bytes | Path, transfer_syntax_uid: str = "") -> Encoded:
    """Opens a Part 10 file (PS3.10 7.1) or, where `transfer_syntax_uid` is given, a bare data set.

    Raises NotParseable for anything else.
    """
    buffer: Buffer = source if isinstance(source, bytes) else _map(source)
    meta = FileMetaDataset()
    start = 0
    if not transfer_syntax_uid:
        meta, start = _file_meta(buffer)
        transfer_syntax_uid = str(meta.get("TransferSyntaxUID", ""))
        if not transfer_syntax_uid:
            raise NotParseable("The file meta information has no Transfer Syntax UID (0002,0010).")
    if transfer_syntax_uid == _DEFLATED_LE:
        buffer, start = _inflated(buffer, start), 0
    little = transfer_syntax_uid != _EXPLICIT_BE
    vr = bytes(buffer[start + 4 : start + 6])
    implicit = not (vr.isalpha() and vr.isupper())  # some senders declare the one and write the other
    return Encoded(buffer, start, transfer_syntax_uid, implicit, little, meta)


def walk(encoded: Encoded) -> Iterator[Element]:
    """The top-level elements in order; raises NotParseable where the structure breaks or passes a limit."""
    walker = _Walker(encoded.buffer, encoded.little)
    end = len(encoded.buffer)
    position = encoded.start
    while position < end:
        if end - position < 8 and not any(encoded.buffer[position:end]):
            return  # padding after the data set
        element = walker.element(position, end, encoded.implicit, 0)
        yield element
        position = element.stop


def _map(path: Path) -> Buffer:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise NotParseable("The file is empty.") from None


def _file_meta(buffer: Buffer) -> tuple[FileMetaDataset, int]:
    if len(buffer) < 140 or bytes(buffer[128:132]) != b"DICM":
        raise NotParseable("This is not a DICOM file: the letters DICM are missing at byte 128.")
    walker = _Walker(buffer, little=True)
    position, end = 132, len(buffer)
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    while position + 8 <= end and bytes(buffer[position : position + 2]) == b"\x02\x00":
        e = walker.element(position, end, False, 0)
        value = bytes(buffer[e.start : e.stop])
        tag = BaseTag(e.tag)
        found[tag] = RawDataElement(tag, e.vr, len(value), value, e.start, False, True)
        position = e.stop
    return FileMetaDataset(found), position


def _inflated(buffer: Buffer, start: int) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = engine.decompress(bytes(buffer[start:]), MAX_INFLATED)
    except zlib.error as error:
        raise NotParseable(f"The deflated data set cannot be inflated: {error}.") from error
    if engine.unconsumed_tail:
        raise NotParseable(f"The deflated data set would become more than {MAX_INFLATED >> 20} MiB.")
    return data


class _Walker:
    """Finds where elements end; counts them and their depth."""

    def __init__(self, buffer: Buffer, little: bool) -> None:
        order = "<" if little else ">"
        self._buffer = buffer
        self._tag_length = struct.Struct(order + "HHI").unpack_from
        self._tag_vr_length = struct.Struct(order + "HH2sH").unpack_from
        self._length = struct.Struct(order + "I").unpack_from
        self._left = MAX_ELEMENTS

    def element(self, at: int, end: int, implicit: bool, depth: int) -> Element:
        """The element that starts at `at` and must stop before `end`."""
        self._left -= 1
        if self._left < 0:
            raise NotParseable(f"The data set has more than {MAX_ELEMENTS} elements.")
        if at + 8 > end:
            raise NotParseable(f"The data set ends within an element at byte {at}.")
        group, number, raw_vr, length = self._tag_vr_length(self._buffer, at)
        vr, long = (None, False) if implicit else _VRS.get(raw_vr, (None, False))
        start = at + 8
        if (
            vr is None
        ):  # as do other readers, also for a single element without a known VR among explicit ones
            group, number, length = self._tag_length(self._buffer, at)
        elif long:
            if at + 12 > end:
                raise NotParseable(f"The data set ends within ({group:04X},{number:04X}).")
            (length,), start = self._length(self._buffer, at + 8), at + 12
        tag = group << 16 | number
        if length == _UNDEFINED:
            stop = self._sequence(start, end, vr is None or vr == "UN", depth + 1, tag in _PIXEL_TAGS)
            return Element(tag, vr, start, stop, True)
        stop = start + length
        if stop > end:
            raise NotParseable(
                f"The data set is truncated: ({group:04X},{number:04X}) announces {length} bytes, "
                f"{end - start} are there."
            )
        if vr == "SQ" or (vr is None and tag in _SEQUENCE_TAGS):
            self._sequence(start, stop, implicit, depth + 1, False, defined=True)
        return Element(tag, vr, start, stop, False)

    def _sequence(
        self, at: int, end: int, implicit: bool, depth: int, fragments: bool, defined: bool = False
    ) -> int:
        """The end of the items that start at `at`: of the delimiter, or `end` where the length is defined."""
        if depth > MAX_DEPTH:
            raise NotParseable(f"Sequences are nested more than {MAX_DEPTH} deep.")
        while not (defined and at >= end):
            self._left -= 1
            if at + 8 > end or self._left < 0:
                raise NotParseable(f"The sequence is truncated, or has too many items, at byte {at}.")
            group, number, length = self._tag_length(self._buffer, at)
            tag, at = group << 16 | number, at + 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise NotParseable(f"({group:04X},{number:04X}) at byte {at - 8} stands where an item must.")
            if fragments or length != _UNDEFINED:
                if at + length > end:
                    raise NotParseable(f"An item announces {length} bytes, {end - at} are there.")
                if not fragments:
                    self._item(at, at + length, implicit, depth, defined=True)
                at += length
            else:
                at = self._item(at, end, implicit, depth, defined=False)
        return end

    def _item(self, at: int, end: int, implicit: bool, depth: int, defined: bool) -> int:
        while not (defined and at >= end):
            if not defined and at + 8 <= end:
                group, number, _ = self._tag_length(self._buffer, at)
                if group << 16 | number == _ITEM_END:
                    return at + 8
            at = self.element(at, end, implicit, depth).stop
        return end
