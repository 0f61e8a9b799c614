"""The class that wins at each voxel, on the grid of the scores and between its voxels.

Where one class wins at all eight corners of a cell of the grid, it wins everywhere in between; so only the
cells on the surfaces of the labels are interpolated. That makes the way back to the source grid cost what the
surface costs, not what the volume costs, and needs no score at full resolution.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.threads import in_threads

Float = NDArray[np.float32]


def arg_max(scores: NDArray[Any]) -> NDArray[Any]:
    """The first class with the highest score, (slices, rows, columns), unsigned."""
    best = scores[0].copy()
    result = np.zeros(scores.shape[1:], np.uint8 if len(scores) < 255 else np.uint16)
    for number in range(1, len(scores)):
        wins = scores[number] > best
        result[wins] = number
        np.copyto(best, scores[number], where=wins)
    return result


@dataclass(frozen=True, eq=False)
class Positions:
    """For every source index along one axis: the lower neighbour, and the share of the upper one."""

    lower: NDArray[np.intp]
    share: Float


def positions_between(length: int, prepared_length: int, step: float, first: float) -> Positions:
    """Places of the source voxels on the prepared axis, turned so that they ascend."""
    place = (np.arange(length) - first) / step
    if step < 0:
        place = prepared_length - 1 - place
    place = np.clip(place, 0, prepared_length - 1)
    lower = np.minimum(np.floor(place), max(prepared_length - 2, 0)).astype(np.intp)
    return Positions(lower, (place - lower).astype(np.float32))


def arg_max_between(scores: NDArray[Any], positions: list[Positions], shape: tuple[int, ...]) -> NDArray[Any]:
    """The winning class at each voxel of a grid of `shape`, unsigned; 0 is background.

    `scores` is (classes, slices, rows, columns), `positions` one per axis in that order. A voxel's class is
    one that wins at a corner of its cell: another one could win in between, as a sliver between two others,
    but a label must not come up where no voxel of the scores' grid has it.
    """
    winners = arg_max(scores)
    cells = _cells(winners)
    result = np.zeros(shape, cells.dtype)
    if not cells.any():
        return result
    along, down, across = positions
    rows = _reached(cells.max(axis=(0, 2)), down.lower)
    columns = _reached(cells.max(axis=(0, 1)), across.lower)

    def fill(k: int) -> None:
        slices = np.flatnonzero(along.lower == k)
        if slices.size == 0 or not cells[k].any():
            return
        plane = cells[k][down.lower[rows]][:, across.lower[columns]]
        row, column = np.nonzero(plane == _mixed(cells.dtype))
        if row.size == 0:
            result[slices[0] : slices[-1] + 1, rows, columns] = plane
            return
        upper = min(k + 1, scores.shape[1] - 1)
        able = np.unique(winners[[k, upper]])
        points = (row + rows.start, column + columns.start)
        between = _bilinear(scores[:, [k, upper]][able], down, across, points)
        near = np.stack([_any_corner((winners[[k, upper]] == number).any(axis=0)) for number in able])
        far = ~near[:, down.lower[points[0]], across.lower[points[1]]]
        for index in slices:
            mixed = between[:, 0] + (between[:, 1] - between[:, 0]) * along.share[index]
            mixed[far] = -np.inf
            plane[row, column] = able[mixed.argmax(axis=0)]
            result[index, rows, columns] = plane

    in_threads(fill, range(cells.shape[0]))
    return result


def _mixed(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).max)


def _cells(labels: NDArray[Any]) -> NDArray[Any]:
    """The label that all eight corners of each cell between voxels share, or the mark for mixed ones."""
    low = high = labels
    for axis in range(3):
        low, high = np.minimum(*_ends(low, axis)), np.maximum(*_ends(high, axis))
    return np.where(low == high, low, np.array(_mixed(labels.dtype), labels.dtype))


def _any_corner(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether one of the four corners of each cell of a plane is set."""
    for axis in range(2):
        plane = np.logical_or(*_ends(plane, axis))
    return plane


def _ends(array: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both ends of each cell along an axis; an axis of one voxel has one cell with two equal ends."""
    if array.shape[axis] == 1:
        return array, array
    turned = np.moveaxis(array, axis, 0)
    return np.moveaxis(turned[:-1], 0, axis), np.moveaxis(turned[1:], 0, axis)


def _reached(used: NDArray[Any], lower: NDArray[np.intp]) -> slice:
    """The source indices whose cells lie between the first and the last used one."""
    inside = np.flatnonzero(used)
    first, last = np.searchsorted(lower, inside[0]), np.searchsorted(lower, inside[-1], side="right")
    return slice(int(first), int(last))


def _bilinear(
    pair: NDArray[Any],
    down: Positions,
    across: Positions,
    points: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> Float:
    """Scores (classes, 2, points) of two neighbouring planes at source points (row, column)."""
    height, width = pair.shape[2:]
    top, left = down.lower[points[0]], across.lower[points[1]]
    y, x = down.share[points[0]], across.share[points[1]]
    bottom, right = np.minimum(top + 1, height - 1) * width, np.minimum(left + 1, width - 1)
    top = top * width
    flat = pair.reshape(*pair.shape[:2], -1).astype(np.float32)
    upper = flat[:, :, top + left] * (1 - x) + flat[:, :, top + right] * x
    lower = flat[:, :, bottom + left] * (1 - x) + flat[:, :, bottom + right] * x
    result: Float = upper + (lower - upper) * y
    return result
