"""Stored pixel data of single-frame images to values in HU (PS3.3 C.7.6.3, C.11.1)."""

import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from dicom_node.elements import Element, open_encoded
from dicom_node.errors import FileDamaged, PixelsUndecodable
from dicom_node.slices import numbers, text, whole

_THREADS = 2
_HIGHEST_HU = 3071
"""Padding that means air must not end above any CT value: some senders write it unsigned."""
_AIR_HU = -1024

Stored = NDArray[Any]


class _NotInt16(Exception):
    """A slice has values that int16 cannot hold."""


@dataclass(frozen=True)
class PixelSource:
    """Where the pixel data of one image lie and how they are to be understood."""

    path: Path
    element: Element
    transfer_syntax_uid: str
    little: bool
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    """Stored values, lowest and highest, that are no image."""

    @property
    def syntax_name(self) -> str:
        """The transfer syntax in words."""
        return UID(self.transfer_syntax_uid).name


def pixel_source(path: Path, dataset: Dataset, element: Element, syntax: tuple[str, bool]) -> PixelSource:
    """What is needed to read the pixels later; `syntax` is (transfer syntax UID, little endian).

    Raises PixelsUndecodable where the header describes no 8, 16 or 32 bit greyscale image, or a CT whose
    values cannot be turned into HU.
    """
    allocated = whole(dataset, "BitsAllocated") or 0
    if allocated not in {8, 16, 32} or (whole(dataset, "SamplesPerPixel") or 1) != 1:
        raise PixelsUndecodable(f"The images are no greyscale images of 8, 16 or 32 bits ({allocated}).")
    if "ModalityLUTSequence" in dataset:
        raise PixelsUndecodable("The images map their values by a Modality LUT (0028,3000), not by rescale.")
    slope, intercept = numbers(dataset, "RescaleSlope", 1), numbers(dataset, "RescaleIntercept", 1)
    if text(dataset, "Modality") == "CT" and (slope is None or intercept is None or slope[0] == 0):
        raise PixelsUndecodable("A CT image has no Rescale Intercept and Slope (0028,1052), (0028,1053).")
    return PixelSource(
        path, element, syntax[0], syntax[1],
        whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0,
        allocated, whole(dataset, "BitsStored") or allocated, whole(dataset, "PixelRepresentation") == 1,
        slope[0] if slope else 1.0, intercept[0] if intercept else 0.0, _padding(dataset),
    )  # fmt: skip


def read_values(sources: Sequence[PixelSource], modality: str) -> NDArray[Any]:
    """Values (slices, rows, columns): int16 where rescaled values are whole numbers that fit, else float32.

    Raises FileDamaged where pixel data are shorter than the image, PixelsUndecodable where decoding fails.
    """
    shape = (len(sources), sources[0].rows, sources[0].columns)
    if all(s.slope.is_integer() and s.intercept.is_integer() for s in sources):
        try:
            return _filled(np.empty(shape, np.int16), sources, modality)
        except _NotInt16:
            pass
    return _filled(np.empty(shape, np.float32), sources, modality)


def _filled(out: NDArray[Any], sources: Sequence[PixelSource], modality: str) -> NDArray[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda i: _rescale(_stored(sources[i]), sources[i], out[i], modality), range(len(out))))
    return out


def _rescale(stored: Stored, source: PixelSource, out: NDArray[Any], modality: str) -> None:
    slope, intercept = source.slope, source.intercept
    if out.dtype == np.float32:
        out[...] = stored * slope + intercept
    elif slope == 1 and stored.dtype.itemsize == 2 and _fits(source):
        np.add(stored.view(np.int16), np.int16(intercept), out=out)
    else:
        values = stored.astype(np.int64) * int(slope) + int(intercept)
        if modality == "CT":
            _pad(stored, source, values)
        if values.min() < -32768 or values.max() > 32767:
            raise _NotInt16
        out[...] = values
        return
    if modality == "CT":
        _pad(stored, source, out)


def _fits(source: PixelSource) -> bool:
    """Whether every value that the stored bits can hold fits int16, before and after the intercept."""
    bits = source.bits_stored
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if source.signed else (0, (1 << bits) - 1)
    return high <= 32767 and low + source.intercept >= -32768 and high + source.intercept <= 32767


