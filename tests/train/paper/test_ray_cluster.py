"""A grid on a real Ray: nodes that die, nodes that do not fit, and clusters that are left as they were."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from stlm_edge.errors import ConfigError, DataError
from tests.settings import TWO_STREAMS
from tests.train.paper.test_execution import parts, wait_for, words
from train.__main__ import main
from train.paper.grid import plan, state
from train.record import Pictures

ray = pytest.importorskip("ray", reason="needs the extra ray")

from ray.cluster_utils import Cluster  # noqa: E402 - of what may be missing

from train.paper import ray_cluster  # noqa: E402
from train.paper.ray_cluster import Errand, Sight  # noqa: E402

__all__ = ["parts"]

SAME = {"stlm-edge": "0.1.0", "Python": "3.11.7", "torch": "2.6.0"}
PICTURES = {"bottle": Pictures(4, "a")}


def test_nodes_that_differ_are_told_with_both_values():
    own = Sight(SAME, PICTURES)
    ray_cluster._require_same({"a": own, "b": own})
    for what, its in SAME.items():
        other = Sight(SAME | {what: "9"}, PICTURES)
        with pytest.raises(ConfigError, match=f"node b has {what} 9 and node a {its}"):
            ray_cluster._require_same({"a": own, "b": other})
    with pytest.raises(DataError, match="node b has 5 good pictures of bottle and node a 4 others"):
        ray_cluster._require_same({"a": own, "b": Sight(SAME, {"bottle": Pictures(5, "b")})})
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

    def __init__(self, parts: Path, output: Path, *more: str) -> None:
        command = [sys.executable, "-m", "train", *words(parts, output, *more)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr))
        self._reader.start()

    def said(self, what: str) -> list[str]:
        return [line for line in self.lines if what in line]

    def ended(self, *, within_s: float = 240) -> int:
        code = self.process.wait(within_s)
        self._reader.join()
        return code


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Cluster]:
    """Of this machine, without nodes; each has a store of its own and a CPU."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster()
    try:
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
def test_grid_finishes_when_one_of_two_nodes_dies(cluster, parts, tmp_path):
    cluster.add_node(num_cpus=1, include_dashboard=False)
    output = tmp_path / "grid"
    grid = Grid(parts, output, "--epochs", "60", "--ray", cluster.address)
    wait_for(lambda: grid.said("to train, on "))
    dying = cluster.add_node(num_cpus=1)  # and joins a grid that runs; the program itself is part of the other node
    wait_for(lambda: len(grid.said("to train, on ")) == 2 and len(list(output.glob("*/*/*/history.jsonl"))) == 2)
    cluster.remove_node(dying, allow_graceful=False)
    assert grid.ended() == 0, "".join(grid.lines)
    (again,) = grid.said("begun again, on ")
    name = again.split(": ")[1].split(",")[1].strip()
    told = (output / "demo" / name / "seed-0" / "grid.log").read_text()
    assert "going on after epoch" in told
    assert grid.lines[-1].endswith("2 of 2\n")
    assert ray_is_at(cluster.address)  # it was there before


def ray_is_at(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.slow
def test_interrupted_grid_ends_its_cluster_and_is_gone_on_with(parts, tmp_path):
    output = tmp_path / "grid"
    grid = Grid(parts, output, "--epochs", "400", "--ray", "auto")
    wait_for(lambda: list(output.glob("*/*/*/history.jsonl")))
    of_ray = raylets_below(grid.process.pid)
    assert of_ray
    grid.process.send_signal(signal.SIGINT)
    assert grid.ended() == 130
    assert "Traceback" not in "".join(grid.lines)
    assert grid.lines[-1] == "interrupted\n"
    wait_for(lambda: not any(Path(f"/proc/{number}").exists() for number in of_ray), within_s=20)
    runs = plan(presets=[TWO_STREAMS], categories=["bottle", "carpet"], seeds=[0], settings={}, output=output)
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


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_node_that_does_not_see_the_folder_sends_the_files(parts, tmp_path, quick):
    output = tmp_path / "grid"
    (run,) = plan(
        presets=[TWO_STREAMS], categories=["bottle"], seeds=[0], settings={"image_size": 64, "epochs": 1}, output=output
    )
    run = replace(run, config=replace(run.config, workers=0))
    elsewhere = Errand(parts, None, Path.cwd(), output, word="of another grid")
    with ray_cluster._connected("auto"), closing(ray_cluster._compute([run], elsewhere, 0.0)) as updates:
        events = [update.event for update in updates if update is not None]
    assert events == ["begun", "finished"]
    assert state(run) == "finished"
    assert {"config.yaml", "run.json", "grid.json", "history.jsonl", "grid.log"} <= {
        path.name for path in run.folder.iterdir()
    }
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "stlm-edge" / "grids" / "of another grid" / "demo" / "bottle"
    assert kept.exists()
    assert not (kept / "seed-0").exists()


@pytest.mark.slow
def test_nodes_without_data_or_of_other_versions_are_refused_before_anything_starts(
    cluster, parts, tmp_path, monkeypatch
):
    cluster.add_node(num_cpus=1, include_dashboard=False)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "torch-9.9.dist-info").mkdir()
    (tmp_path / "torch-9.9.dist-info" / "METADATA").write_text("Name: torch\nVersion: 9.9\n")
    other = cluster.add_node(num_cpus=1)
    output = tmp_path / "grid"
    monkeypatch.undo()
    grid = Grid(parts, output, "--ray", cluster.address)
    assert grid.ended() == 1
    assert "torch 9.9" in grid.lines[-1]
    assert not list(output.glob("*/*"))
    cluster.remove_node(other)
    arguments = words(parts, output, "--ray", cluster.address)
    for more, line in (
        (["--gpus-per-run", "1"], "--gpus-per-run is 1, expected at most 0"),
        (["--textures", str(tmp_path / "none")], "node "),
    ):
        process = subprocess.run(
            [sys.executable, "-m", "train", *arguments, *more], capture_output=True, text=True, check=False
        )
        assert process.returncode == 1
        assert line in process.stderr.splitlines()[-1]
    assert not list(output.glob("*/*"))
