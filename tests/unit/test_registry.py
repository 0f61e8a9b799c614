"""Packages: found, and whole."""

import hashlib

import pytest

from models.errors import ManifestInvalid, ModelUnknown, PackageDamaged
from models.registry import LIBRARY, Registry

TEMPLATE = """
[model]
name = "{name}"
version = "1.0.0"
title = "t"
purpose = "p"
not_for = "n"
code_licence = "Apache-2.0"
weights_licence = "Apache-2.0"
anatomy = ["51185008", "SCT", "Chest"]
[input]
spacing_mm = [3.0, 3.0, 3.0]
clip = [-1000, 600]
[window]
size = [32, 32, 32]
[acceptance]
volume = "case.nii.gz"
reference = "labels.nii.gz"
[provenance]
trained_on = "t"
labels = "l"
recipe = "r"
date = "2025-01-01"
[[labels]]
number = 1
name = "Left lung"
category = ["91723000", "SCT", "Anatomical structure"]
type = ["39607008", "SCT", "Lung"]
colour = [1, 2, 3]
plausible_ml = [100, 5000]
[files]
"""


def package(folder, name="lungs"):
    folder.mkdir(parents=True)
    text = TEMPLATE.format(name=name)
    for file in ("model.onnx", "case.nii.gz", "labels.nii.gz"):
        (folder / file).write_bytes(file.encode() * 1000)
        text += f'"{file}" = "{hashlib.sha256(file.encode() * 1000).hexdigest()}"\n'
    (folder / "model.toml").write_text(text)
    return folder


def test_packages_of_all_folders_are_found(tmp_path):
    """SCOPE I7: shipped and configured folders, sorted; a folder without a manifest is no package."""
    package(tmp_path / "a" / "lungs")
    package(tmp_path / "b" / "liver", "liver")
    (tmp_path / "b" / "notes").mkdir()
    registry = Registry([tmp_path / "b", tmp_path / "absent"], library=tmp_path / "a")
    assert registry.names() == ("liver", "lungs")
    found = registry.get("liver")
    assert found.folder == tmp_path / "b" / "liver"
    assert found.manifest.model.name == found.name == "liver"
    registry.verify(found)
    with pytest.raises(ModelUnknown, match=r"kidney.*liver, lungs"):
        registry.get("kidney")


@pytest.mark.parametrize("file", ["model.onnx", "case.nii.gz", "labels.nii.gz"])
def test_one_changed_bit_or_a_missing_file_is_named(tmp_path, file):
    """SCOPE I7: verify names the damaged file."""
    folder = package(tmp_path / "lungs")
    registry = Registry(library=tmp_path)
    content = bytearray((folder / file).read_bytes())
    content[500] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(PackageDamaged, match=f"{file} of lungs differs"):
        registry.verify(registry.get("lungs"))
    (folder / file).unlink()
    with pytest.raises(PackageDamaged, match=f"{file} of lungs cannot be read"):
        registry.verify(registry.get("lungs"))


def test_two_packages_of_one_name_are_refused(tmp_path):
    """SCOPE I7: which of two packages is meant must never be a guess."""
    package(tmp_path / "a" / "one")
    package(tmp_path / "b" / "two")
    with pytest.raises(ManifestInvalid, match="both hold a model named lungs"):
        Registry([tmp_path / "b"], library=tmp_path / "a")


def test_a_manifest_that_cannot_be_used_is_named(tmp_path):
    """SCOPE I7: the sentence names the manifest and the key."""
    folder = package(tmp_path / "lungs")
    text = (folder / "model.toml").read_text().replace("size =", "sise =")
    (folder / "model.toml").write_text(text)
    with pytest.raises(ManifestInvalid, match=r"model\.toml.*window\.sise"):
        Registry(library=tmp_path)


def test_shipped_packages_are_whole():
    """SCOPE I7: every package that ships matches its digests."""
    registry = Registry()
    assert len(registry.names()) == len(list(LIBRARY.glob("*/model.toml")))
    for name in registry.names():
        registry.verify(registry.get(name))
