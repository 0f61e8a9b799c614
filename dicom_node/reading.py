"""Files of one series to a volume with its geometry, or a named refusal."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.elements import PIXEL_DATA, Element, open_encoded, walk
from dicom_node.errors import FileDamaged, GeometryContradictory, MixedPatients, NotAVolume, NotParseable
from dicom_node.pixels import PixelSource, pixel_source, read_values
from dicom_node.records import SeriesSummary
from dicom_node.slices import complete_identity, find_series, parse_header, slice_header, text, whole
from dicom_node.stack import arrange, contiguous, select, summarise
from models.volume import Volume

__all__ = [
    "SourceSeries", "contiguous", "find_series", "parse_header", "read_series", "slice_header", "summarise",
]  # fmt: skip

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """One series as a volume.

    `datasets` are the slices' headers in the order of the volume's slices, without pixel data and private
    elements. `left_out` names each instance (SOP Instance UID, reason) that is no slice of the volume.
    """

    volume: Volume
    datasets: tuple[Dataset, ...]
    left_out: tuple[tuple[str, str], ...]
    summary: SeriesSummary


@dataclass(frozen=True, eq=False)
class _Instance:
    path: Path
    dataset: Dataset
    pixels: Element | None
    syntax: tuple[str, bool]


def read_series(files: Sequence[Path]) -> SourceSeries:
    """Reads the instances of one series; slices in the order of their positions along the normal.

    The array is in HU for CT ("stored" for other modalities); an instance that is no slice (a localiser, a
    report) is left out with the reason. Raises a SeriesUnreadable that names what is wrong and where;
    ValueError where the files belong to several series. PS3.3 C.7.6.2, C.7.6.3, C.11.1.
    """
    instances, left_out = _single_images([_load(path) for path in files])
    headers = [slice_header(instance.dataset) for instance in instances]
    selection = select(headers)
    left_out += [(_uid(instances[i]), reason) for i, reason in selection.left_out]
    slices = [instances[i] for i in selection.slices]
    headers = [headers[i] for i in selection.slices]
    if not slices:
        reasons = Counter(reason for _, reason in left_out)
        listed = ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
        raise NotAVolume(f"None of {len(files)} instances can be a slice of a volume ({listed}).")
    _one_patient(slices)
    order, geometry = arrange(headers)
    slices = [slices[i] for i in order]
    first = slices[0].dataset
    modality = text(first, "Modality")
    array = read_values([source for instance in slices for source in _sources(instance)], modality)
    summary = summarise(headers, text(first, "StudyInstanceUID"), text(first, "SeriesInstanceUID"))
    volume = Volume(array, geometry, _unit(first), modality)
    return SourceSeries(volume, tuple(s.dataset for s in slices), tuple(left_out), summary)


def _load(path: Path) -> _Instance:
    """Everything of one file but pixel data and private elements, not decoded yet."""
    try:
        encoded = open_encoded(path)
        elements = list(walk(encoded))
    except NotParseable as error:
        raise FileDamaged(f"A file of the series is damaged. {error.sentence}") from error
    except OSError as error:
        raise FileDamaged(f"A file of the series cannot be read: {error.strerror}.") from error
    dataset = encoded.dataset([e for e in elements if e.tag >> 16 & 1 == 0 and e.tag < 0x7FE00000])
    complete_identity(dataset)
    pixels = next((e for e in elements if e.tag == PIXEL_DATA), None)
    return _Instance(path, dataset, pixels, (encoded.transfer_syntax_uid, encoded.little))


def _single_images(instances: list[_Instance]) -> tuple[list[_Instance], list[tuple[str, str]]]:
    """Each greyscale image once; the rest with the reason. Raises ValueError for several series."""
    if not instances:
        raise ValueError("A series has at least one file.")
    series = {text(i.dataset, "SeriesInstanceUID") for i in instances}
    if len(series) > 1:
        raise ValueError(f"The files belong to {len(series)} series; read one series at a time.")
    kept: dict[str, _Instance] = {}
    left_out = []
    for instance in instances:
        uid = _uid(instance)
        if instance.pixels is None:
            left_out.append((uid, "no pixel data"))
        elif text(instance.dataset, "SOPClassUID").startswith(_SECONDARY_CAPTURE):
            left_out.append((uid, "a secondary capture"))
        elif (whole(instance.dataset, "SamplesPerPixel") or 1) != 1:
            left_out.append((uid, "a colour image"))
        elif uid in kept:
            left_out.append((uid, "the same instance again"))
        else:
            kept[uid] = instance
    return list(kept.values()), left_out


def _one_patient(slices: list[_Instance]) -> None:
    """Raises unless all slices name the same patient and study; says how many, never whom."""
    for keyword in ("PatientID", "PatientName", "PatientBirthDate"):
        different = len({text(s.dataset, keyword) for s in slices})
        if different > 1:
            raise MixedPatients(f"The images of the series carry {different} different values of {keyword}.")
    studies = len({text(s.dataset, "StudyInstanceUID") for s in slices})
    if studies > 1:
        raise GeometryContradictory(f"The images of the series name {studies} different studies.")


def _sources(instance: _Instance) -> Iterator[PixelSource]:
    if instance.pixels is not None:
        yield pixel_source(instance.path, instance.dataset, instance.pixels, instance.syntax)


def _unit(dataset: Dataset) -> str:
    """HU for CT, unless Rescale Type (0028,1054) says that the values are something else."""
    hounsfield = text(dataset, "RescaleType").upper() in {"", "HU"}
    return "HU" if text(dataset, "Modality") == "CT" and hounsfield else "stored"


def _uid(instance: _Instance) -> str:
    return text(instance.dataset, "SOPInstanceUID")
