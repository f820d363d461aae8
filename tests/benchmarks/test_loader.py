from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.authors_loader import _noise
from benchmarks.loader import main
from benchmarks.record import read
from stlm_edge.plate.part import write_dataset
from train.pseudo_anomalies.perlin import perlin_gradients, perlin_noise


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=5, test_good=0, test_defective_per_kind=0, size=(64, 64), seed=0, category="plate")
    return root


def test_every_loader_has_its_turns_and_the_record_names_the_machine(data, tmp_path, capsys):
    arguments = ["--data", str(data), "--category", "plate", "--size", "64", "--turns", "2", "--turn", "3"]
    textures = ["--textures", str(data / "plate" / "train")]
    record = tmp_path / "loader.json"
    assert main([*arguments, *textures, "--workers", "0", "--workers", "1", "--json", str(record)]) == 0
    assert "straightforward" in capsys.readouterr().out
    written = read(record)
    assert (
        set(written.measures) == set(written.details["pictures_per_s"]) == {"straightforward", "0 workers", "1 worker"}
    )
    for name, measure in written.measures.items():
        assert len(measure.values) == 2
        assert min(measure.values) <= written.details["pictures_per_s"][name] <= max(measure.values)
    assert written.command.startswith("python -m benchmarks.loader --data ")

    assert main([*arguments, "--workers", "0", "--pseudo-anomalies", "nsa+cutpaste-union"]) == 0
    assert "straightforward" not in capsys.readouterr().out


def test_noise_of_the_obvious_way_is_the_same_noise():
    expected = perlin_noise(perlin_gradients(np.random.default_rng(0), (4, 8)), (64, 96))
    assert np.abs(_noise(np.random.default_rng(0), (64, 96), (4, 8)) - expected).max() < 2e-6


def test_bad_input_is_one_line(data, tmp_path, capsys):
    for arguments in (["--data", str(tmp_path / "none")], ["--data", str(data), "--pseudo-anomalies", "dust"]):
        assert main(arguments) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom benchmarks.loader import main\nassert main(['--help']) == 0\n"
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
