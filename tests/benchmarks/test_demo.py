from __future__ import annotations

import json

import pytest

from benchmarks.demo import main


@pytest.fixture
def folder(tmp_path):
    def write(image_auroc: float):
        scores = {"image_auroc": image_auroc, "pixel_auroc": 0.9, "aupro": 0.8}
        evaluation = {"overall": scores, "kinds": {"chip": scores}, "threshold": 0.25}
        truth = {"defects_found": 7, "defects_missed": 1, "false_alarms": 2, "good_passed": 30}
        summary = {"frames": 40, "truth": truth, "latency": {"inspect": {"p50_ms": 8.0, "p95_ms": 12.0}}}
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        return tmp_path

    return write


def test_table_has_what_the_run_amounted_to(folder, capsys):
    assert main([str(folder(0.97))]) == 0
    out = capsys.readouterr().out
    for words in ("97.0 %", "0.2500", "2 on 32 good frames", "8.0 / 12.0 ms", "evaluation.png", "inspection.mp4"):
        assert words in out
    assert "Not as good" not in out


def test_model_below_what_is_wanted_is_called_so(folder, capsys):
    assert main([str(folder(0.9))]) == 0
    assert "Not as good as it should be: image AUROC 0.900, wanted 0.95" in capsys.readouterr().out


def test_demo_that_was_not_run_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err
