"""What `stlm camera` is told: by options, or of several cameras and recipes by a YAML file whose names are theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runtime.backends import BackendChoice
from runtime.control import Trigger
from stlm_edge.errors import ConfigError, ControlError, cut, shown
from stlm_edge.names import nearest
from stlm_edge.records import read_settings

RECIPE_SETTINGS = (
    *("engine", "backend", "threshold", "unclear", "roi", "ignore", "tile"),
    *("votes", "release", "part_frames", "part_gap", "deadline_ms"),
)
"""What a recipe may say; the rest is the camera's."""

_OF_THE_PROGRAM = ("inference_timeout", "max_megapixels", "serve", "serve_token", "serve_cert", "serve_key")
"""Settings that all cameras of a file have in common."""

_IN_THE_PLACE_OF = {"threshold": "unclear", "unclear": "threshold"}
"""A recipe that says one of them takes away the other, which its camera may have."""

_LONGEST_NAME = 100
_NUMBER = click.IntRange(1, 65535)  # what a register of Modbus holds, 0 left out


@dataclass(frozen=True)
class Recipe:
    """How one kind of part is judged.

    Attributes:
        number: for those who ask by a number, as a PLC does.
        says: `CameraConfig`'s fields that it has in the place of the camera's.
    """

    name: str
    number: int
    says: Mapping[str, Any]


@dataclass(frozen=True)
class CameraConfig:
    """All that one camera is told; its fields are the options of `stlm camera`, where they are explained.

    Attributes:
        recipes: that it may be asked for; none where there are no recipes.
        name: that a file of several cameras has for it; None for the only one.
    """

    engine: Path | None
    source: str | None
    source_file: str | None
    width: int | None
    height: int | None
    fps: float | None
    rotate: str
    output: tuple[str, ...]
    backend: BackendChoice
    threshold: float | None
    unclear: str | None
    roi: Path | None
    ignore: Path | None
    tile: str | None
    inference_timeout: float
    votes: str
    release: float | None
    trigger: Trigger | None
    queue: int | None
    part_frames: int | None
    part_gap: float | None
    deadline_ms: float | None
    camera_faults: bool
    frames: int | None
    summary: Path | None
    recipe: str | None
    recipe_file: str | None
    serve: str | None
    serve_token: Path | None
    serve_cert: Path | None
    serve_key: Path | None
    shadow: str | None
    recipes: tuple[Recipe, ...] = ()
    name: str | None = None

    def by(self, recipe: Recipe | None) -> CameraConfig:
        """The same with what a recipe says."""
        if recipe is None:
            return self
        cleared = {_IN_THE_PLACE_OF[name]: None for name in recipe.says if name in _IN_THE_PLACE_OF}
        return dataclasses.replace(self, **(cleared | dict(recipe.says)))


def require_served(config: CameraConfig) -> None:
    """Raises `ConfigError` for files of a page that is not asked for."""
    for name in ("serve_token", "serve_cert", "serve_key"):
        if config.serve is None and getattr(config, name) is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"found {option} without serve, expected both; give --serve 0.0.0.0:8080 too")


def find_recipe(recipes: Sequence[Recipe], wanted: str) -> Recipe:
    """The one with this name, or this number in decimal. Raises `ControlError`, which names the nearest."""
    for recipe in recipes:
        if wanted in (recipe.name, str(recipe.number)):
            return recipe
    if not recipes:
        raise ControlError(f"found no recipe {shown(wanted)}, since this line has none; start it with --recipes")
    known = ", ".join(f"{recipe.name} ({recipe.number})" for recipe in recipes)
    raise ControlError(f"found no recipe {shown(wanted)}, {nearest(wanted, [each.name for each in recipes])}{known}")


def read_recipes(path: Path, *, command: click.Command) -> tuple[Recipe, ...]:
    """The recipes in a YAML file: name → number and settings.

    Args:
        command: `stlm camera`, whose options say what the settings are and what their texts mean.
    Raises:
        ConfigError: if the file cannot be read, a setting is unknown or wrong, or two recipes have one number.
    """
    return _recipes(_read(path), command=command, where=str(path))


