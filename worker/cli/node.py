"""`segnode run`, `segnode listen`, `segnode work`."""

import signal
import threading
from pathlib import Path

import click

from dicom_node.logs import set_up_logging
from dicom_node.settings import load_settings
from worker.cli.output import Global


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@click.command()
@click.pass_obj
def listen(options: Global) -> None:
    """Receive studies by C-STORE and decide when they are whole."""
    from worker.roles import listen as run_listener

    settings = load_settings(options.config)
    set_up_logging("listen", settings.node.log_level)
    run_listener(settings, _stop_on_signals())


@click.command()
@click.option("--queue", type=click.Choice(["segment", "deliver"]), default="segment", show_default=True)
@click.pass_obj
def work(options: Global, queue: str) -> None:
    """Work on one queue: segment series, or deliver results."""
    from worker.roles import work as run_worker

    settings = load_settings(options.config)
    set_up_logging(f"work {queue}", settings.node.log_level)
    run_worker(settings, queue)


@click.command()
@click.option("--segment-workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.pass_obj
def run(options: Global, segment_workers: int) -> None:
    """Run the whole node on this machine: listener, segmenting and delivering workers."""
    from worker.roles import Supervisor

    settings = load_settings(options.config)
    set_up_logging("run", settings.node.log_level)
    roles = [["listen"], *[["work", "--queue", "segment"]] * segment_workers, ["work", "--queue", "deliver"]]
    config: Path | None = options.config
    Supervisor(config, roles).run(_stop_on_signals())
