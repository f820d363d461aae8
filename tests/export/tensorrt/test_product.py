"""Which TensorRT is found, and what is asked of it; the full TensorRT is a fake, since it needs a GPU."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from export.tensorrt.memory import IF_KILLED, MemoryLimits
from export.tensorrt.product import BuildProgress, Product, find_product
from stlm_edge.errors import EngineError
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import Gpu

from ...fake_tensorrt import CACHE, fake_tensorrt

SPEC = ModelSpec(
    category="plate", architecture="stlm-tiny", input_size=(64, 96), map_size=(4, 6), weights_sha256="0" * 64
)
BATCHED = ModelSpec(
    category="plate",
    architecture="stlm-tiny",
    input_size=(64, 96),
    map_size=(4, 6),
    weights_sha256="0" * 64,
    frame_size=(480, 640),
    max_batch=4,
)
ORIN = Gpu("Orin", "sm87")


@pytest.fixture(params=["10.3.0", "11.4.0"])
def product(request) -> Product:
    return Product("tensorrt", fake_tensorrt(request.param))


def test_tensorrt_comes_before_tensorrt_rtx_and_is_named(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.3.0"))
    with caplog.at_level(logging.INFO):
        assert str(find_product("auto")) == "TensorRT 10.3.0"
    assert "found TensorRT 10.3.0" in caplog.text
    assert find_product("tensorrt-rtx").name == "tensorrt-rtx"


def test_tensorrt_rtx_serves_where_there_is_no_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert find_product("auto").name == "tensorrt-rtx"


def test_product_asked_for_is_not_replaced_by_the_other(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"found no TensorRT, expected one.*--system-site-packages"):
        find_product("tensorrt")


@pytest.mark.heavy
def test_none_installed_says_how_to_get_each():
    code = (
        "import sys\n"
        "sys.modules['tensorrt'] = sys.modules['tensorrt_rtx'] = None\n"
        "from export.tensorrt.product import find_product\n"
        "find_product('auto')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    for words in (
        "neither TensorRT nor TensorRT-RTX",
        "JetPack",
        "pip install tensorrt-cu13,",
        "tensorrt-cu12",
        "tensorrt-rtx-cu13",
    ):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise OSError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10"),
        ("import no_such_bindings", "no_such_bindings"),
        ("", "has no Builder"),
    ],
)
def test_broken_installation_is_an_error_and_no_reason_for_the_other_product(tmp_path, monkeypatch, content, words):
    (tmp_path / "tensorrt.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=f"tensorrt is there but does not work.*{words}"):
        find_product("auto")
    sys.modules.pop("tensorrt", None)


def test_tensorrt_builds_for_the_gpu_it_is_on(product):
    assert product.known_targets == ()
    assert product.device((), gpu=ORIN) == "sm87"
    with pytest.raises(EngineError, match="builds for the GPU that it runs on and found none"):
        product.device((), gpu=None)
    with pytest.raises(EngineError, match=r"--target sm86; leave it out.*--product tensorrt-rtx"):
        product.device(("sm86",), gpu=ORIN)


def test_tensorrt_rtx_builds_for_what_it_is_told():
    product = find_product("tensorrt-rtx")
    assert product.device(("sm86", "sm89"), gpu=None) == "sm86,sm89"
    assert product.device((), gpu=ORIN) == "sm80+"
    with pytest.raises(
        EngineError, match=r"found --target sm86,sm87, .* builds for sm75, sm80, sm86, sm89, sm120, sm121"
    ):
        product.device(("sm86", "sm87"), gpu=None)


def test_plan_is_built_as_the_report_and_the_precision_need_it(product):
    built = json.loads(bytes(product.compile(b"graph", spec=SPEC).plan))
    assert built == {
        "version": product.version,
        "verbosity": "DETAILED",
        "cleared": ["TF32"],
        "limits": {},
        "profiles": [],
        "compatibility": "NONE",
    }


def test_workspace_and_dynamic_batch_reach_the_configuration(product):
    built = json.loads(bytes(product.compile(b"graph", spec=BATCHED, limits=MemoryLimits(64)).plan))
    assert built["limits"] == {"WORKSPACE": 64 << 20}
    assert built["profiles"] == [{"image": [[1, 480, 640, 3], [4, 480, 640, 3], [4, 480, 640, 3]]}]


def test_timing_cache_is_made_kept_and_given_again(product):
    assert product.compile(b"graph", spec=SPEC).timing_cache is None
    first = product.compile(b"graph", spec=SPEC, timing_cache=b"").timing_cache
    assert first == CACHE + product.version.encode()
    kept = first + b" and more"
    assert product.compile(b"graph", spec=SPEC, timing_cache=kept).timing_cache == kept


def test_timing_cache_of_another_version_is_refused(product):
    with pytest.raises(EngineError, match=r"cannot use the timing cache.*another GPU or version; delete it"):
        product.compile(b"graph", spec=SPEC, timing_cache=CACHE + b"9.0")


def test_messages_go_to_the_callback_and_warnings_to_the_log(product, caplog):
    messages = []
    product.compile(b"graph", spec=SPEC, on_log=lambda severity, text: messages.append((severity, text)))
    assert messages == [("VERBOSE", "Name: kernel"), ("WARNING", "half of it\nis slow")]
    assert [record.getMessage() for record in caplog.records] == ["tensorrt: half of it is slow"]


def test_graph_that_cannot_be_read_is_one_line(product):
    with pytest.raises(EngineError, match="cannot read the graph") as caught:
        product.compile(b"garbage", spec=SPEC)
    assert "Assertion failed: this is no graph at node head|conv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_graph_that_cannot_be_built_says_why_and_what_to_try(product):
    with pytest.raises(EngineError, match="cannot build the graph") as caught:
        product.compile(b"graph, impossible", spec=SPEC, limits=MemoryLimits(8))
    assert "(no implementation for head|conv); give more than --workspace 8" in str(caught.value)


def test_graph_that_does_not_fit_into_memory_is_not_given_more_workspace(product):
    with pytest.raises(EngineError, match=r"cannot build the graph \(.*out of memory.*\); free GPU memory") as caught:
        product.compile(b"graph, enormous", spec=SPEC, limits=MemoryLimits(8, None))
    assert "--workspace" not in str(caught.value)


def test_build_that_fails_where_memory_is_shared_says_what_frees_some(product):
    with pytest.raises(EngineError, match="sudo init 3") as caught:
        product.compile(b"graph, impossible", spec=SPEC, limits=MemoryLimits(8, 16))
    assert str(caught.value).endswith(IF_KILLED)


@pytest.mark.parametrize(
    ("told", "remedy"),
    [
        ("CUDA initialization failure with error: 35", "pip install tensorrt-cu12"),
        ("Unable to load library: libnvinfer_builder_resource.so.10.7.0", "install it again"),
        ("nobody knows", "check the driver with nvidia-smi"),
    ],
)
def test_builder_that_does_not_start_says_why_and_what_to_do(product, monkeypatch, told, remedy):
    def fail(logger):
        logger.log(logger.Severity.ERROR, told)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(product.module, "Builder", fail)
    with pytest.raises(EngineError, match=rf"cannot start \({told}; pybind11.*\); .*{remedy}"):
        product.compile(b"graph", spec=SPEC)


def test_cancelled_build_gives_no_plan(product):
    progress = BuildProgress()
    progress.cancel()
    with pytest.raises(EngineError, match="cancelled"):
        product.compile(b"graph", spec=SPEC, progress=progress)


def test_phases_within_phases_are_parts_of_the_outer_ones_step():
    progress = BuildProgress()
    progress.start("whole", 4)
    assert progress.step("whole", 0)
    assert progress.fraction == 0.25
    progress.start("timing", 2)
    progress.step("timing", 0)
    assert (progress.fraction, progress.phase) == (0.375, "timing")
    progress.start("kernels", 5)
    progress.step("kernels", 4)
    assert progress.fraction == 0.5
    progress.finish("kernels")
    progress.finish("timing")
    assert progress.fraction == 0.5, "a finished phase takes nothing back"
    progress.step("whole", 1)
    progress.start("nothing to do", 0)
    assert not progress.cancelled
    progress.cancel()
    assert not progress.step("nothing to do", 0)
    progress.finish("nothing to do")
    progress.finish("whole")
    assert progress.fraction == 1.0
