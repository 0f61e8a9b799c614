"""The broker wiped, or gone and back: it is a hint, so every job ends all the same, and ends once."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis as Client

from tests.faults.campaign import Lane
from tests.faults.conftest import Kill
from tests.faults.patients import Patient, make_patient, scan
from tests.faults.strace import Point
from tests.peers import Redis

PATIENTS = 6


@pytest.fixture
def redis(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Redis]:
    """A Redis of its own."""
    program("redis-server")
    with Redis(tmp_path / "redis") as running:
        yield running


def journey_while(lane: Lane, fault: Callable[[], None]) -> list[Patient]:
    """Several patients, and the fault again and again until all are final; every invariant holds then."""
    patients = [make_patient(lane.folder / "sent", f"w{n}", n % 2) for n in range(PATIENTS)]
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(0.25):
            fault()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        scan(patients, lane.node.fixed_port)
        time.sleep(4)
    finally:
        over.set()
        thread.join()
    lane.node.wait_final([patient.series for patient in patients])
    lane.check(patients)
    assert lane.node.deaths == [], "a role died of the broker"
    return patients


def test_the_folder_broker_is_wiped_again_and_again(tmp_path: Path) -> None:
    """SCOPE I1: broker wiped while jobs are queued and running."""
    with Lane(tmp_path) as lane:
        broker = lane.node.settings.node.data / "broker"
        journey_while(lane, lambda: shutil.rmtree(broker, ignore_errors=True))


def test_redis_is_flushed_again_and_again(tmp_path: Path, redis: Redis) -> None:
    """SCOPE I1: the same with Redis: FLUSHALL."""
    with Lane(tmp_path, sections={"queue": {"broker": redis.url}}) as lane, Client(port=redis.port) as client:
        journey_while(lane, client.flushall)


def test_redis_is_killed_and_comes_back_empty(tmp_path: Path, redis: Redis) -> None:
    """SCOPE I1: Redis killed while jobs are queued and running; the node goes on receiving meanwhile."""
    with Lane(tmp_path, sections={"queue": {"broker": redis.url}}) as lane:
        before, while_away = (
            [make_patient(lane.folder / "sent", f"{x}{n}", n) for n in (0, 1)] for x in "bw"
        )
        scan(before, lane.node.fixed_port)
        os.kill(redis.pid, signal.SIGKILL)
        redis.stop()
        scan(while_away, lane.node.fixed_port)
        time.sleep(2)
        shutil.rmtree(redis.folder)
        redis.start()
        patients = before + while_away
        lane.node.wait_final([patient.series for patient in patients])
        lane.check(patients)
        assert lane.node.deaths == [], "a role died of the broker"


@pytest.mark.usefixtures("can_trace")
def test_kills_with_redis(tmp_path: Path, redis: Redis, kills: list[Kill]) -> None:
    """SCOPE I1: each role killed with Redis as the broker; a taken message is not waited for."""
    points = [
        Point("listen", "", "link", 5),
        Point("segment", "", "rename", 1),
        Point("segment", "", "sendto", 2),
        Point("deliver", "", "sendto", 3),
    ]
    with Lane(tmp_path, sections={"queue": {"broker": redis.url}}) as lane:
        for number, point in enumerate(points, 1):
            kill = lane.strike(number, point)
            kills += [kill] if kill else []
