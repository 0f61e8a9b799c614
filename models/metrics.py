"""How well two label maps agree."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import GeometryInvalid


@dataclass(frozen=True)
class Agreement:
    """One label in two label maps of one grid.

    `dice` and `iou` lie in 0..1; both are 1 where neither map has the label, and 0 where only one has it.
    `found_ml` and `reference_ml` are volumes in mL.
    """

    number: int
    dice: float
    iou: float
    found_ml: float
    reference_ml: float

    @property
    def error_ml(self) -> float:
        """Found minus reference volume, in mL."""
        return self.found_ml - self.reference_ml

    @property
    def error_share(self) -> float:
        """Volume error as a share of the reference; infinite for a find where the reference has none."""
        if self.reference_ml > 0.0:
            return self.error_ml / self.reference_ml
        return float("inf") if self.found_ml > 0.0 else 0.0


def agreement(found: NDArray[Any], reference: NDArray[Any], number: int, voxel_ml: float = 1.0) -> Agreement:
    """Compares label `number` of two label maps (slices, rows, columns).

    `voxel_ml` is the volume of a voxel in mL. Raises GeometryInvalid when the shapes differ or a voxel has no
    volume.
    """
    if found.shape != reference.shape:
        raise GeometryInvalid(f"Label maps of {found.shape} and {reference.shape} cannot be compared.")
    if not voxel_ml > 0.0:
        raise GeometryInvalid(f"A voxel cannot have a volume of {voxel_ml} mL.")
    a, b = found == number, reference == number
    both, one, other = (int(np.count_nonzero(mask)) for mask in (a & b, a, b))
    total = one + other
    dice = 2.0 * both / total if total else 1.0
    iou = both / (total - both) if total else 1.0
    return Agreement(number, dice, iou, one * voxel_ml, other * voxel_ml)


def dice(found: NDArray[Any], reference: NDArray[Any], number: int) -> float:
    """Dice of one label; see `agreement`."""
    return agreement(found, reference, number).dice
