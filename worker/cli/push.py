"""`segnode push`."""

import sys
from pathlib import Path

import click

from worker.cli.output import Exit, json_option, print_json, size


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--to", required=True, metavar="AET@HOST:PORT", help="The receiving node.")
@click.option("--calling-ae", default="SEGNODE", show_default=True, help="AE title to call with.")
@json_option
@click.pass_context
def push(context: click.Context, folder: Path, to: str, calling_ae: str, as_json: bool) -> None:
    """Send the DICOM files in FOLDER and below by C-STORE, as they are.

    Exit code 4 where the peer refused an object, or nothing was sent.
    """
    from dicom_node.delivery.push import push_folder
    from dicom_node.logs import set_up_logging

    set_up_logging("push", "ERROR")
    with click.progressbar(length=1, label="sending", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        report = push_folder(folder, to, calling_ae, progress)
    if as_json:
        print_json(report)
    else:
        for path, reason in report.skipped:
            click.echo(f"left out: {path.name}: {reason}", err=True)
        for path, reason in report.refused:
            click.echo(f"refused: {path.name}: {reason}", err=True)
        for path, reason in report.warnings:
            click.echo(f"taken with a warning: {path.name}: {reason}", err=True)
        speed = report.size / max(report.seconds, 1e-6)
        click.echo(
            f"{report.sent} sent ({size(report.size)} in {report.seconds:.1f} s, {size(int(speed))}/s), "
            f"{len(report.refused)} refused, {len(report.skipped)} left out"
        )
    if report.refused or not report.sent:
        context.exit(Exit.INCOMPLETE)
