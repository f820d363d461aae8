"""What every program takes and how it ends: `--version`, the log for people and for machines, errors in one line."""

from __future__ import annotations

import atexit
import json
import logging
import re
import signal
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path

import click
import pytest

from stlm_edge import __version__, cli
from stlm_edge.cli import Number, run
from stlm_edge.errors import DataError
from stlm_edge.extras import REMEDIES
from stlm_edge.revision import version

logger = logging.getLogger("runtime.line")
library = logging.getLogger("a_library")


@click.group()
def program() -> None:
    """A program with a command."""


@program.command()
@click.argument("how", default="well")
def work(how: str) -> int:
    click.echo("a result")
    logger.info("a camera is open")
    library.info("chatter")
    library.warning("a warning of a library")
    if how == "warned":
        warnings.warn("a warning of Python's", RuntimeWarning, stacklevel=1)
    if how == "data":
        raise DataError("found no picture,\nexpected some; add them")
    if how == "usage":
        raise click.UsageError("one of the two options")
    if how == "stopped":
        raise KeyboardInterrupt
    if how == "long":
        raise DataError(f"{'x' * 5000}/picture.png cannot be read; check the path")
    if how == "path":
        Path("y" * 5000).stat()
    if how == "here":
        Path("events.jsonl").absolute()
    if how == "system":
        raise OSError("something that no path explains")
    if how == "missing":
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
    if how == "mistaken":
        raise ModuleNotFoundError("No module named 'stlm_edge.nonsense'", name="stlm_edge.nonsense")
    return 3


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, stdout and the lines of stderr."""
    code = run(program, arguments)
    said = capsys.readouterr()
    return code, said.out, said.err.splitlines()


def entries(lines: list[str]) -> list[dict[str, str]]:
    """The objects in the log; click itself ends the line of a Ctrl-C, which leaves an empty one."""
    return [json.loads(line) for line in lines if line]


def test_log_is_plain_and_leaves_out_what_libraries_chatter(capsys):
    assert ran(capsys, "work") == (3, "a result\n", ["a camera is open", "a warning of a library"])


@pytest.mark.parametrize("arguments", [("-v", "work"), ("work", "-v"), ("work", "--verbose")])
def test_verbose_log_has_time_level_and_logger_and_libraries_too(capsys, arguments):
    _, out, lines = ran(capsys, *arguments)
    assert out == "a result\n"
    own = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} INFO    runtime.line: a camera is open", lines[0])
    assert own is not None
    assert abs(datetime.now() - datetime.fromisoformat(own[1])).total_seconds() < 60
    assert lines[1].endswith("INFO    a_library: chatter")
    assert lines[2].endswith("WARNING a_library: a warning of a library")


@pytest.mark.parametrize(
    "arguments", [("--log-format", "json", "work"), ("work", "--log-format=json"), ("-v", "work", "--log-format=json")]
)
def test_log_for_machines_is_one_object_a_line(capsys, arguments):
    code, out, lines = ran(capsys, *arguments)
    assert (code, out) == (3, "a result\n")
    first, *others = [entry for entry in entries(lines) if entry["message"] != "chatter"]
    assert set(first) == {"time", "level", "logger", "message"}
    assert (first["level"], first["logger"], first["message"]) == ("info", "runtime.line", "a camera is open")
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert [entry["logger"] for entry in others] == ["a_library"]
    assert ("chatter" in str(lines)) == ("-v" in arguments)


def test_line_that_is_not_up_yet_is_not_ended_by_the_signal_for_its_recipe(monkeypatch):
    heard = []
    monkeypatch.setattr(cli, "_run", lambda *_: heard.append(signal.getsignal(signal.SIGUSR1)) or 0)
    monkeypatch.setattr(atexit, "register", lambda _: None)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        assert cli.run(work) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIG_IGN]


@pytest.mark.parametrize(
    ("arguments", "of"),
    [
        (("--output", ""), " as the value of --output"),
        (("--output=",), " as the value of --output"),
        (("data", ""), ""),
    ],
)
def test_variable_that_is_not_set_is_not_the_current_folder(capsys, arguments, of):
    code, _, lines = ran(capsys, "work", *arguments)
    assert (code, lines[-1]) == (2, f"Error: found nothing{of}, expected something; see whether a variable is set")


@pytest.mark.parametrize(
    ("how", "code", "plain"),
    [
        ("data", 1, "error: found no picture, expected some; add them"),
        ("missing", 1, f"error: found no yaml, expected it for this command; {REMEDIES['yaml']}"),
        ("usage", 2, "Error: one of the two options"),
        ("stopped", 130, "interrupted"),
    ],
)
def test_errors_are_one_line_for_people_and_one_object_for_machines(capsys, how, code, plain):
    got, _, lines = ran(capsys, "work", how)
    assert (got, lines[-1]) == (code, plain)
    got, _, lines = ran(capsys, "work", how, "--log-format", "json")
    last = entries(lines)[-1]
    assert (got, last["message"]) == (code, re.sub(r"^\w+: ", "", plain))
    assert last["level"] == ("warning" if how == "stopped" else "error")


def test_exception_in_the_log_is_part_of_its_object(capsys):
    @click.command()
    def failing() -> None:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logger.exception("gone astray")

    run(failing, ["--log-format", "json"])
    (entry,) = entries(capsys.readouterr().err.splitlines())
    assert entry["exception"].splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_module_that_no_extra_brings_is_a_mistake_of_ours():
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        run(program, ["work", "mistaken"])


def test_warnings_of_python_are_objects_too_and_no_longer_than_the_program(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = warnings.showwarning
        _, _, lines = ran(capsys, "work", "warned", "--log-format", "json")
        assert warnings.showwarning is shown
    last = entries(lines)[-1]
    assert (last["level"], last["logger"]) == ("warning", "py.warnings")
    assert "RuntimeWarning: a warning of Python's" in last["message"]
    assert ran(capsys, "work")[2][0] == "a camera is open"


@pytest.mark.heavy
@pytest.mark.parametrize("arguments", [["--version"], ["work", "--version"]])
def test_version_names_the_commit(capsys, arguments):
    assert run(program, arguments) == 0
    said = capsys.readouterr().out
    assert said == f"stlm-edge {version()}\n"
    root = Path(__file__).parents[1]
    if (root / ".git").exists():
        head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert said.startswith(f"stlm-edge {__version__} (commit {head.stdout[:10]}")


@pytest.mark.parametrize("origin", ["vcs", "archive", None])
def test_installed_package_names_the_commit_that_pip_took(monkeypatch, tmp_path, origin):
    monkeypatch.setattr("stlm_edge.revision._ROOT", tmp_path)
    info = tmp_path / f"stlm_edge-{__version__}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stlm-edge\nVersion: {__version__}\n")
    if origin is not None:
        taken = {"vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}} if origin == "vcs" else {}
        (info / "direct_url.json").write_text(json.dumps({"url": "https://host/stlm-edge", **taken}))
    assert version() == (f"{__version__} (commit 0123456789)" if origin == "vcs" else __version__)


@pytest.mark.heavy
@pytest.mark.parametrize("program", ["train", "export", "runtime.camera", "runtime.inspect", "stlm_edge.plate"])
def test_every_program_takes_them(program):
    done = subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, text=True, check=True)
    for option in ("-v, --verbose", "--log-format [text|json]", "--version"):
        assert option in done.stdout


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_number_that_is_not_finite_is_wrong_usage(text):
    number = Number(min=0)
    with pytest.raises(click.BadParameter):
        number.convert(text, None, None)
    assert number.convert("0.5", None, None) == 0.5


@pytest.mark.parametrize(
    ("how", "said"), [("long", "picture.png cannot be read; check the path"), ("path", "too long")]
)
def test_long_path_is_cut_in_the_one_line(capsys: pytest.CaptureFixture[str], how: str, said: str) -> None:
    code, _, (*_, line) = ran(capsys, "work", how)
    assert code == 1
    assert line.startswith("error: ") and said in line and len(line) < 500


@pytest.mark.parametrize("arguments", [["work", "well", f"--{'z' * 5000}"], ["z" * 5000], ["work", "well", "z" * 5000]])
def test_long_argument_is_cut_in_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, lines = ran(capsys, *arguments)
    assert code == 2
    assert max(map(len, lines)) < 500


@pytest.mark.heavy
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_nothing_is_written_into_a_file_that_got_the_number_of_a_closed_stream(tmp_path: Path, closed: str) -> None:
    """As where a program is started with `2>&-`: what libraries print would stand among the verdicts."""
    lines = (
        "import os, sys, click; from stlm_edge.cli import run",
        "def work(): file = open(sys.argv[1], 'w'); [os.write(number, b'chatter') for number in (1, 2)]",
        "run(click.command()(work), [])",
    )
    verdicts = tmp_path / "events.jsonl"
    shell = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", "\n".join(lines), str(verdicts)]
    assert subprocess.run(shell, check=False, capture_output=True).returncode == 0
    assert verdicts.read_text() == ""


def test_folder_that_was_deleted_under_the_program_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert ran(capsys, "work", "here")[::2] == (
        1,
        [
            "a camera is open",
            "a warning of a library",
            "error: found that the current folder was deleted; change to another one",
        ],
    )


def test_failure_that_no_path_explains_is_not_hidden() -> None:
    with pytest.raises(OSError, match="no path explains"):
        run(program, ["work", "system"])


_ENDS_WITH_THREADS_IN_OPENCV = """
import sys, threading, click, cv2, numpy
from stlm_edge.cli import run

picture, started = numpy.zeros((300, 300, 3), numpy.uint8), threading.Semaphore(0)

def work():
    while True:
        cv2.GaussianBlur(picture, (31, 31), 0)
        started.release()

@click.command()
@click.pass_context
def command(context):
    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
        started.acquire()
    print("done")
    context.exit(3)

sys.exit(run(command))
"""


@pytest.mark.heavy
def test_program_ends_with_its_exit_code_while_threads_are_in_a_library() -> None:
    program = [sys.executable, "-c", _ENDS_WITH_THREADS_IN_OPENCV]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")
