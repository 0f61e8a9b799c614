"""Do these slices make a volume? Judged by positions along the slice normal, never by instance numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import (
    DuplicatePosition,
    GantryTilt,
    GeometryContradictory,
    GeometryMissing,
    MixedOrientation,
    NotAVolume,
    SeriesUnreadable,
    SliceGap,
    TooFewSlices,
)
from dicom_node.records import SeriesSummary, SliceHeader
from models.volume import Geometry

_T = TypeVar("_T")
MIN_SLICES = 3
_SAME_DIRECTION = 2e-3
"""Largest difference between direction cosines that count as equal."""
_SAME_POSITION_MM = 0.01
_UNEVEN = 0.1
"""Largest deviation of a position from the even grid, as a part of the slice spacing (rounded tags)."""
_GAP = 1.5
"""A step larger than this many usual steps means that a slice is missing."""
_MAX_DRIFT_MM = 1.0
"""Largest sideways drift, first to last slice, that still counts as a straight stack."""


@dataclass(frozen=True)
class Selection:
    """Indices of the headers that may be slices of the volume, and of those that are not, with the reason."""

    slices: tuple[int, ...]
    left_out: tuple[tuple[int, str], ...]


def select(headers: Sequence[SliceHeader]) -> Selection:
    """Separates localisers, non-images and strays of another image type and size from the slices."""
    left_out: dict[int, str] = {}
    for index, header in enumerate(headers):
        if not header.rows or not header.columns:
            left_out[index] = "not an image"
        elif "LOCALIZER" in header.image_type:
            left_out[index] = "a localiser"
    rest = [index for index in range(len(headers)) if index not in left_out]
    usual = _most_common([headers[i].image_type for i in rest])
    shape = _most_common([_grid(headers[i]) for i in rest if headers[i].image_type == usual])
    for index in rest:
        header = headers[index]
        if header.image_type != usual and _grid(header) != shape:
            types = f"{_joined(header.image_type)} instead of {_joined(usual)}"
            left_out[index] = f"another image type ({types}) on another grid"
    kept = tuple(index for index in rest if index not in left_out)
    return Selection(kept, tuple(sorted(left_out.items())))


def arrange(headers: Sequence[SliceHeader]) -> tuple[tuple[int, ...], Geometry]:
    """Order of the slices along their normal, and the grid they make.

    `headers` are those selected by `select`. The grid's slice step points along the normal, the cross product
    of row and column directions (PS3.3 C.7.6.2.1.1). Raises the SeriesUnreadable that says what is wrong,
    with the figures.
    """
    _complete(headers)
    directions = _orientation(headers)
    _same_grid(headers)
    if len(headers) < MIN_SLICES:
        raise TooFewSlices(f"The series has {len(headers)} slices; a volume needs at least {MIN_SLICES}.")
    positions = np.array([header.position for header in headers])
    order, along = _order(positions, directions)
    _even(along)
    step = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    _straight(step, directions, len(order))
    row_spacing, column_spacing = headers[0].pixel_spacing or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = directions[1] * row_spacing
    affine[:3, 2] = directions[0] * column_spacing
    affine[:3, 3] = positions[order[0]]
    shape = (len(headers), headers[0].rows or 0, headers[0].columns or 0)
    return tuple(int(i) for i in order), Geometry(shape, affine)


def contiguous(headers: Sequence[SliceHeader]) -> bool:
    """Whether the slices lie without gap or duplicate: evidence that a series is whole.

    Localisers are left out; a sheared (tilted) stack counts, as no further slice will straighten it.
    """
    try:
        slices = [headers[i] for i in select(headers).slices]
        _complete(slices)
        directions = _orientation(slices)
        _same_grid(slices)
        if len(slices) < MIN_SLICES:
            return False
        _even(_order(np.array([header.position for header in slices]), directions)[1])
    except SeriesUnreadable:
        return False
    return True


def summarise(
    headers: Sequence[SliceHeader], study_instance_uid: str, series_instance_uid: str
) -> SeriesSummary:
    """The series as routing sees it; never raises for bad geometry.

    `instances` counts the slices that may belong to the volume; coverage and spacing (the usual step) are 0.0
    where positions are missing or contradict each other. The header is that of the middle slice.
    """
    slices = [headers[i] for i in select(headers).slices]
    coverage = spacing = 0.0
    middle = slices[len(slices) // 2] if slices else (headers[0] if headers else SliceHeader())
    try:
        _complete(slices)
        positions = np.array([header.position for header in slices])
        order, along = _order(positions, _orientation(slices))
        middle = slices[int(order[len(order) // 2])]
        steps = np.diff(along)
        spacing = _usual(steps) if len(steps) else (middle.slice_thickness or 0.0)
        coverage = float(along[-1] - along[0]) + spacing
    except SeriesUnreadable:
        pass
    return SeriesSummary(
        study_instance_uid, series_instance_uid, middle.modality, len(slices), middle, coverage, spacing
    )


def _grid(header: SliceHeader) -> tuple[object, ...]:
    directions = header.orientation and tuple(round(c, 2) + 0.0 for c in header.orientation)
    return header.rows, header.columns, directions, header.position is None


def _complete(headers: Sequence[SliceHeader]) -> None:
    """Raises unless every header places a single-frame image."""
    if not headers:
        raise NotAVolume("The series holds no image that can be a slice of a volume.")
    multi = [header for header in headers if header.frames > 1]
    if multi:
        raise NotAVolume(f"{len(multi)} of {len(headers)} images have several frames ({multi[0].frames}).")
    if any("MOSAIC" in header.image_type for header in headers):
        raise NotAVolume("The images are mosaics: each holds a whole volume as tiles.")
    for tag, name in (
        ("position", "Image Position (Patient) (0020,0032)"),
        ("orientation", "Image Orientation (Patient) (0020,0037)"),
        ("pixel_spacing", "Pixel Spacing (0028,0030)"),
    ):
        lacking = sum(getattr(header, tag) is None for header in headers)
        if lacking:
            raise GeometryMissing(
                f"{lacking} of {len(headers)} images lack a usable {name}.", lacking=lacking
            )


def _orientation(headers: Sequence[SliceHeader]) -> NDArray[np.float64]:
    """Directions (3, 3): along a row, along a column, slice normal."""
    every = np.array([header.orientation for header in headers]).reshape(-1, 2, 3)
    lengths = np.linalg.norm(every, axis=2)
    skew = np.abs(np.sum(every[:, 0] * every[:, 1], axis=1))
    if np.abs(lengths - 1).max() > 0.01 or skew.max() > 0.01:
        raise GeometryContradictory(
            "Image Orientation (Patient) (0020,0037) does not hold two perpendicular unit vectors."
        )
    apart = np.abs(every - every[0]).max(axis=(1, 2)) > _SAME_DIRECTION
    if apart.any():
        raise MixedOrientation(
            f"{int(apart.sum())} of {len(headers)} images are oriented otherwise than the first.",
            others=int(apart.sum()),
        )
    row, column = every[0] / lengths[0][:, None]
    normal = np.cross(row, column)
    return np.array([row, column, normal / np.linalg.norm(normal)])


def _same_grid(headers: Sequence[SliceHeader]) -> None:
    sizes = Counter((header.rows, header.columns) for header in headers)
    if len(sizes) > 1:
        listed = ", ".join(f"{n} of {rows} x {columns}" for (rows, columns), n in sizes.most_common(4))
        raise GeometryContradictory(f"The images have different sizes (rows x columns): {listed}.")
    frames = {header.frame_of_reference_uid for header in headers}
    if len(frames) > 1:
        raise GeometryContradictory(f"The images name {len(frames)} different frames of reference.")
    spacings = np.array([header.pixel_spacing for header in headers])
    if spacings.min() <= 0:
        raise GeometryContradictory(f"Pixel Spacing (0028,0030) is {spacings.min():g} mm in an image.")
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.min():
        raise GeometryContradictory(
            "Pixel Spacing (0028,0030) differs between images: "
            f"{spacings.min():.4f} to {spacings.max():.4f} mm."
        )


def _order(
    positions: NDArray[np.float64], directions: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Order along the normal, and the sorted distances along it in mm."""
    along = positions @ directions[2]
    order = np.argsort(along, kind="stable")
    return order, along[order]


