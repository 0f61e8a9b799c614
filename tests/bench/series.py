"""The series that the benchmarks use: a thorax phantom as a CT scanner would send it."""

import tempfile
from functools import cache
from pathlib import Path

from dicom_node.phantom_series import SeriesFacts, write_ct_series
from models.phantom import PhantomSpec, thorax_phantom
from models.volume import Volume


@cache
def folder() -> Path:
    """A folder that lives as long as the benchmark."""
    made = tempfile.TemporaryDirectory(prefix="segnode-bench-")
    _keep.append(made)
    return Path(made.name)


_keep: list[tempfile.TemporaryDirectory[str]] = []


@cache
def volume(slices: int = 300) -> Volume:
    """A 512 x 512 thorax of 1 mm slices for 300, thinner or thicker for other counts."""
    spec = PhantomSpec(shape=(slices, 512, 512), spacing_mm=(300 / slices, 0.74, 0.74))
    return thorax_phantom(spec).volume


@cache
def ct_series(slices: int = 300) -> Path:
    """The volume as files of about 525 kB each."""
    place = folder() / f"ct-{slices}"
    write_ct_series(volume(slices), place, SeriesFacts(seed=f"bench-{slices}"))
    return place
