"""The way to the network's grid and back: geometry first."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from models.errors import GeometryInvalid
from models.interpolation import arg_max
from models.labels import Code, Label, LabelMap
from models.manifest import Input
from models.preparation import PreparedVolume, prepare, prepare_labels, prepared_geometry, restore
from models.volume import Geometry, Volume

CODE = Code("39607008", "SCT", "Lung")
LABELS = tuple(Label(n, f"part {n}", CODE, CODE) for n in (1, 2))
SPEC = Input(spacing_mm=(2.0, 2.0, 2.0), clip=(-1000.0, 1000.0))
TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def grid(shape, spacing, order=(2, 1, 0), signs=(1, 1, 1), tilt=0.0, origin=(10.0, -20.0, 300.0)):
    """A grid whose axis a runs along LPS axis order[a] in direction signs[a], turned about x by `tilt`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def patient_positions(geometry):
    return geometry.to_patient(np.stack(np.indices(geometry.shape), axis=-1))


def blob(geometry, centre, radius):
    """1 inside a ball in the patient, 0 outside, with a soft edge."""
    distance = np.linalg.norm(patient_positions(geometry) - centre, axis=-1)
    return np.clip(radius - distance + 0.5, 0, 1)


def one_hot(values):
    return np.stack([1 - values, values, np.zeros_like(values)]).astype(np.float32)


@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_a_blob_comes_back_where_it_was_in_every_orientation(order, signs):
    """SCOPE B4: all 48 axis orders and flips, anisotropic spacing: canonical axes, exact inverse."""
    geometry = grid((31, 40, 37), (1.3, 0.8, 1.1), order, signs, tilt=0.15)
    middle = geometry.to_patient(np.array([16.0, 18.0, 20.0]))
    ball = blob(geometry, middle, 9.0)
    prepared = prepare([Volume((ball * 2000 - 1000).astype(np.float32), geometry)], SPEC)

    axes = prepared.geometry.affine[:3, :3]
    assert axes[2, 0] > 0
    assert axes[1, 1] > 0
    assert axes[0, 2] > 0
    assert prepared.geometry.spacing == pytest.approx((2.0, 2.0, 2.0))
    weights = prepared.array[0]
    positions = patient_positions(prepared.geometry)
    centroid = (positions * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
    assert np.linalg.norm(centroid - middle) < 0.1

    found = restore(one_hot(weights), prepared, LABELS)
    assert found.geometry is geometry
    inside = patient_positions(geometry)[found.array == 1]
    assert np.linalg.norm(inside.mean(axis=0) - middle) < 0.15
    assert (found.array == 1).sum() == pytest.approx((ball > 0.5).sum(), rel=0.08)  # smoothing shrinks a ball


def _wins_near(wins, index):
    """Whether `wins` holds at one of the eight neighbours of each place (..., 3)."""
    last = np.array(wins.shape) - 1
    index = index[..., None, :]
    lower = np.minimum(np.floor(np.clip(index, 0, last)), np.maximum(last - 1, 0)).astype(int)
    upper = np.array(list(itertools.product((0, 1), repeat=3)))
    return wins[tuple(np.moveaxis(np.minimum(lower + upper, last), -1, 0))].any(axis=-1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 5.0)] * 3),
    turn=st.sampled_from(TURNS),
    seed=st.integers(0, 99),
)
def test_restore_equals_dense_linear_interpolation(shape, spacing, turn, seed):
    """SCOPE B4: the short cut over cells equals interpolating every score that wins at a neighbour."""
    geometry = grid(shape, spacing, *turn)
    prepared_grid = prepared_geometry(geometry, SPEC.spacing_mm)
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, *prepared_grid.shape)).astype(np.float32)
    scores[0] += 0.5
    array = np.zeros((1, *prepared_grid.shape), np.float32)
    found = restore(scores, PreparedVolume(array, prepared_grid, geometry), LABELS).array

    to_index = np.linalg.inv(prepared_grid.affine)
    index = patient_positions(geometry) @ to_index[:3, :3].T + to_index[:3, 3]
    dense = np.stack(
        [
            map_coordinates(s, np.moveaxis(index, -1, 0), order=1, mode="nearest", output=np.float64)
            for s in scores
        ]
    )
    sure = np.ones(geometry.shape, bool)
    for number in range(3):  # only a class that wins at one of the eight neighbours may win in between
        below, above = (_wins_near(scores.argmax(axis=0) == number, index + e) for e in (-1e-5, 1e-5))
        sure &= below == above  # on a prepared plane the neighbours lie on either side of it
        dense[number][~above] = -np.inf
    ranked = np.sort(dense, axis=0)
    clear = sure & (ranked[-1] - ranked[-2] > 1e-4)
    assert found.dtype == np.uint8
    assert np.array_equal(found[clear], dense.argmax(axis=0)[clear])


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 60)] * 3), spacing=st.tuples(*[st.floats(0.3, 8.0)] * 3))
def test_the_prepared_grid_covers_the_source(shape, spacing):
    """SCOPE B4: same centre, covers the source's extent and less than a voxel more."""
    source = grid(shape, spacing)
    prepared = prepared_geometry(source, SPEC.spacing_mm)
    assert np.allclose(prepared.corners().mean(axis=0), source.corners().mean(axis=0))
    extent = np.array(source.shape) * source.spacing
    covered = np.array(prepared.shape) * prepared.spacing
    assert (covered >= extent * 0.99 - 1e-2).all()
    assert (covered < extent + 2.0 + 1e-6).all()


