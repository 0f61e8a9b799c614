"""Components that may not be, are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.cleanup import clean, clean_scores
from models.interpolation import arg_max
from models.labels import Code, Label
from models.manifest import LabelEntry
from models.preparation import PreparedVolume, restore
from models.volume import Geometry

CODE = ("39607008", "SCT", "Lung")


def entry(number, **rules):
    known = {"name": f"part {number}", "category": CODE, "type": CODE, "colour": (1, 2, 3)}
    return LabelEntry(number=number, plausible_ml=(0, 9), **known, **rules)


def scores_of(labels, classes=3):
    return np.stack([(labels == n) * 2.0 for n in range(classes)]).astype(np.float32)


@pytest.fixture
def labels():
    """Label 1: 64, 27 and 1 voxels; label 2: 8 voxels, and 1 inside the largest of label 1."""
    array = np.zeros((20, 20, 20), np.uint8)
    array[1:5, 1:5, 1:5] = 1
    array[10:13, 10:13, 10:13] = 1
    array[18, 18, 18] = 1
    array[15:17, 2:4, 2:4] = 2
    array[3, 3, 3] = 2
    return array


@pytest.mark.parametrize(
    ("rules", "sizes"),
    [({}, [63, 27, 1]), ({"keep_largest": 1}, [63]), ({"keep_largest": 2}, [63, 27]),
     ({"min_ml": 0.02}, [63, 27]), ({"min_ml": 0.05, "keep_largest": 2}, [63]), ({"min_ml": 1.0}, [])],
)  # fmt: skip
def test_rules_of_a_label(labels, rules, sizes):
    """SCOPE F3: keep_largest and min_ml, alone and together; a label left with none is absent."""
    before = labels.copy()
    found = clean(labels, [entry(1, **rules), entry(2)], 0.001)
    components, _ = ndimage.label(found == 1, np.ones((3, 3, 3)))
    assert sorted(np.bincount(components.ravel())[1:], reverse=True) == sizes
    assert np.array_equal(found == 2, before == 2)
    assert np.array_equal(labels, before)


def test_the_next_best_class_fills_what_was_removed(labels):
    """SCOPE F3: a speck of one lung inside the other becomes the other, a speck in the air becomes air."""
    scores = scores_of(labels)
    scores[1, 3, 3, 3] = 1.0
    cleaned = arg_max(clean_scores(scores, [entry(1, keep_largest=1), entry(2, keep_largest=1)], 0.001))
    assert cleaned[3, 3, 3] == 1
    assert cleaned[18, 18, 18] == 0
    assert (cleaned == 1).sum() == 64
    assert (cleaned == 2).sum() == 8


def test_scores_without_rules_stay_as_they_are(labels):
    """SCOPE F3: no rule, no change."""
    scores = scores_of(labels)
    assert np.array_equal(clean_scores(scores, [entry(1), entry(2)], 0.001), scores)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), minimum=st.floats(0.0, 6.0))
def test_removed_components_stay_away_on_the_source_grid(seed, minimum):
    """SCOPE F3, B4: cleaned at 3 mm, restored at 1 mm: nothing comes back where a component was removed."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, 16, 16, 16)), (0, 1.2, 1.2, 1.2)).astype(np.float32)
    noise[0] += 0.1
    rules = [entry(1, keep_largest=1), entry(2, min_ml=minimum)]
    cleaned = clean_scores(noise, rules, 0.027)
    kept = arg_max(cleaned)
    assert ndimage.label(kept == 1, np.ones((3, 3, 3)))[1] <= 1

    source = Geometry((48, 48, 48), np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    affine = source.affine.copy() @ np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 1.0
    prepared = PreparedVolume(np.zeros((1, 16, 16, 16), np.float32), Geometry((16, 16, 16), affine), source)
    code = Code(*CODE)
    found = restore(cleaned, prepared, [Label(n, "x", code, code) for n in (1, 2)]).array
    for number in (1, 2):
        near = ndimage.binary_dilation(kept == number, np.ones((3, 3, 3)))
        assert not (found == number)[~near.repeat(3, 0).repeat(3, 1).repeat(3, 2)].any()
        if not (kept == number).any():
            assert not (found == number).any()
