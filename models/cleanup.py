"""Connected components that a label may not have are taken away.

The clean-up works on the prepared grid, where it costs milliseconds, and before `restore`: a removed
component loses its score there, so that interpolation cannot bring it back on the source grid. Components
touch across faces, edges and corners (26 neighbours): a removed voxel is then never in one cell of the grid
with a kept voxel of the same label, and the kept surface stays where it was.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.interpolation import arg_max
from models.manifest import LabelEntry

_TOUCHING = np.ones((3, 3, 3), bool)


def clean_scores(scores: NDArray[Any], entries: Sequence[LabelEntry], voxel_ml: float) -> NDArray[Any]:
    """Scores (classes, slices, rows, columns) in which only components that `entries` allow can win.

    A removed component goes to the class with the next best score there; what is left of it as a wrong
    component of that class goes to the background. `voxel_ml` is the volume of a prepared voxel in mL. The
    array given is not changed.
    """
    scores = scores.copy()
    floor = scores.min() - scores.dtype.type(1)
    for entry, removed in _removals(arg_max(scores), entries, voxel_ml):
        scores[entry.number][removed] = floor
    for _, removed in _removals(arg_max(scores), entries, voxel_ml):
        scores[0][removed] = np.stack([one[removed] for one in scores]).max(axis=0)
    return scores


def clean(labels: NDArray[Any], entries: Sequence[LabelEntry], voxel_ml: float) -> NDArray[Any]:
    """Label numbers (slices, rows, columns) without the components that `entries` do not allow.

    `voxel_ml` is the volume of a voxel in mL. Removed voxels are background. The array given is not changed.
    """
    result = labels.copy()
    for _, removed in _removals(labels, entries, voxel_ml):
        result[removed] = 0
    return result


def _removals(
    labels: NDArray[Any], entries: Sequence[LabelEntry], voxel_ml: float
) -> list[tuple[LabelEntry, tuple[NDArray[np.intp], ...]]]:
    """The voxels that each label loses, as index arrays."""
    boxes = ndimage.find_objects(labels)
    found = []
    for entry in entries:
        box = boxes[entry.number - 1] if entry.number <= len(boxes) else None
        if box is None or not (entry.keep_largest or entry.min_ml):
            continue
        components, count = ndimage.label(labels[box] == entry.number, _TOUCHING)
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        keep = sizes * voxel_ml >= entry.min_ml
        if entry.keep_largest:
            keep[np.argsort(-sizes, kind="stable")[entry.keep_largest :]] = False
        if not keep.all():
            inside = np.nonzero(np.concatenate(([False], ~keep))[components])
            found.append((entry, tuple(i + s.start for i, s in zip(inside, box, strict=True))))
    return found
