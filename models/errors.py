"""The error tree of `models`.

SegnodeError
├── ModelsError
│   ├── ManifestInvalid      a model.toml that cannot be used as it stands
│   ├── PackageDamaged       a file of a model package is missing or has another digest
│   ├── ModelUnknown         no installed package has that name
│   ├── GeometryInvalid      an affine, a shape or a spacing that no volume can have
│   ├── RecipeInvalid        a training recipe with a misspelt key or an impossible value
│   └── ExtraMissing         an optional library is not installed
├── dicom_node.errors.NodeError
└── worker.errors.WorkerError
"""

from typing import ClassVar


class SegnodeError(Exception):
    """Something in segnode failed; see the sentence, the facts and the remedy.

    Every error has a name (the class), a sentence for a person, the facts as attributes for a program
    (no patient data) and, where there is one, the remedy.
    """

    remedy: ClassVar[str] = ""

    def __init__(self, sentence: str = "", *, remedy: str | None = None, **facts: object) -> None:
        self.sentence = sentence or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        self.facts = facts
        self.advice = type(self).remedy if remedy is None else remedy
        super().__init__(self.sentence)

    @property
    def name(self) -> str:
        """The error's stable name, as shown by `segnode jobs show`."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}".strip()

    def reason(self) -> str:
        """Name and sentence in one line, as the catalogue records it."""
        return f"{self.name}: {self}"


class ModelsError(SegnodeError):
    """A model, its package or an array could not be used."""


class ManifestInvalid(ModelsError):
    """The model manifest cannot be used as it stands."""


class PackageDamaged(ModelsError):
    """A file of the model package is missing or differs from its digest."""

    remedy = "Install the model package again from its source."


class ModelUnknown(ModelsError):
    """No installed model package has that name."""

    remedy = "`segnode models list` shows the installed ones."


class GeometryInvalid(ModelsError):
    """The geometry is impossible."""


class RecipeInvalid(ModelsError):
    """The training recipe cannot be used as it stands."""


class ExtraMissing(ModelsError):
    """An optional library is not installed."""
