"""Figures against a slow and plain way of getting them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import GeometryInvalid
from models.labels import Code, Label, LabelMap
from models.measurements import measure
from models.volume import Geometry, Volume

CODE = Code("39607008", "SCT", "Lung")
LABELS = tuple(Label(n, f"part {n}", CODE, CODE) for n in (1, 2, 3))
AFFINE = np.array([[0.1, 0.05, 0.7, -120], [0.2, -0.8, 0.1, 33], [1.5, 0.1, 0, 900], [0, 0, 0, 1]])


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([np.int16, np.float32, np.uint16]),
)
def test_figures_equal_the_plain_way(shape, seed, dtype):
    """SCOPE G2: voxels, mL, centroid in LPS mm, mean, SD, minimum and maximum of each label."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(shape, AFFINE)
    values = (rng.normal(1000, 300, shape)).astype(dtype)
    array = rng.integers(0, 3, shape).astype(np.uint8)
    found = measure(LabelMap(array, geometry, LABELS), Volume(values, geometry))
    assert [m.label.number for m in found] == [1, 2, 3]
    for one in found:
        mask = array == one.label.number
        assert one.voxels == mask.sum()
        assert one.volume_ml == pytest.approx(mask.sum() * abs(np.linalg.det(AFFINE[:3, :3])) / 1000)
        if one.voxels:
            inside = values[mask].astype(np.float64)
            assert one.centroid_lps == pytest.approx(
                tuple(geometry.to_patient(np.argwhere(mask)).mean(axis=0))
            )
            assert (one.mean, one.sd) == pytest.approx((inside.mean(), inside.std()), abs=1e-3)
            assert (one.minimum, one.maximum) == (inside.min(), inside.max())
            assert one.unit == "HU"


def test_an_absent_label_has_no_figures():
    """SCOPE G2: nothing found is said, with no invented numbers."""
    geometry = Geometry((3, 4, 5), AFFINE)
    empty = LabelMap(np.zeros((3, 4, 5), np.uint8), geometry, LABELS)
    for one in measure(empty, Volume(np.ones((3, 4, 5), np.int16), geometry, unit="stored")):
        assert (one.voxels, one.volume_ml, one.unit) == (0, 0.0, "stored")
        assert math.isnan(one.mean)
        assert math.isnan(one.centroid_lps[0])


def test_grids_that_differ_are_refused():
    """SCOPE G2: labels are only measured on their own grid."""
    geometry, other = Geometry((3, 4, 5), AFFINE), Geometry((3, 4, 5), np.eye(4))
    labels = LabelMap(np.zeros((3, 4, 5), np.uint8), geometry, LABELS)
    with pytest.raises(GeometryInvalid, match="different grids"):
        measure(labels, Volume(np.ones((3, 4, 5), np.int16), other))
