"""Prints the benchmark tables, each with ratios against a peer or a budget measured in the same run."""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench import engines, ingest, path

TABLES = {"ingest": ingest.rows, "path": path.rows, "engines": engines.rows}
_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "celery", "openvino", "onnxruntime", "numpy")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").is_file() else ""
    models = {line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")}
    return {
        "cpu": sorted(models), "threads": info.count("processor\t"), "python": platform.python_version(),
        "system": platform.platform(), "versions": {name: version(name) for name in _LIBRARIES},
    }  # fmt: skip


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """One table, columns in the order of the first row's keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_text(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    print(f"\n{name}")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs the chosen tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all by default")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - TABLES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    record: dict[str, Any] = {"machine": machine(), "tables": {}}
    print(json.dumps(record["machine"]))
    for name in arguments.tables or TABLES:
        record["tables"][name] = TABLES[name]()
        show(name, record["tables"][name])
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
