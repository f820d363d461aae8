"""What the command lines of all programs share: exit codes, `--version`, logging, and one line for each error."""

from __future__ import annotations

import atexit
import errno
import io
import json
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from traceback import format_exception
from types import TracebackType
from typing import Any, NoReturn

import click

from stlm_edge import memory
from stlm_edge.credentials import safe_name, without_logins
from stlm_edge.errors import OutputError, StlmError, cut, one_line
from stlm_edge.extras import explained
from stlm_edge.files import home
from stlm_edge.names import printable

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

HELP: tuple[type[Exception], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))
"""What a group without a command raises, the whole help as its message; click prints that itself before 8.2."""

OUR_LOGGERS = ("__main__", "stlm_edge", "train", "export", "runtime", "benchmarks")

logger = logging.getLogger(__name__)


class Choice(click.Choice[str]):
    """One of several words; those in `old` are taken too, for scripts that still say them, and mean those of today."""

    def __init__(self, choices: Sequence[str], *, old: Mapping[str, str]) -> None:
        super().__init__(choices)
        self._old = old

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(self._old.get(value, value), param, ctx)


class Number(click.FloatRange):
    """A finite number, within bounds where there are some; a range of click's lets NaN through."""

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


OLD_OPTIONS = {
    "--exposure-jitter": "--brightness",
    "--allow-unblessed": "--allow-unverified",
    "--flavour": "--product",
}
"""Options that scripts may still call otherwise; taken and not shown."""


METHOD = Choice(["quantile", "f1"], old={"good": "quantile", "good-quantile": "quantile", "f1-optimal": "f1"})
"""How a threshold is chosen: from good pictures alone, or F1-optimal on labelled ones."""


def run(command: click.Command, argv: Sequence[str] | None = None) -> int:
    """Run a click command as a program and return its exit code; the context's object is the arguments as given.

    The command, and each below it, is given `--version`, `--verbose` and `--log-format`.

    No secret of an address among the arguments is shown in the log, in an error or in a traceback.

    0 done, 1 a `StlmError`, a library that is not installed or a machine that has no memory or threads left, printed as
    one line, 2 wrong usage, 130 interrupted. Without `argv` it is the program that ends with that, whatever threads
    still run.
    """
    if argv is not None:
        return _run(command, argv)
    # It has a line read its recipe again. One that is not up yet reads it in any case, and must not be ended by it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    code = 1
    atexit.register(lambda: _leave_threads(code))
    code = _run(command, sys.argv[1:])
    return code