def _pad(stored: Stored, source: PixelSource, values: NDArray[Any]) -> None:
    """Padding below air stays as it is; padding that would shine like metal becomes air."""
    if source.padding is None:
        return
    low, high = source.padding
    if max(low * source.slope, high * source.slope) + source.intercept > _HIGHEST_HU:
        values[(stored >= low) & (stored <= high)] = _AIR_HU


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    one = whole(dataset, "PixelPaddingValue")
    if one is None:
        return None
    other = whole(dataset, "PixelPaddingRangeLimit")
    ends = [end & 0xFFFF for end in (one, one if other is None else other)]
    if whole(dataset, "PixelRepresentation") == 1:
        ends = [end - 0x10000 if end > 0x7FFF else end for end in ends]
    return min(ends), max(ends)


def _stored(source: PixelSource) -> Stored:
    """Stored values (rows, columns) in the machine's byte order, unused bits cleared."""
    try:
        encapsulated = source.element.undefined
        return _decoded(source) if encapsulated else _native(source)
    except OSError as error:
        raise FileDamaged(f"An image cannot be read from the disk: {error.strerror}.") from error


def _native(source: PixelSource) -> Stored:
    kind = f"{'<' if source.little else '>'}{'i' if source.signed else 'u'}{source.bits_allocated // 8}"
    pixels = source.rows * source.columns
    needed = pixels * source.bits_allocated // 8
    there = source.element.stop - source.element.start
    if there < needed:
        raise FileDamaged(f"Pixel data hold {there} bytes, {source.rows} x {source.columns} need {needed}.")
    if source.transfer_syntax_uid == "1.2.840.10008.1.2.1.99":
        raw = bytes(open_encoded(source.path).buffer[source.element.start : source.element.start + needed])
        values = np.frombuffer(raw, kind)
    else:
        values = np.fromfile(source.path, kind, pixels, offset=source.element.start)
    if len(values) < pixels:
        raise FileDamaged("A file became shorter while it was read.")
    values = values.astype(values.dtype.newbyteorder("="), copy=False).reshape(source.rows, source.columns)
    unused = source.bits_allocated - source.bits_stored
    if unused > 0:  # these bits may hold overlays of old systems (PS3.5 8.1.1)
        values = np.right_shift(np.left_shift(values, unused), unused)
    return values


def _decoded(source: PixelSource) -> Stored:
    encoded = open_encoded(source.path)
    data = bytes(encoded.buffer[source.element.start : source.element.stop])
    try:
        frame = next(generate_frames(data, number_of_frames=1))
        _check_codestream(frame, source)
        values, _ = get_decoder(UID(source.transfer_syntax_uid)).as_array(_image(source, data), raw=True)
    except (
        ValueError,
        RuntimeError,
        NotImplementedError,
        AttributeError,
        StopIteration,
        struct.error,
    ) as error:
        raise PixelsUndecodable(
            f"Images compressed by {source.syntax_name} ({source.transfer_syntax_uid}) cannot be decoded."
        ) from error
    if values.shape != (source.rows, source.columns):
        raise PixelsUndecodable(f"A decoded image is {values.shape}, not {source.rows} x {source.columns}.")
    return np.ascontiguousarray(values)


def _image(source: PixelSource, data: bytes) -> Dataset:
    """The Image Pixel module alone: a decoder sees nothing else of the data set."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(source.transfer_syntax_uid)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.NumberOfFrames = source.rows, source.columns, 1
    image.BitsAllocated, image.BitsStored = source.bits_allocated, source.bits_stored
    image.HighBit, image.PixelRepresentation = source.bits_stored - 1, int(source.signed)
    image.PixelData = data
    image["PixelData"].is_undefined_length = True
    return image


def _check_codestream(frame: bytes, source: PixelSource) -> None:
    """Compares the size inside the code stream: a lying one makes native decoders take gigabytes."""
    size = next(_codestream_sizes(frame), None)
    if size is not None and size != (source.rows, source.columns):
        raise PixelsUndecodable(
            f"A compressed image is {size[0]} x {size[1]} inside, {source.rows} x {source.columns} outside."
        )


def _codestream_sizes(frame: bytes) -> Iterator[tuple[int, int]]:
    """(rows, columns) of a JPEG, JPEG-LS (ISO 10918-1 B.2, 14495-1) or JPEG 2000 (15444-1 A.5) frame."""
    if frame[:2] == b"\xff\xd8":
        at = 2
        while at + 9 < len(frame) and frame[at] == 0xFF:
            marker, length = frame[at + 1], struct.unpack_from(">H", frame, at + 2)[0]
            if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}):
                rows, columns = struct.unpack_from(">HH", frame, at + 5)
                yield rows, columns
            at += 2 + length
    elif frame[:4] == b"\xff\x4f\xff\x51":
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        yield bottom - top, right - left
