"""A grid on a real Ray: nodes that die, nodes that do not fit, and clusters that are left as they were."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stlm_edge.errors import ConfigError, DataError
from tests.settings import TWO_STREAMS
from tests.train.paper.test_execution import parts, started, wait_for, words
from train.__main__ import main
from train.paper.grid import plan, state
from train.record import Pictures

pytest.importorskip("ray", reason="needs the extra ray")

from train.paper import ray_cluster
from train.paper.ray_cluster import Sight

__all__ = ["parts", "started"]

SAME = {"stlm-edge": "0.1.0", "Python": "3.11.7", "torch": "2.6.0"}
PICTURES = {"disc": Pictures(4, "a")}


def test_nodes_that_differ_are_told_with_both_values():
    own = Sight(SAME, PICTURES)
    ray_cluster._require_same({"a": own, "b": own})
    for what, its in SAME.items():
        other = Sight(SAME | {what: "9"}, PICTURES)
        with pytest.raises(ConfigError, match=f"node b has {what} 9 and node a {its}"):
            ray_cluster._require_same({"a": own, "b": other})
    with pytest.raises(DataError, match="node b has 5 good pictures of disc and node a 4 others"):
        ray_cluster._require_same({"a": own, "b": Sight(SAME, {"disc": Pictures(5, "b")})})
    with pytest.raises(DataError, match="node b: found no data; every node needs it"):
        ray_cluster._require_same({"a": own, "b": Sight(SAME, fault="found no data")})


def test_gpus_of_a_run_are_those_that_a_node_has():
    without = [{"Resources": {"CPU": 2.0}}]
    both = [*without, {"Resources": {"CPU": 8.0, "GPU": 4.0}}]
    assert ray_cluster._gpus(None, without, wanted=True) == 0
    assert ray_cluster._gpus(None, both, wanted=True) == 1
    assert ray_cluster._gpus(None, both, wanted=False) == 0
    assert ray_cluster._gpus(0.25, both, wanted=True) == 0.25
    with pytest.raises(ConfigError, match=r"is 0\.5, expected at most 0"):
        ray_cluster._gpus(0.5, without, wanted=True)
    with pytest.raises(ConfigError, match="is 5, expected at most 4"):
        ray_cluster._gpus(5, both, wanted=True)
    with pytest.raises(ConfigError, match="a run computes on one"):
        ray_cluster._gpus(2, both, wanted=True)
    with pytest.raises(ConfigError, match="no node has a CPU"):
        ray_cluster._gpus(None, [{"Resources": {}}], wanted=True)


@pytest.mark.heavy
@pytest.mark.parametrize("address", ["rubbish", "ray://127.0.0.1:10001", "127.0.0.1:1", "127.0.0.1:99999", "served"])
def test_address_without_ray_is_refused_in_one_line(address, parts, tmp_path, file_server, capsys):
    address = file_server.address.removeprefix("http://") if address == "served" else address
    assert main(words(parts, tmp_path / "grid", "--ray", address)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert address in line
    assert not (tmp_path / "grid").exists()


class Grid:
    """`stlm grid` as a program, whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr))
        self._reader.start()

    def said(self, what: str) -> list[str]:
        return [line for line in self.lines if what in line]

    def ended(self, *, within_s: float = 300) -> int:
        code = self.process.wait(within_s)
        self._reader.join()
        return code


class Nodes:
    """See `ray_nodes`."""

    def __init__(self) -> None:
        soon = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}  # a node is dead
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"} | soon
        self._program = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.address = self._program.stdout.readline().strip()

    def tell(self, word: str) -> str:
        """Returns which node that was about, as a grid calls it."""
        self._program.stdin.write(f"{word}\n")
        self._program.stdin.flush()
        return self._program.stdout.readline().strip()

    def end(self) -> None:
        self._program.communicate(timeout=60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    made = Nodes()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def nodes(cluster, monkeypatch) -> Nodes:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    return cluster


@pytest.mark.heavy
def test_grid_finishes_when_one_of_two_nodes_dies(nodes, started, parts, tmp_path):
    dying = nodes.tell("add")
    output = tmp_path / "grid"
    grid = Grid(started(parts, output, "--epochs", "15", "--ray", nodes.address))
    wait_for(lambda: grid.said(f"to train, on {platform.node()} ({dying})"))
    (begun,) = grid.said(dying)
    name = begun.split(": ")[1].split(",")[1].strip()
    wait_for((output / "demo" / name / "seed-0" / "history.jsonl").exists)
    nodes.tell("kill")
    assert grid.ended() == 0, "".join(grid.lines)
    (again,) = grid.said("begun again, on ")
    assert f"demo, {name}, seed 0" in again
    told = (output / "demo" / name / "seed-0" / "grid.log").read_text()
    assert told.count("NO INITIAL WEIGHTS") == 1  # what it had learnt was not begun anew
    assert grid.lines[-1].endswith("2 of 2\n")
    assert ray_is_at(nodes.address)  # it was there before


def ray_is_at(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.heavy
def test_interrupted_grid_ends_its_cluster_and_is_gone_on_with(started, parts, tmp_path):
    output = tmp_path / "grid"
    grid = Grid(started(parts, output, "--epochs", "400", "--ray", "auto"))
    wait_for(lambda: list(output.glob("*/*/*/history.jsonl")))
    of_ray = raylets_below(grid.process.pid)
    assert of_ray
    grid.process.send_signal(signal.SIGINT)
    assert grid.ended() == 130
    assert "Traceback" not in "".join(grid.lines)
    assert grid.lines[-1] == "interrupted\n"
    wait_for(lambda: not any(Path(f"/proc/{number}").exists() for number in of_ray), within_s=20)
    runs = plan(presets=[TWO_STREAMS], categories=["disc", "rod"], seeds=[0], settings={}, output=output)
    assert "to resume" in [state(run) for run in runs]


def raylets_below(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            own = (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(parent)
            if own and b"raylet" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


SENT = """
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from train.paper import ray_cluster
from train.paper.grid import plan

parts, output, preset, address = sys.argv[1:]
settings = {"image_size": 64, "epochs": 1, "batch_size": 2, "workers": 0}
runs = plan(presets=[preset], categories=["disc"], seeds=[0], settings=settings, output=Path(output))
elsewhere = ray_cluster.Errand(Path(parts), None, Path.cwd(), Path(output), word="of another grid")
with ray_cluster._connected(address), closing(ray_cluster._compute(runs, elsewhere, 0.0)) as updates:
    print(*(update.event for update in updates if update is not None))
"""


@pytest.mark.heavy
def test_node_that_does_not_see_the_folder_sends_the_files(nodes, parts, tmp_path):
    output = tmp_path / "grid"
    words = [sys.executable, "-c", SENT, str(parts), str(output), TWO_STREAMS, nodes.address]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "begun finished\n", done.stderr
    (run,) = plan(presets=[TWO_STREAMS], categories=["disc"], seeds=[0], settings={}, output=output)
    assert state(run) == "finished"
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "run.json", "grid.json", "history.jsonl", "grid.log"} <= names
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "stlm-edge" / "grids" / "of another grid" / "demo" / "disc"
    assert kept.exists()
    assert not (kept / "seed-0").exists()


@pytest.mark.heavy
def test_nodes_that_do_not_fit_are_refused_before_anything_starts(nodes, parts, tmp_path):
    output = tmp_path / "grid"
    arguments = words(parts, output, "--ray", nodes.address, "--textures", str(tmp_path / "none"))
    done = subprocess.run([sys.executable, "-m", "train", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert "error: node " in said
    assert not list(output.glob("*/*"))
