"""The picture shows labels where they are, the right way round."""

import itertools

import numpy as np
import pytest

from models.errors import GeometryInvalid
from models.labels import Code, Label, LabelMap
from models.measurements import measure
from models.picture import overlay_picture
from models.volume import Geometry, Volume

CODE = Code("39607008", "SCT", "Lung")
RED, GREEN = (255, 0, 0), (0, 255, 0)
LABELS = (Label(1, "Left lung", CODE, CODE, None, RED), Label(2, "Right lung", CODE, CODE, None, GREEN))
TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def thorax(order=(0, 1, 2), signs=(1, 1, 1), unit="HU", modality="CT"):
    """A box with two "lungs": the left one (label 1, +x) lies high, the right one (label 2) in front."""
    affine = np.array([[0, 0, 2.0, -80], [0, 2.0, 0, -60], [4.0, 0, 0, 100], [0, 0, 0, 1]])
    values = np.full((30, 60, 80), 40, np.int16)
    labels = np.zeros(values.shape, np.uint8)
    labels[10:28, 15:45, 48:70] = 1
    labels[5:24, 8:30, 10:32] = 2
    values[labels > 0] = -850
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        turn[old, new] = sign
        turn[old, 3] = 0 if sign > 0 else values.shape[old] - 1
    flips = tuple(slice(None, None, sign) for sign in signs)
    values, labels = (np.ascontiguousarray(a.transpose(order)[flips]) for a in (values, labels))
    geometry = Geometry(values.shape, affine @ turn)
    return Volume(values, geometry, unit, modality), LabelMap(labels, geometry, LABELS)


def places(image, colour):
    """Columns and rows of the pixels of that very colour, without the legend."""
    pixels = np.asarray(image)[: image.height - 70]
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return columns, rows


def test_radiological_convention_and_true_proportions():
    """SCOPE G3: the patient's left is on the right, head up, and a millimetre is as long on every view."""
    image = overlay_picture(*thorax())
    scale = 512 / 160  # the widest extent, 160 mm, has 512 pixels
    axial = 12 + 160 * scale
    left, left_rows = places(image, RED)
    right, right_rows = places(image, GREEN)
    in_axial, right_in_axial = left < axial, right < axial
    assert left[in_axial].min() > right[right_in_axial].max()
    assert left[in_axial].max() - left[in_axial].min() == pytest.approx(22 * 2 * scale, abs=4)
    assert left_rows[in_axial].max() - left_rows[in_axial].min() == pytest.approx(30 * 2 * scale, abs=4)
    assert right_rows[right_in_axial].min() < left_rows[in_axial].min(), "in front is above"
    coronal = (left > axial) & (left < axial + 12 + 160 * scale)
    assert left_rows[coronal].max() - left_rows[coronal].min() == pytest.approx(18 * 4 * scale, abs=5)
    middle = image.height - 70 - left_rows[coronal].mean()
    assert middle > image.height / 3, "the left lung reaches towards the head, so it lies high"


@pytest.mark.parametrize(("order", "signs"), TURNS[1::3])
def test_the_picture_does_not_depend_on_how_the_array_lies(order, signs):
    """SCOPE B2, G3: any axis order and direction gives the same picture."""
    expected = np.asarray(overlay_picture(*thorax())).astype(int)
    found = np.asarray(overlay_picture(*thorax(order, signs))).astype(int)
    assert found.shape == expected.shape
    assert (np.abs(found - expected).max(axis=-1) > 8).mean() < 0.002


def test_titles_legend_and_notice_make_room():
    """SCOPE G3: titles and legend are drawn; measurements given are not measured again."""
    volume, labels = thorax()
    plain = overlay_picture(volume, labels)
    titled = overlay_picture(volume, labels, ["ct-lungs 1.0.0", "series 4"], measure(labels, volume))
    assert titled.mode == "RGB"
    assert titled.height > plain.height
    legend = np.asarray(plain)[-80:]
    for colour in (RED, GREEN, (255, 190, 60)):
        assert (legend == colour).all(axis=-1).any()


def test_nothing_found_still_gives_a_picture():
    """SCOPE G3: without a label the middle is shown in the soft-tissue window, without a contour."""
    volume, labels = thorax()
    empty = LabelMap(np.zeros_like(labels.array), labels.geometry, LABELS)
    image = overlay_picture(volume, empty)
    for colour in (RED, GREEN):
        assert places(image, colour)[0].size == 0
    pixels = np.asarray(image)
    assert (pixels == (127, 127, 127)).all(axis=-1).mean() > 0.2, "40 HU is the window's middle"


def test_other_modalities_use_percentiles():
    """SCOPE B3, G3: stored values of any scale show contrast."""
    volume, labels = thorax(unit="stored", modality="MR")
    scaled = Volume(volume.array.astype(np.float32) * 100 + 7e5, volume.geometry, "stored", "MR")
    grey = np.asarray(overlay_picture(scaled, labels).convert("L"))
    assert (grey[:300] > 240).any()
    assert (grey[:300] < 15).any()


def test_one_slice_and_flat_volumes():
    """SCOPE G3: extreme shapes and a constant image do not fail."""
    for shape in ((1, 40, 40), (3, 1, 2), (40, 2, 3)):
        geometry = Geometry(shape, np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]])
        labels = LabelMap(np.ones(shape, np.uint8), geometry, LABELS)
        assert (
            overlay_picture(Volume(np.zeros(shape, np.int16), geometry, "stored", "MR"), labels).width >= 720
        )


def test_grids_that_differ_are_refused():
    """SCOPE G3: labels of another grid are not drawn."""
    volume, labels = thorax()
    moved = Geometry(labels.geometry.shape, np.diag([1.0, 1, 1, 1]))
    with pytest.raises(GeometryInvalid):
        overlay_picture(volume, LabelMap(labels.array, moved, LABELS))
