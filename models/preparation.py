"""From the source grid to the network's grid and back.

The prepared grid is the source grid with its axes permuted and flipped towards the patient's axes (slice to
the head, row to the back, column to the left), resampled along each axis. Nothing is rotated, so each source
axis is one prepared axis, every step is a matrix product along one axis, and the way back is exact: both
grids carry their affines, and voxel centres are mapped through these.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import GeometryInvalid
from models.interpolation import arg_max_between, positions_between
from models.labels import Label, LabelMap
from models.manifest import Input
from models.threads import in_threads
from models.volume import Affine, Geometry, Volume

Float = NDArray[np.float32]

_BLOCK = 32
"""Outputs per matrix product: resampling weights are a narrow band, wide blocks would multiply zeros."""
_SLAB = 4
"""Source slices held as float32 at a time by one thread; 4 of 512 x 512 stay in the cache."""


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """What a network sees: `array` float32 (channels, slices, rows, columns) on the grid `geometry`.

    `source` is the grid it came from; with `geometry` it says all that `restore` needs. `lowest` is the
    value that the lower clip limit became, which is what padding has to look like.
    """

    array: Float
    geometry: Geometry
    source: Geometry
    lowest: float = 0.0

    def __post_init__(self) -> None:
        if self.array.shape[1:] != self.geometry.shape:
            raise GeometryInvalid(f"Array {self.array.shape} and geometry {self.geometry.shape} disagree.")


def prepare(volumes: Sequence[Volume], spec: Input) -> PreparedVolume:
    """Clips, resamples and normalises volumes of one grid, one channel each.

    Values are clipped before they are averaged, so that padding far below air (-3024 HU) or metal far above
    bone does not bleed into its neighbours. An axis that shrinks is averaged under a triangle, one that grows
    is interpolated linearly. Raises GeometryInvalid when the volumes lie on different grids.
    """
    if not volumes:
        raise GeometryInvalid("There is no volume to prepare.")
    source = volumes[0].geometry
    if not all(volume.geometry.same_grid(source) for volume in volumes[1:]):
        raise GeometryInvalid("The volumes lie on different grids.")
    geometry = prepared_geometry(source, spec.spacing_mm)
    weights = _weights(geometry, source)
    array = np.empty((len(volumes), *geometry.shape), np.float32)
    for channel, volume in enumerate(volumes):
        array[channel] = _to_canonical(_resample(volume.array, weights, spec.clip), geometry, source)
    low, high = spec.clip
    zero, unit = (low, high - low) if spec.normalise == "range" else (spec.mean, spec.sd)
    array -= np.float32(zero)
    array /= np.float32(unit)
    return PreparedVolume(array, geometry, source, (low - zero) / unit)


def prepare_labels(label_map: LabelMap, spec: Input) -> NDArray[np.uint8]:
    """Label numbers on the prepared grid, for training: the label that fills most of each prepared voxel."""
    source = label_map.geometry
    geometry = prepared_geometry(source, spec.spacing_mm)
    weights = _weights(geometry, source)
    best = np.full(geometry.shape, 0.5, np.float32)
    result = np.zeros(geometry.shape, np.uint8)
    occupied = label_map.array != 0
    present = [n for n in np.unique(label_map.array) if n != 0]
    if (
        len(present) > 1
    ):  # a voxel is a label's if half of it is not background, and that label has most of it
        filled = _to_canonical(_resample(occupied, weights, (0, 1)), geometry, source)
        best = np.where(filled >= 0.5, 0.0, np.inf).astype(np.float32)
    for number in present:
        share = _to_canonical(_resample(label_map.array == number, weights, (0, 1)), geometry, source)
        wins = share > best
        result[wins] = number
        np.copyto(best, share, where=wins)
    return result


def restore(scores: NDArray[Any], prepared: PreparedVolume, labels: Sequence[Label]) -> LabelMap:
    """Scores (classes, slices, rows, columns) of the prepared grid as a label map on the source grid.

    Class 0 is background, class n is `labels[n - 1]`. Each source voxel gets that class among the winners
    at its eight prepared neighbours whose score, linearly interpolated at the voxel's centre, is highest. So
    what is absent on the prepared grid is absent on the source grid. Raises GeometryInvalid when the scores
    are not on the prepared grid.
    """
    if scores.shape != (len(labels) + 1, *prepared.geometry.shape):
        raise GeometryInvalid(
            f"Scores {scores.shape} are not {len(labels) + 1} classes on {prepared.geometry.shape}."
        )
    axes, steps, firsts = _relation(prepared.geometry, prepared.source)
    order = np.argsort(axes)  # the prepared axis of each source axis
    flips = tuple(slice(None, None, -1 if steps[order[a]] < 0 else 1) for a in range(3))
    turned = scores.transpose(0, *(1 + order))[(slice(None), *flips)]
    positions = [
        positions_between(prepared.source.shape[a], turned.shape[1 + a], steps[order[a]], firsts[a])
        for a in range(3)
    ]
    array = arg_max_between(turned, positions, prepared.source.shape)
    return LabelMap(array, prepared.source, tuple(labels))


def canonical_axes(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
    """How to see an array of that grid with slices to the head, rows to the back and columns to the left.

    `array.transpose(axes)[flips]`; the grid's axes nearest to the patient's are taken, nothing is rotated.
    """
    directions = geometry.affine[:3, :3] / np.array(geometry.spacing)
    patient = (2, 1, 0)  # the LPS coordinate that slices, rows and columns shall follow
    axes = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(abs(directions[patient[p], order[p]]) for p in range(3)),
    )
    flips = [slice(None, None, -1 if directions[patient[p], axes[p]] < 0 else 1) for p in range(3)]
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def prepared_geometry(source: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """The canonical grid of that spacing which covers the source grid and shares its centre."""
    axes, flips = canonical_axes(source)
    shape = []
    to_source = np.zeros((4, 4))
    to_source[3, 3] = 1.0
    for p, a in enumerate(axes):
        n, step = source.shape[a], spacing_mm[p] / source.spacing[a]
        if abs(step - 1.0) * n < 1e-3:
            step = 1.0
        shape.append(max(1, int(np.ceil(n / step - 1e-3))))
        signed = step * flips[p].step
        to_source[a, p] = signed
        to_source[a, 3] = (n - 1) / 2 - signed * (shape[p] - 1) / 2
    return Geometry((shape[0], shape[1], shape[2]), source.affine @ to_source)


def _relation(prepared: Geometry, source: Geometry) -> tuple[tuple[int, ...], list[float], list[float]]:
    """Source axis and step (source voxels) of each prepared axis; where index 0 lies on each source axis."""
    to_source: Affine = np.linalg.inv(source.affine) @ prepared.affine
    axes = tuple(int(a) for a in np.abs(to_source[:3, :3]).argmax(axis=0))
    steps = [float(to_source[a, p]) for p, a in enumerate(axes)]
    rest = np.abs(to_source[:3, :3]).sum() - np.abs(steps).sum()
    if sorted(axes) != [0, 1, 2] or rest > 1e-4:
        raise GeometryInvalid("The prepared grid is rotated against the source grid.")
    return axes, steps, [float(v) for v in to_source[:3, 3]]


def _weights(prepared: Geometry, source: Geometry) -> list[Float | None]:
    """For each source axis the matrix (prepared length, source length), None where nothing changes."""
    axes, steps, firsts = _relation(prepared, source)
    result: list[Float | None] = [None, None, None]
    for p, a in enumerate(axes):
        n = source.shape[a]
        centres = np.clip(firsts[a] + steps[p] * np.arange(prepared.shape[p]), 0, n - 1)
        distance = np.abs(centres[:, None] - np.arange(n))
        matrix = np.maximum(0.0, 1.0 - distance / max(1.0, abs(steps[p])))
        matrix /= matrix.sum(axis=1, keepdims=True)
        matrix[matrix < 1e-6] = 0.0
        if matrix.shape != (n, n) or not np.array_equal(matrix, np.eye(n)):
            result[a] = matrix.astype(np.float32)
    return result


def _resample(array: NDArray[Any], weights: list[Float | None], clip: tuple[float, float]) -> Float:
    """The clipped array, each axis multiplied by its matrix; axes as in the source."""
    inner = tuple(n if w is None else len(w) for n, w in zip(array.shape[1:], weights[1:], strict=True))
    planes = np.empty((len(array), *inner), np.float32)

    def shrink(start: int) -> None:
        slab = array[start : start + _SLAB].astype(np.float32)
        np.clip(slab, clip[0], clip[1], out=slab)
        for axis in (2, 1):
            slab = _along(slab, axis, weights[axis])
        planes[start : start + _SLAB] = slab

    in_threads(shrink, range(0, len(array), _SLAB))
    return _along(planes.reshape(1, len(array), -1), 1, weights[0]).reshape(-1, *inner)


def _along(array: Float, axis: int, weights: Float | None) -> Float:
    """`array` (a, b, c) with axis 1 or 2 multiplied by `weights`, block by block of its band."""
    if weights is None:
        return array
    shape = list(array.shape)
    shape[axis] = len(weights)
    result = np.empty(shape, np.float32)
    for start in range(0, len(weights), _BLOCK):
        rows = weights[start : start + _BLOCK]
        used = np.flatnonzero(rows.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        block = np.ascontiguousarray(rows[:, first:last])
        if axis == 1:
            result[:, start : start + _BLOCK] = block @ array[:, first:last]
        else:
            result[:, :, start : start + _BLOCK] = array[:, :, first:last] @ block.T
    return result


def _to_canonical(array: NDArray[Any], prepared: Geometry, source: Geometry) -> NDArray[Any]:
    """Axes of the source in the order of the prepared grid; the weights have already turned them."""
    return array.transpose(_relation(prepared, source)[0])