def _run(command: click.Command, argv: Sequence[str]) -> int:
    _open_standard_streams()
    set_up_logging()
    # Libraries ask for a home while they are imported, and OpenVINO and NNCF end with a traceback where there is none.
    os.environ.setdefault("HOME", str(home()))
    add_shared_options(command)
    sys.excepthook = say_what_is_missing
    arguments = list(argv)
    for argument in arguments:
        safe_name(re.sub(r"^--[\w-]+=", "", argument))  # from here on its secrets are hidden in all that is said
    try:
        _require_something(arguments)
        arguments = in_new_words(arguments)
        result = command.main(args=arguments, standalone_mode=False, obj=tuple(arguments))
    except click.ClickException as error:
        if not isinstance(error, HELP):
            error.message = one_line(error.message)  # type: ignore[misc]  # an option's value may be as long as a file
        if _logs_json():
            logger.error(error.format_message())
        else:
            shown = io.StringIO()
            error.show(shown)
            click.echo(without_logins(shown.getvalue()), nl=False, err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        logger.warning("interrupted")
        return INTERRUPTED
    except Exception as error:
        line = _told(error)
        if line is None:
            raise
        logger.debug("", exc_info=not isinstance(error, StlmError))
        return _failed(line)
    finally:
        logging.captureWarnings(False)
    return result if isinstance(result, int) else 0


def _open_standard_streams() -> None:
    """Where one of them was closed, as by `2>&-`, the next file that is opened would get its number, and what a library
    prints would stand among the verdicts."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free


def _require_something(arguments: Sequence[str]) -> None:
    """Raises `click.UsageError` on an empty argument: as a path it would be the current folder, written to or inspected
    because a variable of the shell was not set."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option = before if not argument else argument[:-1] if re.fullmatch(r"--[\w-]+=", argument) else None
        if option is not None:
            of = f" as the value of {option}" if option.startswith("-") else ""
            raise click.UsageError(f"found nothing{of}, expected something; see whether a variable is set")


def in_new_words(arguments: Sequence[str]) -> list[str]:
    """The arguments with options by their names of today. Raises `click.UsageError` if one has both its names."""
    names = [argument.partition("=")[0] for argument in arguments]
    renamed = list(arguments)
    for place, name in enumerate(names):
        if name == "--":
            break
        new = OLD_OPTIONS.get(name)
        if new is None:
            continue
        if new in names:
            raise click.UsageError(f"found both {name} and {new}, which are one option; keep {new}")
        renamed[place] = new + arguments[place].removeprefix(name)
    return renamed


def _unusable(error: OSError) -> str | None:
    """One line on a path that nothing can be made of, such as one of thousands of characters; None if it is no path."""
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of a path that begins where we are
        return "found that the current folder was deleted; change to another one"
    if error.filename is not None and error.strerror is not None:
        return f"found the path {error.filename!s}, which cannot be used ({error.strerror}); give another one"
    if "No usable temporary directory" in str(error):
        return f"found no folder for temporary files ({error.strerror}); set TMPDIR to one that can be written to"
    return None


def _failed(message: str) -> int:
    logger.error("%s", one_line(message), extra={"prefix": "error: "})
    return 1


def _told(error: Exception) -> str | None:
    """One line for an error that has a remedy; None for a mistake of ours."""
    if isinstance(error, StlmError):
        return str(error)
    if isinstance(error, ImportError) and (line := explained(error)) is not None:
        return line
    if isinstance(error, OSError) and (line := _unusable(error)) is not None:
        return line
    return memory.explained(error)


def give_up(message: str, *, last: Callable[[], object] = lambda: None) -> NoReturn:
    """End the program with one line and exit code 1, from any thread, and wait for no other one.

    Args:
        last: is done before.
    """
    try:
        last()
    except StlmError as error:
        logger.error("%s", error)
    finally:
        _failed(message)
        _exit_at_once(1)


def _leave_threads(code: int) -> None:
    """End the program if daemon threads still run, as one that waits for a driver does: when Python takes itself apart,
    it unwinds them, and those within a library in C++, such as OpenCV, then end the program with `terminate` (134)."""
    if any(thread.daemon and thread is not threading.current_thread() for thread in threading.enumerate()):
        _exit_at_once(code)


def _exit_at_once(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError, ValueError):  # nobody reads it, or it was closed
            stream.flush()
    os._exit(code)


def print_lines(lines: Iterable[str]) -> None:
    """Print results, unless the terminal is gone, as after SIGHUP.

    Raises `OutputError` where nobody reads them, the disk that they go to is full, and the like.
    """
    try:
        for line in lines:
            click.echo(printable(line))
    except OSError as error:
        # Python would try to print the rest at its end, and complain again.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EIO:
            logger.warning("the results are not printed, the terminal is gone")
            return
        raise OutputError(
            f"cannot print the results ({error.strerror or error}); send standard output elsewhere, or to a file"
        ) from error


def _logs_json() -> bool:
    return any(isinstance(handler.formatter, JsonLine) for handler in logging.getLogger().handlers)


def say_what_is_missing(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """For `sys.excepthook`: one line for a library that is not installed, where a program's imports stand on top; for
    all else the traceback, without secrets."""
    line = explained(error) if isinstance(error, ImportError) else None
    if line is None:
        click.echo(without_logins("".join(format_exception(kind, error, traceback))), nl=False, err=True)
    else:
        click.echo(f"error: {line}", err=True)


def set_up_logging(*, verbose: bool = False, as_json: bool = False) -> None:
    """Send the log to stderr.

    Args:
        verbose: each line has time, level and logger, and what libraries say is told as well.
        as_json: each line is a JSON object; Python's warnings are too.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names that are no UTF-8, as standard error has it
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(JsonLine())
    elif verbose:
        handler.setFormatter(TextLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    else:
        handler.setFormatter(TextLine("%(prefix)s%(message)s", defaults={"prefix": ""}))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING, force=True)
    logging.captureWarnings(as_json)
    for name in OUR_LOGGERS:  # libraries tell a user of these programs nothing below a warning
        logging.getLogger(name).setLevel(logging.INFO)
    # torch's exporter: its optimiser warns of each layer that it leaves alone, and nobody can do anything about it.
    logging.getLogger("onnxscript").setLevel(logging.NOTSET if verbose else logging.ERROR)


class TextLine(logging.Formatter):
    """A record of the log for people, without secrets.

    Names of files in it cannot command the terminal or begin lines of their own.
    """

    def format(self, record: logging.LogRecord) -> str:
        return without_logins(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the standard library
        is_ours = record.name.partition(".")[0] in OUR_LOGGERS
        lines = [cut(record.message)] if is_ours else record.message.split("\n")
        record.message = "\n".join(map(printable, lines))
        return super().formatMessage(record)


class JsonLine(logging.Formatter):
    """A record of the log as one JSON object, without secrets: time (ISO 8601, UTC), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(cut(without_logins(record.getMessage()))),
        }
        if record.exc_info:
            entry["exception"] = without_logins(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def add_shared_options(command: click.Command) -> None:
    """Give a command, and each below it that is loaded, what every program takes; twice does no harm."""
    if _SHARED[0] not in command.params:
        command.params.extend(_SHARED)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            add_shared_options(each)


def _show_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted:
        from stlm_edge.revision import version

        click.echo(f"stlm-edge {version()}")
        context.exit()


def _choose_log(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Set up the log anew for an option that was given, here or at a command above."""
    if value:
        context.meta[f"{__name__}.{parameter.name}"] = value
        chosen = {name: context.meta.get(f"{__name__}.{name}") for name in ("verbose", "log_format")}
        set_up_logging(verbose=bool(chosen["verbose"]), as_json=chosen["log_format"] == "json")


_SHARED = (
    click.Option(
        ["--verbose", "-v"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_choose_log,
        help="Log with time, level and logger, and what libraries have to say.",
    ),
    click.Option(
        ["--log-format"],
        type=click.Choice(["text", "json"]),
        is_eager=True,
        expose_value=False,
        callback=_choose_log,
        help="json: one object a line on stderr, for machines.  [default: text]",
    ),
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show version and commit and exit.",
    ),
)
