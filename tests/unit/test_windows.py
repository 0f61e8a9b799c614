"""The sliding window: covers everything, blends without a seam."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import Window
from models.preparation import PreparedVolume
from models.volume import Geometry
from models.windows import infer_windows, plan_windows
from worker.engines.fake import FakeEngine

sizes = st.tuples(*[st.integers(1, 40)] * 3)


def prepared(shape, channels=1, lowest=-0.25):
    array = np.random.default_rng(5).random((channels, *shape), dtype=np.float32)
    geometry = Geometry(shape, np.eye(4))
    return PreparedVolume(array, geometry, geometry, lowest)


class Recorder:
    """Scores are the input and its negative; remembers what it was given."""

    def __init__(self):
        self.batches = []

    def infer(self, batch):
        self.batches.append(batch.copy())
        return np.concatenate([batch, -batch], axis=1)


@settings(max_examples=80, deadline=None)
@given(shape=sizes, size=sizes, overlap=st.floats(0, 0.9), batch=st.integers(1, 4))
def test_blending_gives_back_what_each_window_says(shape, size, overlap, batch):
    """SCOPE F1: whatever shape, window and overlap: an engine that returns its input returns the volume."""
    volume, recorder = prepared(shape), Recorder()
    plan = plan_windows(shape, Window(size=size, overlap=overlap))
    scores = infer_windows(volume, plan, recorder, batch)
    assert scores.shape == (2, *shape)
    assert scores.dtype == np.float32
    assert np.allclose(scores[0], volume.array[0], atol=1e-5)
    assert np.allclose(scores[1], -volume.array[0], atol=1e-5)
    assert all(len(b) <= batch and b.shape[2:] == size for b in recorder.batches)
    assert sum(len(b) for b in recorder.batches) == len(plan.positions)


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 300), size=st.integers(1, 128), overlap=st.floats(0, 0.9))
def test_windows_overlap_as_asked_and_none_is_spare(n, size, overlap):
    """SCOPE F1: steps within the overlap asked for, and the fewest windows that do it."""
    plan = plan_windows((n, 1, 1), Window(size=(size, 1, 1), overlap=overlap))
    starts = plan.starts[0]
    padded = n + sum(plan.padding[0])
    assert starts[0] == 0
    assert starts[-1] + size == padded == max(n, size)
    longest = max(1.0, size * (1 - overlap))
    assert all(after - before <= longest + 1 for before, after in itertools.pairwise(starts))
    assert len(starts) == 1 or (len(starts) - 2) * longest < n - size


def test_a_small_volume_is_padded_with_the_lowest_value():
    """SCOPE F1: one window, no blending, the rim looks like air."""
    volume, recorder = prepared((4, 5, 6)), Recorder()
    plan = plan_windows((4, 5, 6), Window(size=(8, 5, 9)))
    assert plan.padding == ((2, 2), (0, 0), (1, 2))
    scores = infer_windows(volume, plan, recorder)
    (batch,) = recorder.batches
    assert batch.shape == (1, 1, 8, 5, 9)
    assert np.all(batch[0, 0, :2] == -0.25)
    assert np.array_equal(scores[0], volume.array[0])


def test_disagreeing_windows_are_blended_smoothly():
    """SCOPE F1: where two windows disagree the score goes over from one to the other without a step."""

    class Counting:
        value = 0.0

        def infer(self, batch):
            Counting.value += 1.0
            return np.full_like(batch, Counting.value)

    plan = plan_windows((24, 4, 4), Window(size=(16, 4, 4), overlap=0.5))
    line = infer_windows(prepared((24, 4, 4)), plan, Counting())[0, :, 0, 0]
    assert line[0] == pytest.approx(1.0)
    assert line[-1] == pytest.approx(2.0)
    assert np.all(np.diff(line) >= -1e-6)
    assert np.abs(np.diff(line)).max() < 0.5


def test_several_channels_and_a_real_engine():
    """SCOPE F1, B5: channels reach the engine; the shipped fake engine does as a scorer."""
    volume = prepared((10, 12, 14), channels=2)
    with FakeEngine(classes=2) as engine:
        scores = infer_windows(volume, plan_windows((10, 12, 14), Window(size=(8, 8, 8))), engine, batch=3)
    assert np.array_equal(scores.argmax(axis=0), volume.array[0] > 0.5)
