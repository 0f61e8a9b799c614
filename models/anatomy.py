"""The body behind the thorax phantom: analytic shapes, evaluated one axial plane at a time.

Coordinates are DICOM patient coordinates (LPS) in mm: x to the patient's left, y to the back, z to the head;
z = 0 is the middle of the lungs. Every primitive is a sum of a function of x and a function of y, so a plane
costs a few outer sums, each on its own bounding box.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Blob = tuple[tuple[float, float, float], tuple[float, float, float], float]
"""An ellipsoid: centre and half axes in mm, HU."""
AIR, LUNG, FAT, MUSCLE, BLOOD, BONE = -1000.0, -850.0, -100.0, 50.0, 42.0, 420.0


@dataclass(frozen=True)
class Body:
    """What of the patient can be chosen; the rest follows from `seed`.

    `size` scales the trunk (1.0: an adult of 1.70 m), `fat_mm` is the thickness under the skin, `breath` the
    depth of inspiration (0.7 shallow .. 1.15 deep), `contrast_hu` the enhancement of blood, `lesions` the
    number of nodules, `effusion_mm` the depth of fluid beside one lung, which is no lung. `prone` puts
    table and gravity at the patient's front.
    """

    seed: int = 0
    size: float = 1.0
    fat_mm: float = 14.0
    breath: float = 1.0
    contrast_hu: float = 0.0
    lesions: int = 2
    effusion_mm: float = 0.0
    arms: Literal["up", "down"] = "up"
    table: Literal["curved", "flat", "none"] = "curved"
    table_tilt_deg: float = 0.0
    prone: bool = False


@dataclass(eq=False)
class Canvas:
    """One axial plane in HU: `hu` (rows, columns), `x` (columns,) and `y` (rows,) in mm, soft edge in mm."""

    x: Plane
    y: Plane
    edge: float
    hu: Plane = field(init=False)

    def __post_init__(self) -> None:
        self.hu = np.full((self.y.size, self.x.size), AIR, np.float32)

    def box(self, centre: tuple[float, float], half: tuple[float, float]) -> tuple[slice, slice]:
        """The part of the plane that a shape of these half axes can touch."""
        columns = np.searchsorted(self.x, [centre[0] - half[0] - self.edge, centre[0] + half[0] + self.edge])
        rows = np.searchsorted(self.y, [centre[1] - half[1] - self.edge, centre[1] + half[1] + self.edge])
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def cover(self, distance: Plane) -> Plane:
        """Signed distance in mm (negative inside) to the covered fraction 0..1."""
        covered: Plane = np.clip(np.float32(0.5) - distance * np.float32(1.0 / self.edge), 0.0, 1.0)
        return covered

    def blend(self, box: tuple[slice, slice], covered: Plane, value: float | Plane) -> None:
        """Mixes `value` into the plane where `covered` says so."""
        part = self.hu[box]
        part += covered * (value - part)

    def ellipse(
        self, centre: tuple[float, float], half: tuple[float, float], value: float | Plane, power: float = 2.0
    ) -> None:
        """Paints a (super-)ellipse with half axes `half` in mm."""
        if min(half) < 0.2 * self.edge:
            return
        box = self.box(centre, half)
        if box[0].start < box[0].stop and box[1].start < box[1].stop:
            distance = oval(self.x[box[1]], self.y[box[0]], centre, half, power)
            self.blend(box, self.cover(distance), value)

    def ellipsoid(
        self, z: float, centre: tuple[float, float, float], half: tuple[float, float, float], value: float
    ) -> None:
        """Paints the cut through an ellipsoid at height z."""
        rest = 1.0 - ((z - centre[2]) / half[2]) ** 2
        if rest > 0.0:
            scale = rest**0.5
            self.ellipse((centre[0], centre[1]), (half[0] * scale, half[1] * scale), value)


def oval(x: Plane, y: Plane, centre: tuple[float, float], half: tuple[float, float], power: float) -> Plane:
    """Approximate signed distance in mm (rows, columns) to a (super-)ellipse; exact enough at its edge."""
    u = np.abs((x - centre[0]) / half[0]) ** power
    v = np.abs((y - centre[1]) / half[1]) ** power
    distance: Plane = ((v[:, None] + u[None, :] - 1.0) * (min(half) / power)).astype(np.float32, copy=False)
    return distance


@dataclass(frozen=True, eq=False)
class Tubes:
    """Straight tubes: `start`, `end` (tubes, 3) in mm and `radius` (tubes,) in mm."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: NDArray[np.float64]

    def paint(self, canvas: Canvas, target: Plane, z: float, value: float, grow: float = 0.0) -> None:
        """Paints the tubes that touch height z onto `target`, grown by `grow` mm."""
        radius = self.radius + grow
        touches = (np.minimum(self.start[:, 2], self.end[:, 2]) - radius <= z) & (
            np.maximum(self.start[:, 2], self.end[:, 2]) + radius >= z
        )
        for n in np.flatnonzero(touches & (radius > 0.35 * canvas.edge)):
            p, q, r = self.start[n], self.end[n], float(radius[n])
            middle, half = (p + q) / 2, np.abs(q - p) / 2 + r
            box = canvas.box((middle[0], middle[1]), (half[0], half[1]))
            x, y = canvas.x[box[1]][None, :] - p[0], canvas.y[box[0]][:, None] - p[1]
            if not x.size or not y.size:
                continue
            d = q - p
            along = np.clip((x * d[0] + y * d[1] + (z - p[2]) * d[2]) / max(float(d @ d), 1e-6), 0.0, 1.0)
            away = (x - along * d[0]) ** 2 + (y - along * d[1]) ** 2 + (z - p[2] - along * d[2]) ** 2
            covered = canvas.cover((np.sqrt(away) - r).astype(np.float32))
            part = target[box]
            part += covered * (np.float32(value) - part)


