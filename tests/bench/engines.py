"""Segmentation time by engine, and the time to write and verify SEG and SR, for a 300-slice CT."""

import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.reading import read_series
from models.metrics import dice
from models.registry import Registry
from tests.bench.series import ct_series
from worker.engines.choose import open_engine
from worker.errors import EngineUnavailable
from worker.pipeline import Order, Stopwatch, segment

_RUNS = 3


def rows() -> list[dict[str, Any]]:
    """The median of three runs of each engine; ratio of inference against the first one."""
    files = sorted(ct_series().iterdir())
    start = time.perf_counter()
    source = read_series(files)
    reading = time.perf_counter() - start
    registry = Registry()
    package = registry.get("ct-lungs")
    table: list[dict[str, Any]] = []
    reference = None
    for kind in package.manifest.engine.allowed:
        try:
            engine = open_engine(package, kind)
        except EngineUnavailable as error:
            print(f"engine {kind}: {error.sentence}")
            continue
        with closing(engine), tempfile.TemporaryDirectory() as folder:
            runs = []
            for _ in range(_RUNS):
                watch = Stopwatch()
                order = Order(package, engine, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC), Path(folder))
                result = segment(source, order, watch)
                runs.append(watch.seconds)
            seconds = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
            labels = result.label_map.array
            reference = labels if reference is None else reference
            first = table[0]["infer"] if table else seconds["infer"]
            table.append(
                {
                    "engine": f"{engine.kind} {engine.version.split('-')[0]}",
                    "precision": engine.precision,
                    "read": reading,
                    **seconds,
                    "all": reading + sum(seconds.values()),
                    "inference against the first": seconds["infer"] / first,
                    "Dice with the first": min(dice(labels, reference, number) for number in (1, 2)),
                }
            )
    return table