@pytest.mark.parametrize("turn", TURNS[::5])
def test_equal_spacing_changes_no_voxel(turn):
    """SCOPE B4: with the model's own spacing the way there and back is the identity."""
    order, signs = turn
    geometry = grid((9, 11, 7), (2.0, 2.0, 2.0), order, signs)
    values = np.random.default_rng(1).integers(-1000, 1000, geometry.shape).astype(np.int16)
    prepared = prepare([Volume(values, geometry)], SPEC)
    assert sorted(prepared.array[0].ravel()) == pytest.approx(
        sorted((values.ravel() + 1000) / 2000), abs=1e-6
    )
    truth = (values > 0).astype(np.uint8)
    assert np.array_equal(restore(one_hot(prepared.array[0] > 0.50001), prepared, LABELS).array, truth)
    assert np.array_equal(
        prepare_labels(LabelMap(truth, geometry, LABELS), SPEC),
        (prepared.array[0] > 0.50001).astype(np.uint8),
    )


def test_shrinking_averages_and_clips_first():
    """SCOPE B3, B4: a checkerboard shrinks to its mean, padding below the clip limit counts as the limit."""
    geometry = grid((40, 40, 40), (0.5, 0.5, 0.5))
    checker = np.where(np.indices(geometry.shape).sum(axis=0) % 2, 400, -200).astype(np.int16)
    prepared = prepare([Volume(checker, geometry)], SPEC)
    assert np.abs(prepared.array[0, 1:-1, 1:-1, 1:-1] - 0.55).max() < 0.005
    padded = np.where(np.arange(40) < 20, -3024, 0).astype(np.int16) + np.zeros(geometry.shape, np.int16)
    assert prepare([Volume(padded, geometry)], SPEC).array.min() == 0.0


def test_channels_and_zscore():
    """SCOPE B3, B5: volumes of one grid become channels; z-score uses the training data's figures."""
    geometry = grid((6, 5, 4), (2.0, 2.0, 2.0))
    spec = Input(spacing_mm=(2, 2, 2), clip=(-100, 300), normalise="zscore", mean=100.0, sd=50.0)
    flat = [Volume(np.full(geometry.shape, value, np.float32), geometry) for value in (100.0, 900.0)]
    prepared = prepare(flat, spec)
    assert prepared.array.shape == (2, 6, 5, 4)
    assert prepared.array.dtype == np.float32
    assert prepared.array[:, 0, 0, 0] == pytest.approx([0.0, 4.0])
    assert prepared.lowest == pytest.approx(-4.0)


def test_prepared_labels_keep_volume_and_place():
    """SCOPE B4: reference labels on the prepared grid, for training."""
    geometry = grid((50, 60, 55), (0.9, 0.7, 0.8), signs=(-1, 1, -1))
    left, right = (
        blob(geometry, geometry.to_patient(np.array(c)), 8.0) > 0.5 for c in ((25, 15, 27), (25, 45, 27))
    )
    labels = prepare_labels(LabelMap(left * 1 + right * 2, geometry, LABELS), SPEC)
    prepared = prepared_geometry(geometry, SPEC.spacing_mm)
    for number, truth in ((1, left), (2, right)):
        assert (labels == number).sum() * prepared.voxel_ml == pytest.approx(
            truth.sum() * geometry.voxel_ml, rel=0.05
        )
        place = prepared.to_patient(np.argwhere(labels == number).mean(axis=0))
        assert np.linalg.norm(place - geometry.to_patient(np.argwhere(truth).mean(axis=0))) < 0.3


def test_half_precision_scores_give_the_same_labels():
    """SCOPE F1: float16 scores are enough."""
    geometry = grid((30, 30, 30), (1.0, 1.0, 1.0))
    ball = blob(geometry, geometry.to_patient(np.array([15, 15, 15])), 8) * 2000 - 1000
    prepared = prepare([Volume(ball, geometry)], SPEC)
    scores = one_hot(prepared.array[0])
    full, half = (
        restore(scores, prepared, LABELS).array,
        restore(scores.astype(np.float16), prepared, LABELS).array,
    )
    assert (full != half).mean() < 1e-3
    assert full.any()


def test_ties_go_to_the_first_class():
    """SCOPE B4: equal scores are background, so nothing appears from flat scores."""
    assert not arg_max(np.zeros((3, 2, 2, 2), np.float32)).any()


def test_wrong_shapes_and_grids_are_refused_by_name():
    """SCOPE B2: scores of another grid, volumes of different grids."""
    geometry = grid((4, 4, 4), (2.0, 2.0, 2.0))
    volume = Volume(np.zeros((4, 4, 4), np.int16), geometry)
    prepared = prepare([volume], SPEC)
    with pytest.raises(GeometryInvalid, match="are not 3 classes"):
        restore(np.zeros((2, 4, 4, 4), np.float32), prepared, LABELS)
    other = Volume(np.zeros((4, 4, 4), np.int16), grid((4, 4, 4), (2.0, 2.0, 2.1)))
    with pytest.raises(GeometryInvalid, match="different grids"):
        prepare([volume, other], SPEC)
    with pytest.raises(GeometryInvalid, match="no volume"):
        prepare([], SPEC)
    turned = PreparedVolume(prepared.array, grid((4, 4, 4), (2, 2, 2), tilt=0.3), geometry)
    with pytest.raises(GeometryInvalid, match="rotated"):
        restore(np.zeros((3, 4, 4, 4), np.float32), turned, LABELS)
