"""`segnode demo`."""

from pathlib import Path
from typing import Any

import click

from worker.cli.output import Exit, json_option, print_fields, print_heading, print_json, print_table, size


@click.command()
@click.option(
    "--input", "source", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with a CT series. [default: a thorax phantom, made for the occasion]",
)  # fmt: skip
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
)
@json_option
@click.pass_context
def demo(context: click.Context, source: Path | None, output: Path, as_json: bool) -> None:
    """Show the main job on this machine: CT in by C-STORE, SEG and SR out, verified.

    Starts a node with its workers and an archive on loopback ports, sends the series, follows it, receives
    the results and writes overlay.png, seg.dcm, sr.dcm and summary.json. Needs no root, Redis or network.
    """
    from dicom_node.logs import set_up_logging
    from worker.demo import demonstrate

    set_up_logging("demo", "ERROR")
    result = demonstrate(source, output, lambda line: click.echo(line, err=True))
    if as_json:
        print_json(result.report())
    else:
        _print(result.report())
    if not result.passed:
        context.exit(Exit.INCOMPLETE)


def _print(report: dict[str, Any]) -> None:
    for job in report["jobs"]:
        print_heading(f"Job {job['job']}: {job['state']}")
        print_fields({"reason": job["reason"], "evidence": job["evidence"], "instances": job["instances"]})
        if job.get("segments"):
            click.echo()
            print_table(
                ("segment", "mL", "mean", "centroid LPS mm"),
                [(s["name"], s["volume_ml"], s["mean"], s["centroid_lps_mm"]) for s in job["segments"]],
            )
        if job["objects"]:
            click.echo()
            status = {item["sop_instance_uid"]: item["status"] for item in job["receipts"]}
            print_table(
                ("object", "size", "archive said", "SOP Instance UID"),
                [
                    (item["kind"], size(item["size"]), status.get(uid, ""), uid)
                    for item in job["objects"]
                    for uid in [item["sop_instance_uid"]]
                ],
            )
            click.echo()
            print_table(("step", "seconds"), list(job["steps"].items()))
    if report["dice"]:
        print_heading("Agreement with the phantom (Dice)")
        print_fields(report["dice"])
    print_heading("Stages")
    print_table(("stage", "seconds"), list(report["seconds"].items()))
    click.echo(f"\nWritten to {report['output']}: overlay.png, seg.dcm, sr.dcm, summary.json")
