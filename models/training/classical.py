"""Lungs of a real CT without a network: the labels that real volumes are trained and judged with.

The rule is that gas in airways, bowel and around the body is pure air (about -1000 HU) when averaged over a
few millimetres, whereas aerated lung is not. It labels aerated lung with its vessels; large consolidations
and masses stay out. Every result must be looked at before it is used.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantom import LEFT_LUNG, RIGHT_LUNG
from models.volume import Volume

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """Limits in HU and mm: gas is below `gas_hu`, pure air averages below `pure_hu`.

    `inside_body` looks only where tissue surrounds a voxel in its slice; a volume that cuts through the chest
    wall needs it off.
    """

    gas_hu: float = -500.0
    pure_hu: float = -962.0
    average_mm: float = 3.0
    open_mm: float = 2.5
    close_mm: float = 8.0
    least_ml: float = 60.0
    inside_body: bool = True


def classical_lungs(volume: Volume, rule: Rule | None = None) -> NDArray[np.uint8]:
    """Left lung 1 and right lung 2 on the grid of `volume` (HU); zeros where it finds none."""
    rule = rule or Rule()
    spacing = np.array(volume.geometry.spacing)
    hu = np.clip(volume.array, -1024, 400).astype(np.float32)
    gas = hu < rule.gas_hu
    sigma = rule.average_mm / spacing
    weight = ndimage.gaussian_filter(gas.astype(np.float32), sigma)
    mean = ndimage.gaussian_filter(np.where(gas, hu, np.float32(0.0)), sigma) / np.maximum(weight, 1e-3)
    pure = gas & (mean < rule.pure_hu)
    if rule.inside_body:
        gas &= _body(hu, spacing)
    lung = _larger_than(_opened(gas & ~pure, rule.open_mm, spacing), rule.least_ml / volume.geometry.voxel_ml)
    if not lung.any():
        return np.zeros(gas.shape, np.uint8)
    tubes = _larger_than(_opened(pure, rule.open_mm, spacing), 1.0 / volume.geometry.voxel_ml)
    lung = _within(lung, rule.open_mm + 2.0, spacing) & gas & ~_within(tubes, 2.5, spacing)
    lung = _larger_than(lung, rule.least_ml / volume.geometry.voxel_ml)
    result = _sides(lung, volume)
    blocked = _within(_opened(pure, 1.2, spacing), 1.5, spacing)
    for number in (LEFT_LUNG, RIGHT_LUNG):
        filled = _closed(result == number, rule.close_mm, spacing)
        filled = np.stack([ndimage.binary_fill_holes(plane) for plane in filled])
        result[filled & (result == 0) & ~blocked] = number
    return result


def _body(hu: NDArray[np.float32], spacing: NDArray[np.float64]) -> Mask:
    """The largest piece of tissue with its holes filled slice by slice."""
    tissue = _opened(hu > -300.0, 4.0, spacing)
    parts, count = ndimage.label(tissue)
    if count == 0:
        return tissue
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


def _within(mask: Mask, distance_mm: float, spacing: NDArray[np.float64]) -> Mask:
    """Voxels at most `distance_mm` from the mask."""
    near: Mask = ndimage.distance_transform_edt(~mask, sampling=spacing) <= distance_mm
    return near


def _opened(mask: Mask, radius_mm: float, spacing: NDArray[np.float64]) -> Mask:
    core = ndimage.distance_transform_edt(mask, sampling=spacing) > radius_mm
    return _within(core, radius_mm, spacing) & mask if core.any() else core


def _closed(mask: Mask, radius_mm: float, spacing: NDArray[np.float64]) -> Mask:
    """Closing that treats what lies outside the volume as a continuation, so that borders do not erode."""
    margin = [int(np.ceil(radius_mm / step)) + 1 for step in spacing]
    padded = np.pad(mask, [(n, n) for n in margin], mode="edge")
    inner = tuple(slice(n, -n) for n in margin)
    grown = _within(padded, radius_mm, spacing)
    closed: Mask = (ndimage.distance_transform_edt(grown, sampling=spacing) > radius_mm)[inner]
    return closed


def _larger_than(mask: Mask, voxels: float) -> Mask:
    """The connected components of at least that many voxels."""
    parts, count = ndimage.label(mask)
    keep = np.bincount(parts.ravel(), minlength=count + 1) >= voxels
    keep[0] = False
    kept: Mask = keep[parts]
    return kept


def _sides(lung: Mask, volume: Volume) -> NDArray[np.uint8]:
    """Splits at the thinnest place: cores of a growing erosion, every voxel to its nearest core."""
    spacing = np.array(volume.geometry.spacing)
    depth = ndimage.distance_transform_edt(lung, sampling=spacing)
    axis = np.array([0.0, 0.0, 0.0])
    axis[:] = volume.geometry.affine[0, :3]
    for erosion in (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0):
        parts, count = ndimage.label(depth > erosion)
        if count == 0:
            break
        sizes = np.bincount(parts.ravel())[1:]
        order = np.argsort(sizes)[::-1] + 1
        if count > 1 and sizes[order[1] - 1] > 0.2 * sizes[order[0] - 1]:
            centres = [np.array(ndimage.center_of_mass(parts == n)) @ axis for n in order[:2]]
            middle = sum(centres) / 2
            places = ndimage.center_of_mass(parts > 0, parts, range(1, count + 1))
            side = np.array([0] + [LEFT_LUNG if np.array(p) @ axis > middle else RIGHT_LUNG for p in places])
            nearest = ndimage.distance_transform_edt(
                parts == 0, sampling=spacing, return_distances=False, return_indices=True
            )
            result: NDArray[np.uint8] = (side[parts[tuple(nearest)]] * lung).astype(np.uint8)
            return result
    centre = np.array(ndimage.center_of_mass(lung)) @ axis
    middle = (np.array(lung.shape) - 1) / 2 @ axis
    return (lung * (LEFT_LUNG if centre > middle else RIGHT_LUNG)).astype(np.uint8)
