"""What can be handed over: valid files, which of them is damaged, and who reads it.

Heavy imports stand in functions: a worker loads what its targets need.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stlm_edge.errors import StlmError
from stlm_edge.imaging import write_image
from stlm_edge.seal import SEAL, seal_of, sealed
from tests.settings import TWO_STREAMS

from .mutations import of_bytes, of_json, of_object, write

Files = dict[str, bytes]
"""Content by path below a folder."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        make: the files that belong together.
        damaged: the one that is altered.
        read: the answer of who reads them, in a folder of their own; raises `StlmError` where they are refused.
        alter: how it is altered.
        finish: what else is altered with it, such as hashes.
        is_mended: a damaged file is never refused: what is whole of it is taken.
    """

    make: Callable[[], Files]
    damaged: str
    read: Callable[[Path], object]
    alter: Callable[[bytes, random.Random], bytes] = of_json
    finish: Callable[[Files], None] = lambda _: None
    is_mended: bool = False


def saved(fill: Callable[[Path], object]) -> Files:
    """What a function writes into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def commanded(main: Callable[[list[str]], int], *arguments: str) -> str:
    """What a command prints; what it refuses in one line and with exit code 1 is raised as the error that it was."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    if code == 0:
        return out.getvalue()
    lines = err.getvalue().splitlines()
    if (
        code == 1
        and lines
        and lines[-1].startswith("error: ")
        and sum(line.startswith("error: ") for line in lines) == 1
    ):
        raise StlmError(lines[-1])
    raise AssertionError(f"exit code {code} and the lines {lines[-5:]}")


def resealed(content: bytes, rng: random.Random) -> bytes:
    record = of_object({name: value for name, value in json.loads(content).items() if name != SEAL}, rng)
    try:
        return write({**record, SEAL: seal_of(json.loads(write(record)))})
    except (ValueError, RecursionError):  # a text that is not Unicode, or nested too deeply to be sealed
        return write(record)


# --- engines


def engine_files() -> Files:
    from ..runtime.conftest import write_engine

    return saved(lambda folder: write_engine(folder / "n.onnx"))


def open_and_infer(folder: Path, *, backend: Literal["onnxruntime", "openvino"] = "onnxruntime") -> object:
    from runtime.detector import Detector

    image = np.random.default_rng(0).integers(0, 200, (64, 128, 3), np.uint8)
    with Detector.open(folder / "n.onnx", backend=backend) as detector:
        anomaly = detector.inspect(image)
        return detector.spec, anomaly.score, anomaly.is_anomalous


def rehash_engine(files: Files) -> None:
    record = json.loads(files["n.onnx.json"])
    record["engine"]["engine_sha256"] = hashlib.sha256(files["n.onnx"]).hexdigest()
    del record[SEAL]
    files["n.onnx.json"] = write({**record, SEAL: seal_of(record)})


def read_graph_file(folder: Path) -> object:
    from export.graph.graph import read_graph

    graph = read_graph(folder / "n.onnx")
    return graph.spec, graph.record, hashlib.sha256(graph.to_bytes()).hexdigest()


def graph_files() -> Files:
    import onnx

    from export.graph.graph import OPSET, SPEC_KEY, set_metadata

    from ..runtime.conftest import SPEC, brightness_graph

    model = brightness_graph()
    model.opset_import[0].version = OPSET
    set_metadata(model, SPEC_KEY, SPEC.to_json())
    return saved(lambda folder: onnx.save(model, folder / "n.onnx"))


def kernel_files() -> Files:
    from export.graph.parts import STAGES
    from export.tensorrt.kernels import Kernel, KernelTable, KernelTensor, write_kernels

    tensor = KernelTensor("x", (1, 3, 64, 64), "fp16")
    kernels = tuple(
        Kernel(f"k{index}", "kgen", (tensor,), (), (tensor,), ("n",), stage, None, 10**6, "fp16", False)
        for index, stage in enumerate(STAGES)
    )

    def fill(folder: Path) -> None:
        (folder / "x.plan").write_bytes(b"a plan")
        write_kernels(folder / "x.plan", KernelTable(kernels, 10**7, ()))

    return saved(fill)


def report_plan(folder: Path) -> str:
    from export.__main__ import main

    return commanded(main, "report", str(folder / "x.plan"), "--gpu", "mine=1:2:0.5:1")


# --- checkpoints and runs


@functools.cache
def small_network() -> Any:
    from stlm_edge.network.encoder import ARCHITECTURES
    from stlm_edge.network.stlm import Stlm

    return Stlm(ARCHITECTURES["stlm-tiny"]).eval()


def checkpoint_files() -> Files:
    from stlm_edge.network.checkpoint import Checkpoint, save
    from stlm_edge.network.weights import fingerprint
    from stlm_edge.spec import ModelSpec, Threshold
    from train.config import TrainConfig

    network = small_network()
    spec = ModelSpec(
        "plate", "stlm-tiny", (64, 64), (64, 64), fingerprint(network.state_dict()), Threshold(0.5, "f1", 9)
    )
    config = TrainConfig(architecture="stlm-tiny", image_size=(64, 64)).to_dict()
    return saved(lambda folder: save(folder / "m.safetensors", Checkpoint(network, spec, config)))


def read_checkpoint(folder: Path) -> object:
    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.weights import fingerprint
    from train.config import from_dict

    loaded = load(folder / "m.safetensors")
    return loaded.spec, from_dict(loaded.config), fingerprint(loaded.network.state_dict())


def header_altered(content: bytes, rng: random.Random) -> bytes:
    """Of a safetensors file: its header is JSON, behind eight bytes of its length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = rng.choice(["spec", "config", "design", "tensors", "tensors"])
    if entry == "tensors":
        header = of_object(header, rng)
    else:
        metadata = header["__metadata__"]
        metadata[entry] = write(of_object(json.loads(metadata[entry]), rng)).decode()
        metadata.pop(SEAL)
        metadata[SEAL] = seal_of(metadata)
    written = write(header)
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def preset_file() -> Files:
    from train.config import PRESETS

    return {"p.yaml": (PRESETS / "cpu.yaml").read_bytes()}