def read_line(path: Path, *, command: click.Command) -> list[CameraConfig]:
    """The cameras in a YAML file: `cameras`, name → settings; `recipes`, name → number and settings, or another file.

    Whatever else stands there all cameras have that do not say otherwise. Arguments and errors as for `read_recipes`.
    """
    common = _read(path)
    cameras, recipes = common.pop("cameras", None), common.pop("recipes", {})
    names = [field.name for field in dataclasses.fields(CameraConfig)]
    own = [name for name in names if name not in ("recipes", "name", *_OF_THE_PROGRAM)]
    _require_known(common, ["cameras", "recipes", *own, *_OF_THE_PROGRAM], where=str(path))
    if not isinstance(cameras, dict) or not cameras:
        raise ConfigError(f"{path} has no cameras by name, expected 'cameras:' with a name and settings for each")
    known = (
        read_recipes(Path(recipes), command=command)
        if isinstance(recipes, str)
        else _recipes(recipes, command=command, where=str(path))
    )
    configs = []
    for name, written in cameras.items():
        where = f"{path}: camera {shown(name)}"
        _check_name(name, where=where)
        settings = _settings(written, where=where)
        _require_known(settings, own, where=where)
        values = _understood(common | settings, command=command, where=where)
        values = {each: value for each, value in values.items() if each in names}
        configs.append(CameraConfig(**values | {"recipes": known, "name": name}))
    return configs


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_settings(path, error=ConfigError, remedy="see docs/line.md")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist, expected settings in YAML; check the path") from None


def _recipes(written: object, *, command: click.Command, where: str) -> tuple[Recipe, ...]:
    recipes: list[Recipe] = []
    for name, said in _settings(written, where=f"{where}: recipes").items():
        its = f"{where}: recipe {shown(name)}"
        _check_name(name, where=its)
        if name.isdecimal():
            raise ConfigError(f"{its} has a number for a name, expected a word, since recipes are asked for by either")
        settings = _settings(said, where=its)
        _require_known(settings, ("number", *RECIPE_SETTINGS), where=its)
        number = _number(settings.pop("number", None), where=its)
        same = [each.name for each in recipes if each.number == number]
        if same:
            raise ConfigError(f"{its} has the number {number}, as {shown(same[0])} has; give each its own")
        values = _understood(settings, command=command, where=its)
        given = [each.replace("-", "_") for each in settings]
        recipes.append(Recipe(name, number, {each: values[each] for each in given}))
    return tuple(recipes)


def _number(written: Any, *, where: str) -> int:
    try:
        return int(_NUMBER.convert(written, None, None))
    except (click.UsageError, TypeError):
        found = "no number" if written is None else f"the number {shown(written)}"
        raise ConfigError(f"{where} has {found}, expected 'number:' with a whole one from 1 to 65535") from None


def _check_name(name: str, *, where: str) -> None:
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"{where} has a name that cannot be shown, expected 1 to {_LONGEST_NAME} printable characters"
        )


def _settings(written: object, *, where: str) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise ConfigError(f"{where} is {shown(written)}, expected settings by name")
    return dict(written)


def _require_known(settings: Mapping[str, Any], fields: Sequence[str], *, where: str) -> None:
    names = [name.replace("_", "-") for name in fields]
    for name in settings:
        if name not in names:
            if name.replace("-", "_") in _OF_THE_PROGRAM:
                raise ConfigError(
                    f"{where} has the setting {shown(name)}, which is of the program; move it to the top of the line's "
                    f"file, or give --{name}"
                )
            raise ConfigError(
                f"{where} has the setting {shown(name)}, which is unknown there; {nearest(name, names)}"
                f"{', '.join(names)}"
            )


def _understood(settings: Mapping[str, Any], *, command: click.Command, where: str) -> dict[str, Any]:
    """What the command line makes of settings, those that are not given among them. Raises `ConfigError`."""
    options = {parameter.name: parameter for parameter in command.params if isinstance(parameter, click.Option)}
    arguments = []
    for name, value in settings.items():
        option = options[name.replace("-", "_")]
        texts = value if isinstance(value, list) and option.multiple else [value]
        for text in texts:
            if not isinstance(text, str):
                raise ConfigError(f"{where}: {name} is {shown(value)}, expected one text or number")
            arguments.append(_argument(name, text, option=option, where=where))
    try:
        with command.make_context(command.name, arguments) as context:
            return dict(context.params)
    except click.BadParameter as error:
        assert error.param is not None and error.param.name is not None
        name = error.param.name.replace("_", "-")
        raise ConfigError(f"{where}: {name} cannot be used: {cut(error.message.rstrip('.'))}") from None
    except click.UsageError as error:
        raise ConfigError(f"{where}: {error.format_message()}") from None


def _argument(name: str, text: str, *, option: click.Option, where: str) -> str:
    if not option.is_flag:
        return f"--{name}={text}"
    try:
        return f"--{name}" if click.BOOL.convert(text, None, None) else f"--no-{name}"
    except click.UsageError:
        raise ConfigError(f"{where}: {name} is {shown(text)}, expected true or false") from None
