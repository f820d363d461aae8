"""`mqtt://`, `mqtts://`: results and events of a line for other machines, and their triggers for the line."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

from runtime.control import LineControl
from runtime.event import Event
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.sinks.access import NetworkOptions
from runtime.sinks.base import FrameSink, SinkContext
from runtime.sinks.events import line_event, part_event
from runtime.sinks.handshake import Losses
from runtime.sinks.mqtt_connection import Broker, Connection
from runtime.sinks.outbox import Outbox
from runtime.sinks.snapshot import snapshot
from runtime.uri import Option
from stlm_edge.credentials import safe_name
from stlm_edge.errors import ControlError, OutputError, StlmError, counted, shortly, shown
from stlm_edge.names import printable
from stlm_edge.records import parse

logger = logging.getLogger(__name__)

LOGIN_VARIABLE = "STLM_MQTT_LOGIN"
"""Of the environment: `USER:PASSWORD`, or the password alone where the address names a user."""

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_OPTIONS = {"client-id": Option(str, "the name that the broker knows this line by")}
_LONGEST_COMMAND = 4096
_LONGEST_PART_ID = 100
_MOST_PICTURES = 3
"""That wait to be drawn; those beyond are left out."""
_PICTURES_SHARE = 0.5
"""Of the queue that pictures may fill, so that they take no part's place."""