def _usual(steps: NDArray[np.float64]) -> float:
    """The lower median of the steps: with few slices a gap must not become the usual step."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def _even(along: NDArray[np.float64]) -> None:
    steps = np.diff(along)
    same = int((steps < _SAME_POSITION_MM).sum())
    if same:
        raise DuplicatePosition(
            f"{len(along)} images lie at {len(along) - same} positions: several images at the same place.",
            images=len(along),
            positions=len(along) - same,
        )
    usual = _usual(steps)
    gaps = np.flatnonzero(steps > _GAP * usual)
    if len(gaps):
        where = ", ".join(
            f"{steps[i]:.2f} mm between slices {i + 1} and {i + 2} (at {along[i]:.1f}, {along[i + 1]:.1f} mm)"
            for i in gaps[:3]
        )
        raise SliceGap(
            f"Slices are {usual:.2f} mm apart, but {len(gaps)} gap(s) were found: {where}.",
            gaps=len(gaps), usual_mm=usual,
        )  # fmt: skip
    even = np.linspace(along[0], along[-1], len(along))
    worst = float(np.abs(along - even).max())
    if worst > _UNEVEN * usual + 0.05:  # positions may be rounded to 0.1 mm
        raise GeometryContradictory(
            f"The slices are unevenly spaced: steps of {steps.min():.2f} to {steps.max():.2f} mm, "
            f"{worst:.2f} mm off an even grid."
        )


def _straight(step: NDArray[np.float64], directions: NDArray[np.float64], slices: int) -> None:
    sideways = step - (step @ directions[2]) * directions[2]
    drift = float(np.linalg.norm(sideways)) * (slices - 1)
    if drift > _MAX_DRIFT_MM:
        angle = float(np.degrees(np.arctan2(np.linalg.norm(sideways), step @ directions[2])))
        raise GantryTilt(
            f"The slices are sheared by {angle:.1f} degrees against their normal (gantry tilt): "
            f"{drift:.1f} mm from the first to the last slice.",
            degrees=angle,
        )


def _most_common(values: Sequence[_T]) -> _T | None:
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def _joined(image_type: tuple[str, ...] | None) -> str:
    return "\\".join(image_type or ())
