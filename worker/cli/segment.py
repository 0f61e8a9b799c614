"""`segnode segment`."""

from pathlib import Path
from typing import Any

import click

from worker.cli.output import Exit, Global, json_option, print_json, print_table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default="ct-lungs", show_default=True, help="Name of an installed model.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--engine", type=click.Choice(["auto", "openvino", "onnxruntime"]), help="Pins the engine.")
@json_option
@click.pass_obj
def segment(
    options: Global, folder: Path, model: str, output: Path, engine: str | None, as_json: bool
) -> None:
    """Segment the series in FOLDER that the model takes, without any network.

    Writes seg.dcm (where something was found), sr.dcm, overlay.png, labels.nii.gz and result.json; where the
    model takes several series, each goes into a folder of its own, named by its Series Instance UID.
    """
    from dicom_node.errors import SeriesUnreadable
    from dicom_node.logs import set_up_logging
    from models.registry import Registry
    from worker.engines.choose import open_engine
    from worker.files import candidates, segment_files

    settings = options.settings()
    set_up_logging("segment", "ERROR")
    registry = Registry(settings.models.folders)
    package = registry.get(model)
    registry.verify(package)
    left_out: list[tuple[str, str]] = []
    taken = candidates(folder, package, lambda name, reason: left_out.append((name, reason)))
    reports: list[dict[str, Any]] = []
    opened = open_engine(package, engine or settings.worker.engine, settings.worker.threads)
    try:
        for candidate in taken:
            place = output if len(taken) == 1 else output / candidate.series_instance_uid
            try:
                reports.append(segment_files(candidate, package, opened, place) | {"folder": str(place)})
            except SeriesUnreadable as error:
                if len(taken) == 1:
                    raise
                left_out.append((f"series {candidate.series_instance_uid}", error.reason()))
    finally:
        opened.close()
    if as_json:
        print_json({"results": reports, "left_out": [{"what": a, "reason": b} for a, b in left_out]})
    else:
        _print(reports, left_out)
    if len(reports) < len(taken):
        click.get_current_context().exit(Exit.INCOMPLETE)


def _print(reports: list[dict[str, Any]], left_out: list[tuple[str, str]]) -> None:
    for name, reason in left_out:
        click.echo(f"left out: {name}: {reason}", err=True)
    for report in reports:
        click.echo(f"series {report['series_instance_uid']}")
        print_table(
            ("segment", "mL", "centroid LPS mm", "mean"),
            [
                (item["name"], item["volume_ml"], item["centroid_lps_mm"], f"{item['mean']} {item['unit']}")
                for item in report["segments"]
            ],
        )
        if not report["segments"]:
            click.echo(f"  {report['summary']}")
        click.echo(f"  written to {report['folder']} in {sum(report['seconds'].values()):.1f} s")
