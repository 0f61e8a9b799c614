"""A volume of voxels and where each of them lies in the patient."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import GeometryInvalid

Affine = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular grid in patient coordinates.

    `shape` is (slices, rows, columns). `affine` (4, 4) takes the index of a voxel's centre in the same order,
    [slice, row, column, 1], to [x, y, z, 1] in mm, in DICOM's patient coordinates (LPS: x to the patient's
    left, y to the back, z to the head; PS3.3 C.7.6.2.1.1). Raises GeometryInvalid for an impossible grid.
    """

    shape: tuple[int, int, int]
    affine: Affine = field(repr=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryInvalid(f"The affine must be 4 x 4 and finite, not {affine.shape}.")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryInvalid(
                "The affine is singular: two axes of the grid are parallel or a step is zero."
            )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryInvalid(f"The shape must be three positive numbers, not {self.shape}.")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (slices, rows, columns) in mm."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(steps[0]), float(steps[1]), float(steps[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_patient(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """Indices (..., 3) in order (slice, row, column) to LPS positions (..., 3) in mm."""
        points: NDArray[np.float64] = np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return points

    def corners(self) -> NDArray[np.float64]:
        """LPS positions (8, 3) in mm of the centres of the eight corner voxels."""
        last = np.array(self.shape) - 1
        return self.to_patient(np.array([[(n >> a & 1) * last[a] for a in range(3)] for n in range(8)]))

    def same_grid(self, other: "Geometry", tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and every corner within `tolerance_mm`."""
        return self.shape == other.shape and bool(
            np.abs(self.corners() - other.corners()).max() <= tolerance_mm
        )


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxel values on a grid.

    `array` (slices, rows, columns), int16 or float32, in `unit`: "HU" for CT, "stored" where the modality has
    no calibrated unit. `modality` is DICOM's (0008,0060).
    """

    array: NDArray[Any]
    geometry: Geometry
    unit: str = "HU"
    modality: str = "CT"

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise GeometryInvalid(f"Array {self.array.shape} and geometry {self.geometry.shape} disagree.")
