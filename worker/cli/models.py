"""`segnode models`: which packages are installed, what each is for, and whether it works here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from models.errors import ModelsError, SegnodeError
from models.registry import ModelPackage, Registry
from worker.cli.output import (
    Exit,
    Global,
    json_option,
    print_fields,
    print_heading,
    print_json,
    print_table,
    size,
)


@dataclass(frozen=True)
class _Check:
    """One thing that was tried with a package."""

    model: str
    what: str
    result: Literal["ok", "absent", "FAILED"]
    says: str


@click.group()
def models() -> None:
    """Look at the installed model packages and verify them."""


@models.command("list")
@json_option
@click.pass_obj
def list_models(options: Global, as_json: bool) -> None:
    """List the installed packages."""
    settings = options.settings()
    registry = Registry(settings.models.folders)
    found = [_summary(registry.get(name), settings.models.enabled) for name in registry.names()]
    if as_json:
        print_json(found)
    else:
        columns = ("name", "version", "enabled", "labels", "title")
        print_table(columns, [[item[name] for name in columns] for item in found])


def _summary(package: ModelPackage, enabled: Sequence[str]) -> dict[str, Any]:
    model = package.manifest.model
    return {
        "name": model.name,
        "version": model.version,
        "title": model.title,
        "enabled": "yes" if model.name in enabled else "no",
        "labels": [entry.name for entry in package.manifest.labels],
        "digest": package.manifest.digest,
        "folder": str(package.folder),
    }


@models.command("show")
@click.argument("name")
@json_option
@click.pass_obj
def show_model(options: Global, name: str, as_json: bool) -> None:
    """Show what a model is for, what it accepts and where it comes from."""
    package = Registry(options.settings().models.folders).get(name)
    if as_json:
        print_json(package.manifest.model_dump(mode="json") | {"folder": str(package.folder)})
        return
    manifest = package.manifest
    identity, accepts, provenance = manifest.model, manifest.accepts, manifest.provenance
    print_fields(
        {
            "model": f"{identity.name} {identity.version}",
            "title": identity.title,
            "purpose": identity.purpose,
            "not for": identity.not_for,
            "modalities": accepts.modalities,
            "at least": f"{accepts.min_slices} slices, {accepts.min_coverage_mm:g} mm",
            "slice spacing": f"at most {accepts.max_slice_spacing_mm:g} mm",
            "body parts": accepts.body_parts or "any",
            "not with": accepts.exclude_image_types,
            "works at": " x ".join(f"{value:g}" for value in manifest.input.spacing_mm) + " mm",
            "engines": manifest.engine.allowed,
            "trained on": provenance.trained_on,
            "labels from": provenance.labels,
            "recipe": f"{provenance.recipe}, {provenance.date}",
            "code licence": identity.code_licence,
            "weights": identity.weights_licence,
            "digest": manifest.digest,
            "folder": package.folder,
        }
    )
    print_heading("Labels")
    print_table(
        ("number", "name", "type", "modifier", "plausible mL"),
        [
            (entry.number, entry.name, _code(entry.type), _code(entry.modifier),
             f"{entry.plausible_ml[0]:g} to {entry.plausible_ml[1]:g}")
            for entry in manifest.labels
        ],
    )  # fmt: skip
    print_heading("Files")
    print_table(
        ("file", "size", "sha-256"),
        [
            (file, size(path.stat().st_size) if (path := package.path(file)).is_file() else "missing", digest)
            for file, digest in manifest.files.items()
        ],
    )


def _code(code: tuple[str, str, str] | None) -> str:
    return f"{code[2]} ({code[0]}, {code[1]})" if code else ""


@models.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@json_option
@click.pass_obj
def verify_models(options: Global, names: Sequence[str], as_json: bool) -> None:
    """Verify packages: the digest of each file, then the acceptance case on each engine of this machine.

    Without a name all installed packages. Exit code 4 where a file is damaged, an engine's result is not
    accepted, or no engine runs the model.
    """
    settings = options.settings()
    registry = Registry(settings.models.folders)
    packages = [registry.get(name) for name in names or registry.names()]
    done = [check for package in packages for check in _verify(registry, package, settings.worker.threads)]
    runs = {check.model for check in done if check.result == "ok" and check.what != "files"}
    good = len(runs) == len(packages) and all(check.result != "FAILED" for check in done)
    if as_json:
        print_json({"verified": good, "checks": done})
    else:
        columns = ("model", "what", "result", "says")
        print_table(columns, [[getattr(check, name) for name in columns] for check in done])
    if not good:
        raise click.exceptions.Exit(Exit.INCOMPLETE)


def _verify(registry: Registry, package: ModelPackage, threads: int) -> list[_Check]:
    try:
        registry.verify(package)
    except ModelsError as error:
        return [_Check(package.name, "files", "FAILED", error.reason())]
    whole = _Check(package.name, "files", "ok", f"{len(package.manifest.files)} files as in the manifest")
    return [whole, *(_trial(package, kind, threads) for kind in package.manifest.engine.allowed)]


def _trial(package: ModelPackage, kind: str, threads: int) -> _Check:
    """The acceptance case on one engine; an engine that this machine lacks condemns nothing."""
    from worker.commissioning import run_acceptance
    from worker.engines.choose import open_engine
    from worker.errors import EngineUnavailable

    try:
        engine = open_engine(package, kind, threads)
    except EngineUnavailable as error:
        return _Check(package.name, kind, "absent", error.sentence)
    try:
        result = run_acceptance(package, engine)
    except SegnodeError as error:
        return _Check(package.name, kind, "FAILED", error.reason())
    finally:
        engine.close()
    worst = min(result.dice.values())
    says = f"accepted: Dice at least {worst:.3f}, {result.precision}, {result.seconds:.1f} s"
    return _Check(package.name, kind, "ok", says)
