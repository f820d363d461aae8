"""What JSON and YAML that somebody hands over is taken, and the one line for what is not."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from stlm_edge.errors import LONGEST_LINE, ConfigError, DataError, StlmError, one_line, shown
from stlm_edge.records import (
    MAY_LACK,
    MOST_DEPTH,
    MOST_VALUES,
    MOST_YAML_BYTES,
    Count,
    Within,
    build,
    formerly,
    read_object,
    read_settings,
)


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class Outer:
    name: str
    count: Count
    size: tuple[int, int]
    kind: Literal["a", "b"] = field(metadata=formerly(values={"old-a": "a"}))
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    by_name: dict[str, float] = field(default_factory=dict)
    is_on: bool = field(default=False, metadata=MAY_LACK)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise DataError("the name is refused; take another")


RIGHT: dict[str, Any] = {
    "name": "x",
    "count": 3,
    "size": [4, 5],
    "kind": "old-a",
    "inner": {"share": 1},
    "many": [{"share": 0.5}],
    "by_name": {"y": 2},
}


def settings(path: Path) -> dict[str, Any]:
    return read_settings(path, error=ConfigError, remedy="correct it")


def test_record_becomes_its_dataclass() -> None:
    made = build(Outer, RIGHT)
    assert made == Outer("x", 3, (4, 5), "a", Inner(1.0), (Inner(0.5),), {"y": 2.0})
    assert isinstance(made.by_name["y"], float)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "Outer.name is 3, expected a text"),
        ({"name": None}, "Outer.name is None, expected a text"),
        ({"count": -1}, "Outer.count is -1, expected at least 0"),
        ({"count": True}, "Outer.count is True, expected a whole number"),
        ({"count": 1.0}, "Outer.count is 1.0, expected a whole number"),
        ({"count": "1" * 10**6}, "expected a whole number"),
        ({"size": [4]}, "Outer.size is [4], expected a list of 2"),
        ({"size": [4, 5, 6]}, "expected a list of 2"),
        ({"size": 4}, "Outer.size is a whole number, expected a list"),
        ({"size": [4, "5"]}, "Outer.size[1] is '5', expected a whole number"),
        ({"kind": "c"}, "Outer.kind is 'c', expected a or b"),
        ({"kind": ["a"]}, "expected a or b"),
        ({"inner": 3}, "Outer.inner is a whole number, expected an object"),
        ({"inner": {"share": 1.01}}, "Outer.inner.share is 1.01, expected 0 to 1"),
        ({"inner": {"share": False}}, "Outer.inner.share is False, expected a number"),
        ({"many": [{"share": 0}, {"share": -1}]}, "Outer.many[1].share is -1.0, expected 0 to 1"),
        ({"many": {}}, "Outer.many is an object, expected a list"),
        ({"by_name": []}, "Outer.by_name is a list, expected an object"),
        ({"by_name": {"y" * 500: "z"}}, "expected a number"),
        ({"is_on": 1}, "Outer.is_on is 1, expected true or false"),
        ({"colour": 1}, "unknown keys ['colour']"),
        ({"name": "refused"}, "the name is refused; take another"),
    ],
)
def test_value_of_another_kind_is_one_line_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, RIGHT | changes, error=ConfigError)
    assert said in str(caught.value)
    assert len(str(caught.value)) <= LONGEST_LINE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, expected a JSON object"),
        (b" \r\n", "is empty"),
        (b"[]", "holds a list, expected a JSON object"),
        (b"3", "holds a whole number"),
        (b"null", "holds nothing"),
        (b"{", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": 1} x', "is not JSON"),
        (b"\xff\xfe{\x00}\x00", "is not text in UTF-8"),
        (b'{"a": "\xe4"}', "is not text in UTF-8"),
        (b'{"a": NaN}', "holds the number nan"),
        (b'{"a": [-Infinity]}', "holds the number -inf"),
        (b'{"a": 1e400}', "holds the number inf"),
        (b'{"a": %s}' % (b"9" * 5000), "a whole number of 5000 digits"),
        (b'{"a": -9223372036854775809}', "expected one of 64 bits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "says 'c' twice"),
        (b'{"a": "\\ud800"}', "which is not Unicode"),
        (b'{"\\udc41": 1}', "which is not Unicode"),
        (b'{"a":' * 20_000, "is nested more than"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "is nested more than"),
        (b'{"a":' * MOST_DEPTH + b"{}" + b"}" * MOST_DEPTH, "is nested more than"),
        (b'{"a": [' + b"1," * MOST_VALUES + b"1]}", "holds more than"),
        (b'{"a": "' + b"x" * 10**6, "is not JSON"),
    ],
    ids=range(23),
)
def test_json_that_cannot_be_a_record_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json ") as caught:
        read_object(path, error=DataError, remedy="do it again")
    assert said in str(caught.value) and str(caught.value).endswith("; do it again")
    assert len(str(caught.value)) <= LONGEST_LINE


def test_windows_editors_and_deep_but_honest_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{\r\n  "a": "\xc3\xa4"\r\n}\r\n')
    assert read_object(path) == {"a": "ä"}
    nested: Any = 9223372036854775807
    for _ in range(MOST_DEPTH - 2):
        nested = [nested]
    path.write_text(json.dumps({"a": nested}))
    assert read_object(path) == {"a": nested}


def test_pipe_folder_and_endless_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path, said in (
        (tmp_path / "pipe", "is a named pipe"),
        (tmp_path, "cannot be read"),
        (tmp_path / "file/below", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (Path("/dev/zero"), "has more than"),
    ):
        with pytest.raises(DataError, match=said):
            read_object(path, error=DataError, remedy="look")
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds nothing, expected settings by name"),
        (b"- a", "holds a list"),
        (b"a: [", "cannot be read as YAML"),
        (b'a: !!timestamp "x"', "has the tag 'tag:yaml.org,2002:timestamp'"),
        (b'a: !!int "abc"', "has the tag"),
        (b"a: !!set {x}", "has the tag"),
        (b"a: !!python/object/apply:os.getcwd []", "has the tag"),
        (b"<<: 1", "cannot be read as YAML"),
        (b"? [a]\n: 1", "cannot be read as YAML"),
        (b"a: 1\na: 2", "says 'a' twice"),
        (b"[" * 30_000, "is nested more than"),
        (b"{" * 3000, "is nested more than"),
        (b"a: " + b"- " * 3000, "cannot be read as YAML"),
        (b"- " * 3000, "is nested more than"),
        (b"a: &a [*a]", "is nested more than"),
        (b"a: &a [x]\nb: [" + b"*a, " * 40 + b"]", "aliases"),
        (b"#" * (MOST_YAML_BYTES + 1), "has more than"),
        (b"a: \xff", "is not text in UTF-8"),
        (b"a: \x07", "cannot be read as YAML"),
        (b'a: "/x\\0y"', "has a zero byte"),
    ],
    ids=range(20),
)
def test_yaml_that_holds_no_settings_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.yaml ") as caught:
        settings(path)
    assert said in str(caught.value) and str(caught.value).endswith("; correct it")
    assert len(str(caught.value)) <= LONGEST_LINE


def test_yaml_settings_come_as_they_were_written(tmp_path: Path) -> None:
    """As text: what kind of value it is, the setting says (tests/train/test_config.py) and not YAML."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfbase: &b [1, 2]\r\nother: *b\r\nname: caf\xc3\xa9\r\nday: 2001-13-45\r\n")
    found = settings(path)
    assert found == {"base": ["1", "2"], "other": ["1", "2"], "name": "café", "day": "2001-13-45"}
    written = ("0b__", "0x_", ".nan", "-.inf", "9" * 5000, "010", "1:30", "off", "~", "'quoted'")
    path.write_text("".join(f"a{index}: {text}\n" for index, text in enumerate(written)) + "1: 2\ntrue: 1\n1.5: 1\n")
    found = settings(path)
    assert list(found.values()) == [*written[:-1], "quoted", "2", "1", "1"]
    assert list(found)[-3:] == ["1", "true", "1.5"]
    path.write_text("base: &b {a: 1, c: 2}\nmade:\n  <<: *b\n  c: 3\n")
    assert settings(path)["made"] == {"a": "1", "c": "3"}


