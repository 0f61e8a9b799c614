"""One picture that shows a person where the labels are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.labels import LabelMap, Measurement
from models.measurements import measure
from models.preparation import canonical_axes
from models.volume import Volume

NOTICE = "AI result, not for primary diagnosis"

_HEIGHT = 512
"""Pixels of the longest side of a view."""
_MARGIN = 12
_LINE = 22
_BLACK, _GREY, _WHITE, _AMBER = (0, 0, 0), (150, 150, 150), (235, 235, 235), (255, 190, 60)
_LUNG, _SOFT_TISSUE = (-600.0, 1500.0), (40.0, 400.0)
"""CT windows: centre and width in HU."""

Plane = NDArray[Any]


@dataclass(frozen=True)
class _View:
    """How a plane of the canonical volume (slices up, rows back, columns left) is shown."""

    name: str
    axis: int
    head_up: bool
    letters: tuple[str, str, str, str]
    """What lies left, right, above and below on the picture."""


_VIEWS = (
    _View("axial", 0, False, ("R", "L", "A", "P")),
    _View("coronal", 1, True, ("R", "L", "H", "F")),
    _View("sagittal", 2, True, ("A", "P", "H", "F")),
)


def overlay_picture(
    volume: Volume,
    label_map: LabelMap,
    title_lines: Sequence[str] = (),
    measurements: Sequence[Measurement] | None = None,
) -> Image.Image:
    """Axial, coronal and sagittal planes with the labels' contours, names and volumes (mL), RGB.

    The planes go through the centroid of the largest label, or the middle of the volume where there is none,
    in true proportions and radiological convention: the patient's right on the left, head up. CT is shown in
    the lung window (1500/-600 HU) where the labels are mostly air, else in that for soft tissue (400/40);
    other modalities between the 1st and the 99th percentile. `measurements` of this label map save measuring
    again. Raises GeometryInvalid when the grids differ.
    """
    found = [m for m in (measurements or measure(label_map, volume)) if m.voxels]
    axes, flips = canonical_axes(volume.geometry)
    values = volume.array.transpose(axes)[flips]
    labels = label_map.array.transpose(axes)[flips]
    spacing = np.array(volume.geometry.spacing)[list(axes)]
    centre = _centre(volume, found, axes, flips)
    planes = [values.take(centre[view.axis], axis=view.axis) for view in _VIEWS]
    low, high = _window(volume, planes, found)
    scale = _HEIGHT / float((np.array(values.shape) * spacing).max())
    colours = {label.number: label.colour for label in label_map.labels}
    views = []
    for view, plane in zip(_VIEWS, planes, strict=True):
        step = scale * np.delete(spacing, view.axis)
        size = (max(1, round(plane.shape[1] * step[1])), max(1, round(plane.shape[0] * step[0])))
        cut = labels.take(centre[view.axis], axis=view.axis)
        views.append(_draw_view(view, (plane - low) / max(high - low, 1e-6), cut, size, colours))
    return _assemble(views, [*title_lines], found)


def _centre(
    volume: Volume, found: list[Measurement], axes: tuple[int, ...], flips: tuple[slice, ...]
) -> tuple[int, ...]:
    """The canonical index of the planes to show."""
    shape = np.array(volume.array.shape)
    index = (shape - 1) / 2
    if found:
        place = np.array([*max(found, key=lambda m: m.voxels).centroid_lps, 1.0])
        index = (np.linalg.inv(volume.geometry.affine) @ place)[:3]
    turned = [
        shape[a] - 1 - index[a] if flip.step == -1 else index[a] for a, flip in zip(axes, flips, strict=True)
    ]
    places = np.clip(np.floor(np.array(turned) + 0.5 + 1e-6), 0, shape[list(axes)] - 1)
    return tuple(int(place) for place in places)


def _window(volume: Volume, planes: list[Plane], found: list[Measurement]) -> tuple[float, float]:
    """The values shown as black and as white."""
    if volume.modality == "CT" and volume.unit == "HU":
        voxels = sum(m.voxels for m in found)
        airy = voxels > 0 and sum(m.mean * m.voxels for m in found) / voxels < -300
        centre, width = _LUNG if airy else _SOFT_TISSUE
        return centre - width / 2, centre + width / 2
    low, high = np.percentile(np.concatenate([plane.ravel() for plane in planes]), (1, 99))
    return float(low), float(high)


def _draw_view(
    view: _View, plane: Plane, labels: Plane, size: tuple[int, int], colours: dict[int, tuple[int, int, int]]
) -> Image.Image:
    """One plane at `size` (width, height) pixels with contours and letters."""
    if view.head_up:
        plane, labels = plane[::-1], labels[::-1]
    grey = Image.fromarray((np.clip(plane, 0, 1) * 255).astype(np.uint8))
    pixels = np.array(grey.resize(size, Image.Resampling.BICUBIC).convert("RGB"))
    for number in np.unique(labels):
        if number == 0 or int(number) not in colours:
            continue
        mask = Image.fromarray(((labels == number) * 255).astype(np.uint8))
        pixels[_contour(np.array(mask.resize(size, Image.Resampling.BILINEAR)) >= 128)] = colours[int(number)]
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    width, height = size
    left, right, top, bottom = view.letters
    for text, place, anchor in (
        (left, (4, height / 2), "lm"), (right, (width - 4, height / 2), "rm"),
        (top, (width / 2, 3), "mt"), (bottom, (width / 2, height - 3), "mb"),
    ):  # fmt: skip
        draw.text(place, text, _AMBER, _font(17), anchor=anchor, stroke_width=2, stroke_fill=_BLACK)
    draw.text((4, height - 4), view.name, _GREY, _font(13), anchor="lb", stroke_width=2, stroke_fill=_BLACK)
    return image


def _contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The two outermost pixels of `mask`."""
    inner = mask
    for _ in range(2):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _assemble(views: list[Image.Image], titles: list[str], found: list[Measurement]) -> Image.Image:
    """Title above, the views side by side, legend and notice below."""
    width = max(sum(view.width for view in views) + _MARGIN * (len(views) + 1), 720)
    tallest = max(view.height for view in views)
    columns = max(1, width // 300)
    legend = -(-max(len(found), 1) // columns)
    top = _MARGIN + _LINE * len(titles) + (6 if titles else 0)
    image = Image.new("RGB", (width, top + tallest + _LINE * (legend + 1) + 3 * _MARGIN), _BLACK)
    draw = ImageDraw.Draw(image)
    for row, title in enumerate(titles):
        draw.text((_MARGIN, _MARGIN + row * _LINE), title, _WHITE, _font(16))
    x = _MARGIN
    for view in views:
        image.paste(view, (x, top + (tallest - view.height) // 2))
        x += view.width + _MARGIN
    y = top + tallest + _MARGIN
    if not found:
        draw.text((_MARGIN, y), "nothing found", _GREY, _font(15))
    for index, one in enumerate(found):
        x, line = _MARGIN + index % columns * 300, y + index // columns * _LINE
        draw.rectangle((x, line + 3, x + 12, line + 15), fill=one.label.colour)
        draw.text((x + 20, line), f"{one.label.name}  {one.volume_ml:,.1f} mL", _WHITE, _font(15))
    draw.text((_MARGIN, image.height - _MARGIN), NOTICE, _AMBER, _font(15), anchor="ls")
    return image


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
