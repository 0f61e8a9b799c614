"""Writes a model package from a checkpoint: network, acceptance case, manifest with digests.

`python -m models.training.package CHECKPOINT --manifest TEMPLATE --output DIR`. The template is a
`model.toml` without its `[files]` table.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

from models.anatomy import Body
from models.export import Parity, check_parity, export_onnx
from models.labels import LabelMap
from models.manifest import ModelManifest, read_manifest
from models.nifti import save_nifti
from models.phantom import PhantomSpec, thorax_phantom
from models.training.loop import load
from models.volume import Volume

NETWORK, VOLUME, REFERENCE, MANIFEST = (
    "model.onnx",
    "acceptance-volume.nii.gz",
    "acceptance-labels.nii.gz",
    "model.toml",
)

ACCEPTANCE = PhantomSpec(
    shape=(52, 96, 104),
    spacing_mm=(6.0, 3.8, 3.8),
    body=Body(seed=2024, lesions=1, arms="up"),
    noise_hu=10.0,
    kernel_mm=2.0,
)


def write_package(checkpoint: Path, template: Path, folder: Path) -> tuple[ModelManifest, tuple[Parity, ...]]:
    """Writes the package and reads its manifest back.

    Raises ManifestInvalid for a template that makes no valid manifest, ModelsError when an engine does not
    agree with torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = load(checkpoint)
    export_onnx(trained.network, trained.spec, folder / NETWORK)
    parity = check_parity(trained.network, trained.spec, folder / NETWORK)
    phantom = thorax_phantom(ACCEPTANCE)
    geometry = phantom.volume.geometry
    coarse = (np.rint(phantom.volume.array / 4.0) * 4).astype(np.int16)  # compresses to a third
    save_nifti(Volume(coarse, geometry), folder / VOLUME)
    save_nifti(LabelMap(phantom.labels, geometry, ()), folder / REFERENCE)
    digests = [
        f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"'
        for name in (NETWORK, VOLUME, REFERENCE)
    ]
    text = template.read_text(encoding="utf-8").rstrip() + "\n\n[files]\n" + "\n".join(digests) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return read_manifest(folder / MANIFEST), parity


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m models.training.package", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    manifest, parity = write_package(arguments.checkpoint, arguments.manifest, arguments.output)
    print(manifest.model.name, manifest.model.version, manifest.digest)  # noqa: T201
    for one in parity:
        print(one)  # noqa: T201


if __name__ == "__main__":
    main()
