"""Size, place and intensity of each label, on the source grid."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import GeometryInvalid
from models.labels import Label, LabelMap, Measurement
from models.threads import in_threads
from models.volume import Volume

_NONE = float("nan")


def measure(label_map: LabelMap, volume: Volume) -> tuple[Measurement, ...]:
    """One measurement per label, in the order of `label_map.labels`, those without a voxel included.

    The volume is the number of voxels times the voxel's volume (mL); the centroid the mean of the voxel
    centres (LPS, mm); the standard deviation that of the voxels as a population; intensities in the volume's
    unit. A label without a voxel has NaN for everything but its voxels and volume. Raises GeometryInvalid
    when label map and volume are on different grids.
    """
    if not label_map.geometry.same_grid(volume.geometry):
        raise GeometryInvalid("Label map and volume are on different grids.")
    most = max((label.number for label in label_map.labels), default=0)

    def one(index: int) -> NDArray[np.float64] | None:
        return _slice_sums(label_map.array[index], volume.array[index], index, most)

    sums = [found for found in in_threads(one, range(len(volume.array))) if found is not None]
    if not sums:
        return tuple(_absent(label, volume.unit) for label in label_map.labels)
    stacked = np.stack(sums)
    total = stacked[:, :, :6].sum(axis=0)
    low, high = stacked[:, :, 6].min(axis=0), stacked[:, :, 7].max(axis=0)
    result = []
    for label in label_map.labels:
        voxels, *index, value, square = total[label.number]
        if voxels == 0:
            result.append(_absent(label, volume.unit))
            continue
        mean = value / voxels
        place = label_map.geometry.to_patient(np.array(index) / voxels)
        result.append(
            Measurement(
                label,
                int(voxels),
                float(voxels) * label_map.geometry.voxel_ml,
                (float(place[0]), float(place[1]), float(place[2])),
                float(mean),
                float(np.sqrt(max(0.0, square / voxels - mean**2))),
                float(low[label.number]),
                float(high[label.number]),
                volume.unit,
            )
        )
    return tuple(result)


def _slice_sums(
    labels: NDArray[Any], values: NDArray[Any], index: int, most: int
) -> NDArray[np.float64] | None:
    """Per label number: count, sums of slice, row, column, value and value squared, minimum, maximum."""
    rows = np.flatnonzero(labels.any(axis=1))
    if rows.size == 0:
        return None
    first, last = int(rows[0]), int(rows[-1]) + 1
    numbers = labels[first:last].ravel()
    inside = np.flatnonzero(numbers)
    numbers = numbers[inside]
    measured = values[first:last].ravel()[inside].astype(np.float64)
    row, column = np.divmod(inside.astype(np.int32), np.int32(labels.shape[1]))
    result = np.zeros((most + 1, 8))
    result[:, 6], result[:, 7] = np.inf, -np.inf
    for number in np.flatnonzero(np.bincount(numbers, minlength=most + 1)[: most + 1]):
        mine = numbers == number
        v = measured[mine]
        count = v.size
        result[number] = (
            count, count * index, row[mine].sum() + count * first, column[mine].sum(),
            v.sum(), v @ v, v.min(), v.max(),
        )  # fmt: skip
    return result


def _absent(label: Label, unit: str) -> Measurement:
    return Measurement(label, 0, 0.0, (_NONE, _NONE, _NONE), _NONE, _NONE, _NONE, _NONE, unit)
