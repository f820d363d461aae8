from __future__ import annotations

import json

import pytest

from benchmarks.demo import main
from benchmarks.record import read
from runtime.inspection import VERDICT_STAGES
from runtime.summary import RunSummary, Truth
from runtime.timing import Percentiles
from stlm_edge.sidecar import EngineRecord, Sidecar

from ..runtime.conftest import SPEC


@pytest.fixture
def folder(tmp_path):
    def write(image_auroc: float, *, false_alarms=2):
        scores = {"image_auroc": image_auroc, "pixel_auroc": 0.9, "aupro": 0.8, "pixel_ap": 0.7}
        evaluation = {"overall": scores, "kinds": {"chip": scores}, "threshold": 0.25}
        truth = Truth(defects_found=7, defects_missed=1, false_alarms=false_alarms, good_passed=30)
        latency = {
            stage: Percentiles(p50_ms=index + 0.5, p95_ms=index + 0.75, p99_ms=20.0, max_ms=30.0)
            for index, stage in enumerate(VERDICT_STAGES)
        }
        summary = RunSummary(
            frames=40,
            anomalies=9,
            alarms=9,
            parts=1,
            faults={},
            events={},
            dropped=0,
            skipped=0,
            reconnects=0,
            output_drops={},
            output_failures={},
            duration_s=1.0,
            frames_per_second=40.0,
            latency=latency,
            truth=truth,
        )
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
        (tmp_path / "summary.json").write_text(summary.to_json())
        record = EngineRecord(product="openvino", version="1", device="cpu", precision="bf16", engine_sha256="0" * 64)
        Sidecar(spec=SPEC, engine=record).write(tmp_path / "plate.xml")
        (tmp_path / "plate.xml").touch()
        return tmp_path

    return write


def test_table_has_what_the_run_amounted_to(folder, capsys):
    assert main([str(folder(0.97))]) == 0
    out = capsys.readouterr().out
    for words in (
        "97.0",
        "At the threshold 0.2500: 2 false alarms on 32 good frames",
        "the network, in bf16, takes 4.50 ms (p50) and 4.75 ms (p95) a frame",
        "7.5 ms (p50), 7.8 ms (p95)",
        "evaluation.png",
        "inspection.mp4",
    ):
        assert words in out
    assert "Not as good" not in out


def test_one_false_alarm_is_one(folder, capsys):
    assert main([str(folder(0.97, false_alarms=1))]) == 0
    out = capsys.readouterr().out
    assert "raises 1 false alarm; the network" in out
    assert ": 1 false alarm on 31 good frames" in out


def test_record_has_evaluation_and_inspection(folder, tmp_path):
    assert main([str(folder(0.97)), "--json", str(tmp_path / "demo.json")]) == 0
    record = read(tmp_path / "demo.json")
    assert record.measures["all image_auroc"].values == (97,)
    assert record.details["evaluation"]["kinds"]["chip"]["aupro"] == 0.8
    assert record.details["inspection"]["truth"]["defects_found"] == 7
    assert record.details["precision"] == "bf16"


def test_demo_of_before_was_inspected_by_its_graph(folder, capsys):
    made = folder(0.97)
    (made / "plate.xml").unlink()
    Sidecar.path_for(made / "plate.xml").rename(Sidecar.path_for(made / "plate.onnx"))
    assert main([str(made)]) == 0
    assert "in bf16, takes" in capsys.readouterr().out


def test_model_below_what_is_wanted_is_called_so(folder, capsys):
    assert main([str(folder(0.9))]) == 0
    assert "Not as good as it should be: image AUROC 0.900, wanted 0.95" in capsys.readouterr().out


def test_demo_that_was_not_run_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err
