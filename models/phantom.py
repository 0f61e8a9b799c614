"""A thorax CT that nobody was irradiated for: volume and reference labels from a few numbers.

The picture has what a real one has: skin, fat and muscle, ribs that follow the lung wall, spine, heart on the
patient's left, great vessels, airways, domes of the diaphragm with liver and stomach gas, couch and pad,
partial volume, noise and the smoothness of a kernel. It is deterministic for a given PhantomSpec.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import Body, Canvas
from models.errors import GeometryInvalid
from models.thorax import Thorax
from models.volume import Geometry, Volume

LEFT_LUNG, RIGHT_LUNG = 1, 2

# Which of (slices, rows, columns) run against (head, back, left); each keeps rows x columns x slices
# right-handed, as DICOM's sorting along the normal does.
_FLIPS = {
    "HFS": (False, False, False),
    "FFS": (True, False, True),
    "HFP": (False, True, True),
    "FFP": (True, True, False),
}


@dataclass(frozen=True)
class PhantomSpec:
    """What is imaged and how.

    `shape` (slices, rows, columns), `spacing_mm` in the same order, `thickness_mm` of a slice (None: the
    slice spacing). `centre_mm` is the LPS point in the middle of the volume: z = 0 is the lungs' middle, they
    reach about 130 mm up and down; (0, 0, -330) shows an abdomen, (0, 0, 260) a neck. `position` is
    DICOM's Patient Position (PS3.3 C.7.3.1.1.2), lying on the back or on the front. `kernel_mm` is the
    standard deviation of the smoothing in the plane. `fov_padding` fills the corners outside the
    reconstruction circle.
    """

    shape: tuple[int, int, int] = (100, 512, 512)
    spacing_mm: tuple[float, float, float] = (3.0, 0.78125, 0.78125)
    thickness_mm: float | None = None
    centre_mm: tuple[float, float, float] = (0.0, 10.0, 0.0)
    body: Body = field(default_factory=Body)
    position: Literal["HFS", "FFS", "HFP", "FFP"] = "HFS"
    noise_hu: float = 14.0
    kernel_mm: float = 0.6
    fov_padding: int | None = None


@dataclass(frozen=True, eq=False)
class Phantom:
    """`volume` in HU (int16) and `labels` (slices, rows, columns) uint8: 1 left lung, 2 right lung."""

    volume: Volume
    labels: NDArray[np.uint8]


def thorax_phantom(spec: PhantomSpec) -> Phantom:
    """Makes the phantom; raises GeometryInvalid for an impossible shape or spacing."""
    if min(spec.shape) < 1 or min(spec.spacing_mm) <= 0.0:
        raise GeometryInvalid(f"A phantom cannot have shape {spec.shape} and spacing {spec.spacing_mm} mm.")
    prone = spec.position.endswith("P")
    patient = Thorax(spec.body if spec.body.prone == prone else replace(spec.body, prone=prone))
    noise = np.random.default_rng([spec.body.seed, 1])
    z, y, x = (
        (np.arange(n) - (n - 1) / 2) * step + middle
        for n, step, middle in zip(spec.shape, spec.spacing_mm, spec.centre_mm[::-1], strict=True)
    )
    array = np.empty(spec.shape, np.int16)
    labels = np.zeros(spec.shape, np.uint8)
    outside = _outside(x - spec.centre_mm[0], y - spec.centre_mm[1], spec)
    for n, height in enumerate(z):
        plane, left, right = _slice(patient, x, y, float(height), spec)
        plane += _grain(noise, plane.shape, spec)
        np.clip(np.rint(plane), -1024, 3071, out=plane)
        if outside is not None and spec.fov_padding is not None:
            plane[outside] = spec.fov_padding
        array[n] = plane
        labels[n][left > 0.5] = LEFT_LUNG
        labels[n][right > 0.5] = RIGHT_LUNG
    return _oriented(array, labels, (float(z[0]), float(y[0]), float(x[0])), spec)


def _slice(
    patient: Thorax, x: NDArray[Any], y: NDArray[Any], z: float, spec: PhantomSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """One slice: the mean over its thickness, smoothed in the plane."""
    thickness = spec.spacing_mm[0] if spec.thickness_mm is None else spec.thickness_mm
    parts = min(max(round(thickness / 2.5), 1), 4)
    edge = float(max(spec.spacing_mm[1:])) * 1.2
    total = [np.zeros((y.size, x.size), np.float32) for _ in range(3)]
    for part in range(parts):
        canvas = Canvas(x.astype(np.float32), y.astype(np.float32), edge)
        lungs = patient.paint(canvas, z + thickness * ((part + 0.5) / parts - 0.5))
        for n, plane in enumerate((canvas.hu, lungs[1], lungs[-1])):
            total[n] += plane / np.float32(parts)
    sigma = [spec.kernel_mm / spec.spacing_mm[1], spec.kernel_mm / spec.spacing_mm[2]]
    if max(sigma) > 0.3:
        ndimage.gaussian_filter(total[0], sigma, output=total[0], truncate=3.0)
    return total[0], total[1], total[2]


def _grain(rng: np.random.Generator, shape: tuple[int, ...], spec: PhantomSpec) -> NDArray[np.float32]:
    """Noise of standard deviation `noise_hu`, as smooth as the kernel."""
    grain = rng.standard_normal(shape, dtype=np.float32)
    sigma = 0.6 * spec.kernel_mm / min(spec.spacing_mm[1:])
    if sigma > 0.3:
        ndimage.gaussian_filter(grain, sigma, output=grain, truncate=3.0)
        grain /= max(float(grain.std()), 1e-6)
    grain *= np.float32(spec.noise_hu)
    return grain


def _outside(x: NDArray[Any], y: NDArray[Any], spec: PhantomSpec) -> NDArray[np.bool_] | None:
    """The corners (rows, columns) outside the reconstruction circle, if they are padded."""
    if spec.fov_padding is None:
        return None
    radius = 0.5 * min(spec.shape[1] * spec.spacing_mm[1], spec.shape[2] * spec.spacing_mm[2])
    outside: NDArray[np.bool_] = (x[None, :] ** 2 + y[:, None] ** 2) > radius**2
    return outside


def _oriented(
    array: NDArray[np.int16], labels: NDArray[np.uint8], first: tuple[float, ...], spec: PhantomSpec
) -> Phantom:
    """Turns the arrays as the patient position asks, so that the affine still says where each voxel is."""
    axes = np.array(spec.spacing_mm)
    affine = np.eye(4)
    origin = np.array(first[::-1], dtype=np.float64)
    affine[:3, :3] = np.array([[0.0, 0.0, axes[2]], [0.0, axes[1], 0.0], [axes[0], 0.0, 0.0]])
    flips = _FLIPS[spec.position]
    for axis, flip in enumerate(flips):
        if flip:
            origin = origin + affine[:3, axis] * (spec.shape[axis] - 1)
            affine[:3, axis] *= -1.0
    affine[:3, 3] = origin
    turned = tuple(axis for axis, flip in enumerate(flips) if flip)
    geometry = Geometry(spec.shape, affine)
    return Phantom(
        Volume(np.ascontiguousarray(np.flip(array, turned)), geometry),
        np.ascontiguousarray(np.flip(labels, turned)),
    )
