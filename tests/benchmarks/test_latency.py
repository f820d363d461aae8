from __future__ import annotations

import json

from benchmarks.latency import main

from ..runtime.conftest import write_engine


def test_every_backend_gets_its_frames_and_the_record_names_the_machine(tmp_path, capsys):
    engine = write_engine(tmp_path / "brightness.onnx")
    record = tmp_path / "latency.json"
    arguments = ["--engine", str(engine), "--frames", "23", "--frame-size", "96", "128", "--json", str(record)]
    assert main([*arguments, "--backend", "openvino", "--backend", "onnxruntime"]) == 0
    assert "taking turns" in capsys.readouterr().out
    written = json.loads(record.read_text())
    assert written["frames"] == 23
    assert "cores" in written["machine"]
    assert set(written["backends"]) == {"openvino", "onnxruntime"}
    for values in written["backends"].values():
        assert 0 < values["infer_p50_ms"] <= values["infer_p95_ms"]
        assert values["infer_p50_ms"] <= values["total_p50_ms"]


def test_missing_engine_is_one_line(tmp_path, capsys):
    assert main(["--engine", str(tmp_path / "none.onnx")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
