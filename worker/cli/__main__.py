"""`python -m worker.cli` is `segnode`."""

from worker.cli import main

main(prog_name="segnode")