def read_preset(folder: Path) -> object:
    from train.config import from_dict, load_preset

    return from_dict(load_preset(str(folder / "p.yaml")))


def run_files() -> Files:
    import torch

    from stlm_edge.datasets.parts import Parts
    from train.config import TrainConfig
    from train.record import Pictures, Sources, write_record

    sources, pictures = Sources(Path("/data"), "plate", None), Pictures(6, "0" * 64)
    return saved(
        lambda folder: write_record(
            folder,
            TrainConfig(),
            sources,
            pictures=pictures,
            parts=Parts.one_by_one(6, how="none looks nearly the same as another"),
            taught_by="random",
            run_id="0" * 32,
            device=torch.device("cpu"),
            processes=1,
        )
    )


def read_run(folder: Path) -> object:
    from train.record import read_record

    return read_record(folder)


@functools.cache
def small_objective() -> Any:
    from stlm_edge.spec import ModelSpec
    from train.config import from_dict, load_preset
    from train.objective import Objective

    config = from_dict(
        load_preset(TWO_STREAMS) | {"image_size": [64, 64], "teacher": "none", "initial_weights": "random"}
    )
    spec = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "")
    return Objective(small_network(), config, spec=spec, teacher_channels=64), config


def state_file() -> Files:
    from train.training import EpochRecord, begin

    training = begin(*small_objective(), steps_per_epoch=2, run_id="a")
    for parameter in training.objective.parameters():
        parameter.grad = parameter.detach() * 0
    training.move()
    training.epoch, training.history = 1, [EpochRecord(1, 2.0, 2.0, 1.0, pictures_per_s=5.0, memory_gb=0.5)]
    return saved(lambda folder: training.save(folder / "state.pt"))


def read_state(folder: Path) -> object:
    from stlm_edge.network.weights import fingerprint
    from train.training import begin

    training = begin(*small_objective(), steps_per_epoch=2, run_id="a")
    training.restore(folder / "state.pt")
    return training.epoch, fingerprint(training.objective.state_dict())


GRID = "cpu/plate/seed-0"


def grid_files() -> Files:
    scores = {"image_auroc": 0.9, "image_ap": 0.8, "pixel_auroc": None, "images": 3.0}
    cell = {"preset": "cpu", "category": "plate", "seed": 0, "data": "data", "settings": {}}
    measured = {"overall": scores, "tlm_only": {"overall": scores}}
    return {f"{GRID}/grid.json": write(sealed(cell)), f"{GRID}/evaluation.json": write(sealed(measured))}


def report_grid(folder: Path) -> str:
    from train.paper.results import read_records, text

    return text(read_records(folder))


