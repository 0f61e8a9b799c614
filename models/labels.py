"""What a model finds, and where it found it."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from models.errors import GeometryInvalid
from models.volume import Geometry


@dataclass(frozen=True)
class Code:
    """A coded term (PS3.3 8.8): code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Label:
    """One segment of a model.

    `number` is its value in the label map, 1 or more. `category`, `type` and, for laterality, `modifier` are
    SNOMED CT codes (PS3.3 C.8.20.2); `colour` is sRGB, 0..255. `plausible_ml` bounds the volume in mL that a
    whole organ may have.
    """

    number: int
    name: str
    category: Code
    type: Code
    modifier: Code | None = None
    colour: tuple[int, int, int] = (255, 255, 255)
    plausible_ml: tuple[float, float] = (0.0, float("inf"))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels on a grid: `array` (slices, rows, columns), unsigned integers, 0 is background."""

    array: NDArray[Any]
    geometry: Geometry
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise GeometryInvalid(
                f"Label map {self.array.shape} and geometry {self.geometry.shape} disagree."
            )


@dataclass(frozen=True)
class Measurement:
    """What was measured of one label on the source grid.

    `volume_ml` in mL, `centroid_lps` in mm (LPS), intensities in `unit` ("HU" or "stored"). A label without
    a single voxel has `voxels` 0 and is left out of SEG and SR groups.
    """

    label: Label
    voxels: int
    volume_ml: float
    centroid_lps: tuple[float, float, float]
    mean: float
    sd: float
    minimum: float
    maximum: float
    unit: str