def vessel_tree(rng: np.random.Generator, root: tuple[float, float, float], generations: int = 8) -> Tubes:
    """A branching tree that spreads from the hilum `root` away from the mid-plane."""
    side = np.sign(root[0])
    start = np.repeat(np.array([root]), 5, axis=0)
    heading = rng.normal(size=(5, 3)) * (0.5, 1.0, 1.2) + (side * 0.9, 0.1, 0.0)
    length, radius = 34.0, 5.5
    starts, ends, radii = [], [], []
    for _ in range(generations):
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        end = start + heading * (length * rng.uniform(0.6, 1.3, (len(start), 1)))
        starts.append(start)
        ends.append(end)
        radii.append(radius * rng.uniform(0.7, 1.1, len(start)))
        start = np.repeat(end, 2, axis=0)
        heading = np.repeat(heading, 2, axis=0) + rng.normal(scale=0.55, size=(len(start), 3))
        length, radius = length * 0.8, radius * 0.77
    return Tubes(np.concatenate(starts), np.concatenate(ends), np.concatenate(radii))


def airways(root: tuple[float, float], carina: float, top: float, radius: float) -> Tubes:
    """Trachea from `top` down to the carina, both main bronchi and their first branches."""
    x, y = root
    right, left = (x - 30.0, y + 4.0, carina - 22.0), (x + 38.0, y + 6.0, carina - 30.0)
    points = [
        ((x, y - 14.0, top), (x, y, carina), radius),
        ((x, y, carina), right, radius * 0.78),
        ((x, y, carina), left, radius * 0.7),
        (right, (right[0] - 18.0, right[1] + 8.0, right[2] - 32.0), radius * 0.5),
        (right, (right[0] - 24.0, right[1] - 4.0, right[2] + 12.0), radius * 0.42),
        (left, (left[0] + 16.0, left[1] + 10.0, left[2] - 30.0), radius * 0.5),
        (left, (left[0] + 20.0, left[1] - 8.0, left[2] + 8.0), radius * 0.4),
    ]
    return Tubes(
        np.array([p for p, _, _ in points]), np.array([q for _, q, _ in points]),
        np.array([r for _, _, r in points]),
    )  # fmt: skip


def blobs(
    rng: np.random.Generator,
    count: int,
    box: tuple[tuple[float, float], ...],
    radius: tuple[float, float],
    values: tuple[float, ...],
) -> list[Blob]:
    """Ellipsoids at random places of `box` (x, y, z limits in mm) with one of `values` in HU each."""
    made: list[Blob] = []
    for _ in range(count):
        x, y, z = (float(rng.uniform(low, high)) for low, high in box)
        a, b, c = (float(v) for v in rng.uniform(*radius) * rng.uniform(0.75, 1.3, 3))
        made.append(((x, y, z), (a, b, c), float(rng.choice(values))))
    return made
