"""The thorax phantom."""

import time
from dataclasses import replace

import numpy as np
import pytest

from models.anatomy import Body
from models.errors import GeometryInvalid
from models.phantom import LEFT_LUNG, RIGHT_LUNG, PhantomSpec, thorax_phantom

SMALL = PhantomSpec(shape=(60, 80, 96), spacing_mm=(5.0, 4.5, 4.5))


def test_looks_like_a_chest() -> None:
    """SCOPE I8: lungs of a plausible volume and density, each on its side, heart on the left, air around."""
    phantom = thorax_phantom(SMALL)
    array, geometry = phantom.volume.array, phantom.volume.geometry
    assert array.dtype == np.int16
    assert phantom.labels.dtype == np.uint8
    for label, side in ((LEFT_LUNG, 1), (RIGHT_LUNG, -1)):
        inside = phantom.labels == label
        assert 1200 < inside.sum() * geometry.voxel_ml < 3500
        assert -920 < np.median(array[inside]) < -700
        centre = geometry.to_patient(np.argwhere(inside).mean(axis=0))
        assert 40 < side * centre[0] < 100
    volumes = [int((phantom.labels == n).sum()) for n in (LEFT_LUNG, RIGHT_LUNG)]
    assert volumes[0] < volumes[1]
    assert np.median(array[:, 0, :]) < -950
    assert array.max() > 300


def test_airway_is_no_lung() -> None:
    """SCOPE I8: there is pure air inside the body that is not labelled, the trachea among it."""
    phantom = thorax_phantom(replace(SMALL, noise_hu=0.0))
    geometry = phantom.volume.geometry
    top = np.linalg.inv(geometry.affine) @ (2.0, 10.0, 60.0, 1.0)
    slice_, row, column = np.rint(top[:3]).astype(int)
    around = phantom.volume.array[slice_, row - 4 : row + 2, column - 2 : column + 3]
    assert around.min() < -900
    assert not phantom.labels[slice_, row - 4 : row + 2, column - 1 : column + 2].any()


def test_repeats_itself() -> None:
    """SCOPE I8: the same specification gives the same bytes, another seed another patient."""
    first, second = thorax_phantom(SMALL), thorax_phantom(SMALL)
    assert np.array_equal(first.volume.array, second.volume.array)
    assert np.array_equal(first.labels, second.labels)
    other = thorax_phantom(replace(SMALL, body=Body(seed=1)))
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP", "FFP"])
def test_every_position_keeps_left_left(position: str) -> None:
    """SCOPE B2: however the patient lies, the affine puts the left lung at positive x and the apex up."""
    phantom = thorax_phantom(replace(SMALL, position=position))  # type: ignore[arg-type]
    geometry = phantom.volume.geometry
    left = geometry.to_patient(np.argwhere(phantom.labels == LEFT_LUNG))
    assert left[:, 0].mean() > 40
    wide = [np.ptp(left[np.abs(left[:, 2] - z) < 10][:, 1]) for z in (-60.0, 110.0)]
    assert wide[0] > wide[1]
    assert np.linalg.det(geometry.affine[:3, :3]) < 0  # (slice, row, column) of a right-handed image


@pytest.mark.parametrize("z", [-640.0, -400.0, 330.0, 380.0])
def test_elsewhere_there_is_no_lung(z: float) -> None:
    """SCOPE I8: legs, abdomen, neck and head have gas but no lung."""
    phantom = thorax_phantom(replace(SMALL, shape=(12, 80, 96), centre_mm=(0.0, 10.0, z)))
    assert not phantom.labels.any()
    assert (phantom.volume.array > 0).mean() > 0.05


def test_options_change_what_they_say() -> None:
    """SCOPE I8: padding, arms, couch, noise and contrast are visible where they belong."""
    padded = thorax_phantom(replace(SMALL, fov_padding=-2000)).volume.array
    assert (padded[:, 0, 0] == -2000).all()
    assert padded[30, 40, 48] > -1100
    narrow = replace(SMALL, shape=(6, 80, 130))
    down = thorax_phantom(replace(narrow, body=Body(arms="down"))).volume.array
    up = thorax_phantom(replace(narrow, body=Body(arms="up"))).volume.array
    assert (down > -200).sum() > 1.1 * (up > -200).sum()
    bare = thorax_phantom(replace(SMALL, body=Body(table="none"))).volume.array
    assert (thorax_phantom(SMALL).volume.array > -200).sum() > (bare > -200).sum()
    quiet, loud = (thorax_phantom(replace(SMALL, noise_hu=sd, kernel_mm=0.0)) for sd in (0.0, 40.0))
    assert 30 < (loud.volume.array.astype(float) - quiet.volume.array)[30, 35:45, 45:55].std() < 50


def test_small_ones_are_quick() -> None:
    """SCOPE I8: fault tests make hundreds of them."""
    spec = PhantomSpec(shape=(24, 64, 64), spacing_mm=(12.0, 6.25, 6.25))
    thorax_phantom(spec)
    started = time.process_time()
    thorax_phantom(spec)
    assert time.process_time() - started < 1.0  # 0.12 s on an idle machine


def test_refuses_the_impossible() -> None:
    """SCOPE I8: no slices or no spacing is refused by name."""
    with pytest.raises(GeometryInvalid, match="cannot have shape"):
        thorax_phantom(replace(SMALL, shape=(0, 64, 64)))
    with pytest.raises(GeometryInvalid, match="spacing"):
        thorax_phantom(replace(SMALL, spacing_mm=(1.0, 0.0, 1.0)))
