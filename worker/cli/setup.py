"""`segnode init` and `segnode check`."""

from pathlib import Path

import click

from worker.cli.output import Exit, Global, json_option, print_json


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("segnode.toml"),
    show_default=True, help="File to write.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(output: Path, force: bool) -> None:
    """Write a commented configuration file: every setting with its meaning and default."""
    from worker.cli.template import configuration_text
    from worker.errors import StageFailed

    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(configuration_text())
    except FileExistsError as error:
        raise StageFailed(
            f"{output} is there already.", remedy="`--force` overwrites it, `--output` names another."
        ) from error
    except OSError as error:
        raise StageFailed(f"{output} cannot be written: {error.strerror}.") from error
    click.echo(f"{output} written. Next: add a destination, then `segnode check`.")


@click.command()
@click.option("--live", is_flag=True, help="Also ask every destination, the broker and the running listener.")
@json_option
@click.pass_obj
def check(options: Global, live: bool, as_json: bool) -> None:
    """Say what is wrong with the configuration and its surroundings, each with the remedy.

    Changes nothing. Exit code 3 where there is an error; warnings alone end with 0.
    """
    from worker.cli.checks.everything import examine
    from worker.cli.checks.findings import Level

    findings = examine(options.config, ask_peers=live)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if as_json:
        print_json({"errors": errors, "warnings": warnings, "findings": findings})
    else:
        for finding in findings:
            click.echo(f"{finding.level:<7}  {finding.subject}: {finding.sentence}")
            if finding.remedy:
                click.echo(f"{'':<9}{finding.remedy}")
        click.echo(f"\n{errors} errors, {warnings} warnings")
    if errors:
        raise click.exceptions.Exit(Exit.FINDINGS)
