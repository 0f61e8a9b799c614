"""The model packages installed on this machine."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.errors import ManifestInvalid, ModelUnknown, PackageDamaged
from models.manifest import ModelManifest, read_manifest

LIBRARY = Path(__file__).parent / "library"
"""The packages shipped with segnode."""

MANIFEST = "model.toml"


@dataclass(frozen=True)
class ModelPackage:
    """A folder with `model.toml` and the files it names."""

    folder: Path
    manifest: ModelManifest

    @property
    def name(self) -> str:
        """The model's name, unique among the installed packages."""
        return self.manifest.model.name

    def path(self, file: str) -> Path:
        """Where a file of the package lies."""
        return self.folder / file


class Registry:
    """The shipped packages and those in `directories`; every folder in one of them with a `model.toml`.

    Raises ManifestInvalid for a manifest that cannot be used and for two packages of the same name.
    """

    def __init__(self, directories: Iterable[Path] = (), *, library: Path = LIBRARY) -> None:
        self._packages: dict[str, ModelPackage] = {}
        for directory in (library, *directories):
            for path in sorted(directory.glob(f"*/{MANIFEST}")):
                package = ModelPackage(path.parent, read_manifest(path))
                other = self._packages.setdefault(package.name, package)
                if other is not package:
                    raise ManifestInvalid(
                        f"{package.folder} and {other.folder} both hold a model named {package.name}.",
                        remedy="Remove one of the two packages.",
                    )

    def names(self) -> tuple[str, ...]:
        """The names of all packages, sorted."""
        return tuple(sorted(self._packages))

    def get(self, name: str) -> ModelPackage:
        """The package of that name. Raises ModelUnknown."""
        try:
            return self._packages[name]
        except KeyError:
            known = ", ".join(self.names()) or "none"
            raise ModelUnknown(f"No model is named {name}; installed: {known}.", model=name) from None

    def verify(self, package: ModelPackage) -> None:
        """Compares every file with its digest. Raises PackageDamaged, naming the first file that differs."""
        for file, expected in package.manifest.files.items():
            try:
                with package.path(file).open("rb") as stream:
                    actual = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise PackageDamaged(
                    f"{file} of {package.name} cannot be read: {error.strerror}.",
                    model=package.name,
                    file=file,
                ) from error
            if actual != expected.lower():
                raise PackageDamaged(
                    f"{file} of {package.name} differs from its digest.", model=package.name, file=file
                )