def test_old_and_new_name_of_one_setting_together_are_refused() -> None:
    @dataclass(frozen=True)
    class Renamed:
        new: int = field(metadata=formerly(name="old"))

    assert build(Renamed, {"old": 1}) == build(Renamed, {"new": 1})
    with pytest.raises(StlmError, match="both old and new"):
        build(Renamed, {"old": 1, "new": 2})


def test_message_is_one_line_without_control_characters_and_long_values() -> None:
    path = "/data/" + "deep/" * 200 + "picture.png"
    line = str(DataError(f"{path} cannot\nbe read,\x1b[31m {'word ' * 5000}and the \udcff end"))
    assert "\n" not in line and "\x1b" not in line and "\\x1b[31m" in line and "\\xff" in line
    assert line.startswith("/data/deep/") and "picture.png cannot be read" in line and line.endswith("end")
    assert len(line) <= LONGEST_LINE
    assert one_line(line) == line
    assert str(DataError("ein Weg über Ümlaute, 200 × 300")) == "ein Weg über Ümlaute, 200 × 300"


VALUES = ["x" * 10**6, list(range(10**5)), {"a" * 1000: {"b": [[[[[1]]]]]}}, 10**5000, None]


@pytest.mark.parametrize("value", VALUES, ids=["text", "list", "nested", "digits", "none"])
def test_shown_value_is_short(value: object) -> None:
    assert len(shown(value)) <= 300