def feature_file() -> Files:
    import torch

    from train.teaching.feature_cache import FeatureCache

    features = (torch.arange(600.0).reshape(6, 10, 10), torch.ones(4, 5, 5))
    return saved(lambda folder: FeatureCache(folder, "t", limit_bytes=1 << 20).put("key", features))


def remembered(folder: Path) -> object:
    import torch

    from train.teaching.feature_cache import FeatureCache

    found = FeatureCache(folder, "t", limit_bytes=1 << 20).get("key", torch.device("cpu"))
    if found is None:
        raise StlmError("computed anew")
    return [feature.tolist() for feature in found]


# --- data


def visa_files() -> Files:
    from ..datasets.conftest import write_visa

    return saved(write_visa)


def dagm_files() -> Files:
    from ..datasets.conftest import write_dagm

    return saved(lambda folder: write_dagm(folder, "Class1", good=(20, 19), defective=(1, 1)))


def listed(folder: Path) -> object:
    from stlm_edge.datasets import categories, load_category

    found = [load_category(folder, name) for name in categories(folder)]
    return [
        (
            category.name,
            [(str(sample.path.relative_to(folder)), sample.label) for sample in (*category.train, *category.test)],
        )
        for category in found
    ]


def roi_file() -> Files:
    shapes = [
        {"label": "part", "shape_type": "polygon", "points": [[2, 2], [60, 5], [30, 55.5]]},
        {"label": "ignore", "shape_type": "rectangle", "points": [[10, 10], [20, 20]]},
    ]
    return {"r.json": write({"version": "5.4", "flags": {}, "shapes": shapes, "imageHeight": 64, "imageWidth": 80})}


def read_roi(folder: Path) -> object:
    from runtime.area import read_area

    area = read_area(roi=folder / "r.json", ignore=None)
    assert area is not None
    return area.size, hashlib.sha256(area.mask.tobytes()).hexdigest()


def mask_file(suffix: str) -> Files:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 12:30] = 255
    return saved(lambda folder: write_image(folder / f"m{suffix}", mask))


def read_mask_file(folder: Path) -> object:
    from stlm_edge.datasets import Sample, read_truth

    (path,) = folder.glob("m.*")
    mask = read_truth(Sample(folder / "0.png", "scratch", path), size=(40, 50))
    assert mask is not None
    assert mask.any()
    assert not mask.all()
    return hashlib.sha256(mask.tobytes()).hexdigest()


def archive(kind: str) -> Files:
    from ..test_archives import write_tar, write_zip

    content = {f"set/{index}.txt": bytes([65 + index]) * 700 for index in range(4)}
    if kind == "zip":
        return saved(lambda folder: write_zip(folder / "a", content))
    return saved(lambda folder: write_tar(folder / "a", content, kind))


def unpacked(folder: Path) -> object:
    from stlm_edge.archives import unpack

    with redirect_stderr(io.StringIO()):
        unpack([folder / "a"], folder / "target", find_content=lambda inner: inner)
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in (folder / "target").rglob("*") if path.is_file()
    }


# --- tables


def table_settings(folder: Path) -> Any:
    from runtime.batch.table import RunSettings

    return RunSettings("0" * 64, 0.5, "/pictures", None, None, "none")


def table_files() -> Files:
    from runtime.batch.table import PictureRow, ScoreTable

    def fill(folder: Path) -> None:
        with ScoreTable(folder, table_settings(folder), restart=False) as table:
            for index in range(20):
                table.add(PictureRow(f"a/{index}.png", 0.01 * index, 0.5, False, 0, "good", 0.1))

    return saved(fill)


def continued_table(folder: Path) -> object:
    from runtime.batch.table import ScoreTable

    with ScoreTable(folder, table_settings(folder), restart=False) as table:
        done = sorted(table.done)
    return done, (folder / "scores.csv").read_bytes()


def log_file() -> Files:
    lines = [
        {"time": "2026-01-01T00:00:00.000+00:00", "frame": index, "score": 0.1, "regions": []} for index in range(30)
    ]
    return {"e.jsonl": b"".join(write(line) + b"\n" for line in lines)}


def continued_log(folder: Path) -> object:
    from runtime.event import Event
    from runtime.sinks.events import EventLog
    from runtime.sinks.lines import Rotation

    before = (folder / "e.jsonl").read_bytes()
    with EventLog(folder / "e.jsonl", engine_sha256="0", rotation=Rotation()) as log:
        log.write_event(Event("start", "again", 0.0))
    content = (folder / "e.jsonl").read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert content.startswith(whole), "a whole line was lost"
    assert json.loads(content.splitlines()[-1])["text"] == "again"
    return len(whole)


