"""The sliding window: where it stands, and how its scores become one volume."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import Window
from models.preparation import Float, PreparedVolume

_SIGMA = 1 / 8
"""Width of the Gaussian as a share of the window; its rim then weighs 1/3000 of its middle."""


class Scorer(Protocol):
    """Whatever turns windows into scores; engines do."""

    def infer(self, batch: Float) -> Float:
        """Windows (n, channels, slices, rows, columns) to scores (n, classes, slices, rows, columns)."""


@dataclass(frozen=True)
class WindowPlan:
    """Where windows of `size` start on a volume after `padding`; all in voxels, (slices, rows, columns).

    `starts` holds the starts along each axis and `padding` the voxels to add (before, after) each axis.
    """

    starts: tuple[tuple[int, ...], ...]
    size: tuple[int, int, int]
    padding: tuple[tuple[int, int], ...]

    @property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """The first voxel of every window."""
        return tuple(itertools.product(*self.starts))


def plan_windows(shape: tuple[int, int, int], window: Window) -> WindowPlan:
    """The fewest evenly spread windows that overlap by at least `window.overlap` and cover `shape`."""
    starts, padding = [], []
    for n, size in zip(shape, window.size, strict=True):
        missing = max(0, size - n)
        padding.append((missing // 2, missing - missing // 2))
        room = max(0, n - size)
        steps = int(np.ceil(room / max(1.0, size * (1.0 - window.overlap)) - 1e-9))
        starts.append(tuple(int(s) for s in np.linspace(0, room, steps + 1).round()))
    return WindowPlan(tuple(starts), window.size, tuple(padding))


def infer_windows(prepared: PreparedVolume, plan: WindowPlan, engine: Scorer, batch: int = 1) -> Float:
    """Scores (classes, slices, rows, columns) on the prepared grid, `batch` windows at a time.

    Overlapping windows are blended with Gaussian weights that sum to one at each voxel. What `engine.infer`
    raises passes through.
    """
    volume = prepared.array
    if any(before or after for before, after in plan.padding):
        volume = np.pad(volume, ((0, 0), *plan.padding), constant_values=prepared.lowest)
    if len(plan.positions) == 1:
        blended = engine.infer(_window(volume, plan.positions[0], plan.size)[None])[0]
    else:
        blended = _blend(volume, plan, engine, batch)
    kept = tuple(
        slice(before, before + n)
        for (before, _), n in zip(plan.padding, prepared.geometry.shape, strict=True)
    )
    result: Float = blended[(slice(None), *kept)]
    return result


def _blend(volume: Float, plan: WindowPlan, engine: Scorer, batch: int) -> Float:
    total: Float | None = None
    weights = _axis_weights(plan, volume.shape[1:])
    for group in _grouped(plan.positions, batch):
        scores = engine.infer(np.stack([_window(volume, start, plan.size) for start in group]))
        if total is None:
            total = np.zeros((scores.shape[1], *volume.shape[1:]), np.float32)
        for window, start in zip(scores, group, strict=True):
            along, down, across = (weights[axis][start[axis]] for axis in range(3))
            weighted = window * (along[:, None, None] * down[:, None] * across)
            _window(total, start, plan.size)[...] += weighted
    assert total is not None  # noqa: S101 - a plan has at least one window
    return total


def _axis_weights(plan: WindowPlan, shape: tuple[int, ...]) -> list[dict[int, Float]]:
    """For each axis and start the weights along it; where windows overlap they sum to one."""
    result = []
    for starts, size, n in zip(plan.starts, plan.size, shape, strict=True):
        distance = (np.arange(size) - (size - 1) / 2) / (size * _SIGMA)
        bell = np.exp(-0.5 * distance**2)
        total = np.zeros(n)
        for start in starts:
            total[start : start + size] += bell
        result.append({start: (bell / total[start : start + size]).astype(np.float32) for start in starts})
    return result


def _window(array: NDArray[Any], start: tuple[int, ...], size: tuple[int, ...]) -> NDArray[Any]:
    """A view of the window in (channels, slices, rows, columns)."""
    return array[(slice(None), *(slice(s, s + n) for s, n in zip(start, size, strict=True)))]


def _grouped(items: tuple[tuple[int, ...], ...], size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