class Mqtt(FrameSink):
    """Publishes each part to `BASE/part`, each event to `BASE/event`; see `docs/line.md` for topics and payloads.

    Whatever is published goes through an `Outbox`: a broker that is away holds nothing up and costs nothing that fits.
    """

    takes_pictures = False
    takes_frames = False

    def __init__(self, broker: Broker, outbox: Outbox, *, context: SinkContext, pictures: bool) -> None:
        """Owns the outbox, also where this fails.

        Args:
            pictures: parts that are not good are also drawn and published to `BASE/snapshot`.
        Raises:
            OutputError: if the broker refuses the login or the certificate. One that is away is no error.
        """
        self.takes_pictures = pictures
        # Drawing takes longer than the next part has time.
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._pictures_waiting = threading.BoundedSemaphore(_MOST_PICTURES)
        self._name = broker.name
        self._context = context
        self._outbox = outbox
        self._losses = Losses(broker.name, context.tell)
        self._lost_told = 0
        commands = {} if context.control is None else {"trigger": self._trigger, "recipe": self._change_recipe}
        try:
            self._connection = Connection(broker, outbox, commands=commands)
        except BaseException:
            outbox.close()
            raise

    @classmethod
    def check(cls, uri: str) -> None:
        place, _, query = uri.partition("?")
        NetworkOptions(query, name=safe_name(place), more=_OPTIONS)

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> Mqtt:
        """Raises `OutputError` on unknown options too."""
        place, _, query = uri.partition("?")
        context.require_parts(safe_name(uri))
        parts, host, port = _split(place)
        base = unquote(parts.path).strip("/")
        name = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{base}"
        if parts.fragment or "#" in place:  # which an address has for other things
            base += "#"
        if not base or any(character in base for character in "+#\0"):
            raise OutputError(
                f"{name} has {'no topic' if not base else 'a topic with wildcards'}, expected one below which it is "
                "published, as in mqtt://broker/line1"
            )
        if parts.password is not None:
            safe_name(place)
            raise OutputError(
                f"{name} has a password, which the list of processes shows; put USER:PASSWORD into the first line of a "
                f"file and give login=FILE, or set {LOGIN_VARIABLE}"
            )
        options = NetworkOptions(query, name=name, more=_OPTIONS)
        user, password = unquote(parts.username) if parts.username else None, None
        login = options.login(LOGIN_VARIABLE, expected="a login", example="USER:PASSWORD")
        if login is not None:
            user, password = (user, login) if user is not None else _user_and_password(login, name=name)
        if parts.scheme == "mqtt":
            options.refuse_certificates("mqtts")
            options.warn_of_clear_login(login, host=host, scheme="mqtts")
        tls = options.tls() if parts.scheme == "mqtts" else None
        broker = Broker(
            name=name,
            host=host,
            port=port,
            base=base,
            user=user,
            password=password,
            tls=tls,
            client_id=options.rest.get("client-id", ""),
        )
        return cls(broker, options.outbox("mqtt"), context=context, pictures=options.snapshot)

    @property
    def state(self) -> str:
        away = self._connection.away
        words = ["connected" if away is None else f"away for {self._connection.away_s:.0f} s ({away})"]
        if len(self._outbox):
            words.append(f"{len(self._outbox)} waiting")
        if self._outbox.lost:
            words.append(f"{self._outbox.lost} lost")
        return ", ".join(words)

    @property
    def away(self) -> str | None:
        return self._connection.away

    def write(self, inspection: Inspection) -> None:
        """Frames are not published, the part that they belong to is."""

    def write_part(self, part: Part) -> None:
        record = {**part_event(part, engine_sha256=self._context.engine_sha256), "run": self._context.run}
        if not self._publish("part", record):
            self.lost += 1
            self._losses.add(f"there is no room for what waits ({self._connection.away or 'it is slow'})")
        if self.takes_pictures and self._pictures_waiting.acquire(blocking=False):
            self._painter.submit(self._publish_picture, part)

    def write_event(self, event: Event) -> None:
        self._publish("event", {**line_event(event), "run": self._context.run})

    def close(self) -> None:
        self._painter.shutdown()
        self._connection.close()
        if len(self._outbox):
            logger.warning(
                "%s has not taken %d messages; they wait in %s for the next run",
                self._name,
                len(self._outbox),
                self._outbox.file.parent,
            )
        self._outbox.close()

    def _publish(self, kind: str, record: dict[str, Any]) -> bool:
        lost = self._outbox.lost
        if lost > self._lost_told and self._connection.away is None:
            text = f"lost {counted(lost - self._lost_told, 'message')}, for which the queue had no room"
            if self._put("event", json.dumps(self._event("part-lost", text)).encode()):
                self._lost_told = lost
        return self._put(kind, json.dumps(record).encode())

    def _publish_picture(self, part: Part) -> None:
        try:
            picture = snapshot(part, run=self._context.run)
            if picture is not None:
                self._put("snapshot", picture, share=_PICTURES_SHARE)
        except Exception as error:  # which nobody would hear of
            logger.error("%s gets no picture of part %d (%s)", self._name, part.number, shortly(error))
        finally:
            self._pictures_waiting.release()

    def _put(self, kind: str, payload: bytes, *, share: float = 1.0) -> bool:
        is_taken = self._outbox.put(kind, payload, share=share)
        self._connection.send()
        return is_taken

    def _event(self, kind: str, text: str, **more: Any) -> dict[str, Any]:
        """What is told here alone, and not by the line."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        return {"time": now, "event": kind, "text": printable(text), **more, "run": self._context.run}

    def _trigger(self, payload: bytes) -> None:
        part_id: str | None = None
        try:
            part_id = _text_of(payload, key="part_id")
            number = self._control.trigger(part_id)
        except StlmError as error:
            self._refuse("trigger", error, part_id=part_id)
            return
        self._publish("event", self._event("trigger-taken", f"part {number} was begun", part=number, part_id=part_id))

    def _change_recipe(self, payload: bytes) -> None:
        try:
            recipe = _text_of(payload, key="recipe")
            if recipe is None:
                raise ControlError("found no recipe in the message, expected a name or a number")
            self._control.change_recipe(recipe)
        except StlmError as error:
            self._refuse("recipe", error)

    def _refuse(self, what: str, error: StlmError, **more: Any) -> None:
        logger.warning("%s: a %s was refused: %s", self._name, what, error)
        self._publish("event", self._event(f"{what}-refused", str(error), **more))

    @property
    def _control(self) -> LineControl:
        assert self._context.control is not None
        return self._context.control


def _split(place: str) -> tuple[Any, str, int]:
    try:
        parts = urlsplit(place)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        if host and parts.netloc.count("@") <= 1:
            return parts, host, port
    except ValueError:
        pass
    raise OutputError(f"{safe_name(place)} is not an address, expected mqtt://HOST:PORT/TOPIC")


def _user_and_password(login: str, *, name: str) -> tuple[str, str]:
    user, colon, password = login.partition(":")
    if not colon or not user:
        raise OutputError(f"the login of {name} is not USER:PASSWORD; write both, or name the user in the address")
    return user, password


def _text_of(payload: bytes, *, key: str) -> str | None:
    """What a command says: nothing, a text, or a JSON object with `key` and nothing else.

    Raises `ControlError`, also for other JSON, which nobody means as a name; digits alone are one.
    """
    if len(payload) > _LONGEST_COMMAND:
        raise ControlError(f"found a message of {len(payload)} bytes, expected {_LONGEST_COMMAND} at most")
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        raise ControlError("found a message that is not UTF-8, expected text or JSON") from None
    if text.startswith("{"):
        given = parse(text, what="the message", error=ControlError, remedy=f'send {{"{key}": "…"}}')
        unknown = [name for name in given if name != key]
        value = given.get(key)
        if unknown or not isinstance(value, str | int | None) or isinstance(value, bool):
            raise ControlError(f'found another object than {{"{key}": "…"}} in the message; send that')
        text = "" if value is None else str(value).strip()
    elif not text.isdecimal() and _is_json(text):
        raise ControlError(f'found the JSON {shown(text)}, expected a text as it is, or {{"{key}": "…"}}; send that')
    if len(text) > _LONGEST_PART_ID:
        raise ControlError(f"found {len(text)} characters, expected {_LONGEST_PART_ID} at most")
    return text or None


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return False
    return True


def _no_number(word: str) -> None:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(word)
