"""Agreement of label maps."""

import numpy as np
import pytest

from models.errors import GeometryInvalid
from models.metrics import agreement, dice


def _box(first: int, last: int) -> np.ndarray:
    labels = np.zeros((4, 5, 12), np.uint8)
    labels[1:3, 1:4, first:last] = 2
    return labels


def test_known_overlap() -> None:
    """SCOPE E1: Dice, IoU and volume error of boxes whose overlap is counted by hand."""
    found = agreement(_box(0, 6), _box(2, 8), 2, voxel_ml=0.5)
    assert found.dice == pytest.approx(2 * 4 / 12)
    assert found.iou == pytest.approx(4 / 8)
    assert (found.found_ml, found.reference_ml, found.error_ml) == (18.0, 18.0, 0.0)
    assert agreement(_box(0, 6), _box(0, 3), 2).error_share == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("found", "reference", "score"), [((0, 0), (0, 0), 1.0), ((0, 3), (0, 0), 0.0), ((0, 0), (2, 4), 0.0)]
)
def test_empty_masks(found: tuple[int, int], reference: tuple[int, int], score: float) -> None:
    """SCOPE E1: a label that neither has agrees, one that only one has does not; nothing divides by zero."""
    result = agreement(_box(*found), _box(*reference), 2)
    assert (result.dice, result.iou) == (score, score)
    assert result.error_share == (float("inf") if found[1] else (-1.0 if reference[1] else 0.0))


def test_labels_are_kept_apart() -> None:
    """SCOPE E1: swapped labels are no agreement."""
    assert dice(_box(0, 4), np.where(_box(0, 4) == 2, 1, 0), 2) == 0.0
    assert dice(_box(0, 4), _box(0, 4), 2) == 1.0


def test_refuses_other_grids() -> None:
    """SCOPE E1: maps of different shapes are refused by name."""
    with pytest.raises(GeometryInvalid, match="cannot be compared"):
        agreement(_box(0, 4), np.zeros((4, 5, 11)), 2)
    with pytest.raises(GeometryInvalid, match="volume"):
        agreement(_box(0, 4), _box(0, 4), 2, voxel_ml=0.0)