# --- records of benchmarks


def record_files(benchmark: str) -> Files:
    from ..benchmarks.samples import write_record

    return saved(
        lambda folder: (write_record(folder, benchmark, name="a.json"), write_record(folder, benchmark, name="b.json"))
    )


def reported(folder: Path) -> str:
    from benchmarks.report import main

    commanded(main, str(folder / "a.json"), "--markdown", str(folder / "report.md"))
    return (folder / "report.md").read_text(encoding="utf-8")


def compared(folder: Path) -> str:
    from benchmarks.compare import main

    return commanded(main, str(folder / "b.json"), str(folder / "a.json"))


RECORDS = ("latency", "accuracy", "sizes", "peers", "demo", "gpu")

TARGETS: dict[str, Target] = {
    "sidecar-raw": Target(engine_files, "n.onnx.json", open_and_infer),
    "sidecar-resealed": Target(engine_files, "n.onnx.json", open_and_infer, alter=resealed),
    "engine": Target(engine_files, "n.onnx", open_and_infer, alter=of_bytes),
    "engine-rehashed": Target(engine_files, "n.onnx", open_and_infer, alter=of_bytes, finish=rehash_engine),
    "engine-rehashed, OpenVINO": Target(
        engine_files,
        "n.onnx",
        functools.partial(open_and_infer, backend="openvino"),
        alter=of_bytes,
        finish=rehash_engine,
    ),
    "graph": Target(graph_files, "n.onnx", read_graph_file, alter=of_bytes),
    "kernels": Target(kernel_files, "x.plan.kernels.json", report_plan),
    "kernels-resealed": Target(kernel_files, "x.plan.kernels.json", report_plan, alter=resealed),
    "checkpoint": Target(checkpoint_files, "m.safetensors", read_checkpoint, alter=of_bytes),
    "checkpoint-header": Target(checkpoint_files, "m.safetensors", read_checkpoint, alter=header_altered),
    "preset": Target(preset_file, "p.yaml", read_preset, alter=of_bytes),
    "run.json": Target(run_files, "run.json", read_run),
    "config.yaml": Target(run_files, "config.yaml", read_run, alter=of_bytes),
    "state.pt": Target(state_file, "state.pt", read_state, alter=of_bytes),
    "grid.json": Target(grid_files, f"{GRID}/grid.json", report_grid),
    "evaluation.json": Target(grid_files, f"{GRID}/evaluation.json", report_grid),
    "grid.json-resealed": Target(grid_files, f"{GRID}/grid.json", report_grid, alter=resealed),
    "evaluation.json-resealed": Target(grid_files, f"{GRID}/evaluation.json", report_grid, alter=resealed),
    "features": Target(feature_file, "t/key.features", remembered, alter=of_bytes),
    "visa": Target(visa_files, "split_csv/1cls.csv", listed, alter=of_bytes),
    "dagm": Target(dagm_files, "Class1/Train/Label/Labels.txt", listed, alter=of_bytes, is_mended=True),
    **{
        f"mask{suffix}": Target(functools.partial(mask_file, suffix), f"m{suffix}", read_mask_file, alter=of_bytes)
        for suffix in (".png", ".tif", ".bmp", ".jpg")
    },
    "roi": Target(roi_file, "r.json", read_roi),
    "tar": Target(functools.partial(archive, "w"), "a", unpacked, alter=of_bytes),
    "tar.gz": Target(functools.partial(archive, "w:gz"), "a", unpacked, alter=of_bytes),
    "tar.xz": Target(functools.partial(archive, "w:xz"), "a", unpacked, alter=of_bytes),
    "zip": Target(functools.partial(archive, "zip"), "a", unpacked, alter=of_bytes),
    "scores.csv": Target(table_files, "scores.csv", continued_table, alter=of_bytes),
    "batch run.json": Target(table_files, "run.json", continued_table),
    "events.jsonl": Target(log_file, "e.jsonl", continued_log, alter=of_bytes, is_mended=True),
    **{f"report {name}": Target(functools.partial(record_files, name), "a.json", reported) for name in RECORDS},
    "compare": Target(functools.partial(record_files, "latency"), "a.json", compared),
}
