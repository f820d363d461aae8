"""`opcua://[ADDRESS][:PORT]`: a line as an OPC UA server. docs/line.md has its nodes.

Beside plain variables of its own it has names of OPC 40100-1 (Machine Vision, 1.0: tables 81, 97 and section 12.17).
They are names alone: its structured types are not there, and neither are its methods, whose arguments have such types.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from asyncua import Node, Server, ua
from asyncua.crypto.security_policies import SecurityPolicyFactory, SecurityPolicyNone

from runtime.control import LineControl
from runtime.event import Tell
from runtime.inspection import Inspection
from runtime.part import Part, PartVerdict
from runtime.sinks.base import FrameSink, SinkContext, output_options, utc
from runtime.sinks.certificate import Identity, default_folder, own_identity
from runtime.sinks.handshake import Losses, controlled, line_state
from runtime.sinks.loop_thread import LoopThread, address_of, notice_lost_clients, require_free
from runtime.sinks.opcua_access import Logins, WrongArgument, read_login, text_argument
from runtime.timing import Seldom
from runtime.uri import Option, choice
from stlm_edge.errors import ControlError, OutputError, StlmError, counted, shortly

logger = logging.getLogger(__name__)

PORT = 4840
NAMESPACE = "urn:stlm-edge:line"
_OPTIONS = {
    "login": Option(Path, "a file with USER:PASSWORD in its first line"),
    "anonymous": choice("1"),
    "security": choice("none"),
    "certificates": Option(Path, "a folder"),
}
_STARTS_WITHIN_S = 60.0
"""It builds some thousand nodes of the standard first."""
_LOOKS_EVERY_S = 0.1
"""At the state of the line. Results do not wait for it."""
_DOUBLE_WORD = 0xFFFFFFFF

_RESULT_STATES: dict[PartVerdict, int] = {"good": 1, "unclear": 1, "reject": 1, "missed": 3, "fault": 4}
"""Completed, Aborted and Failed of OPC 40100-1, table 153."""

_Answer: TypeAlias = list[ua.Variant] | ua.StatusCode | ua.CallMethodResult
_Value = bool | int | float | str | Any
_LINE: dict[str, tuple[_Value, ua.VariantType]] = {
    "Ready": (False, ua.VariantType.Boolean),
    "ResultsValid": (False, ua.VariantType.Boolean),
    "Result": (False, ua.VariantType.Boolean),
    "Verdict": ("", ua.VariantType.String),
    "Score": (-1.0, ua.VariantType.Float),
    "PartId": ("", ua.VariantType.String),
    "PartNumber": (0, ua.VariantType.UInt32),
    "Missed": (0, ua.VariantType.UInt32),
    "RecipeId": (0, ua.VariantType.UInt32),
    "Recipe": ("", ua.VariantType.String),
    "Heartbeat": (0, ua.VariantType.UInt16),
}
_NO_RESULT = {name: _LINE[name][0] for name in ("ResultsValid", "Result", "Verdict", "Score", "PartId", "PartNumber")}
_VISION: dict[str, tuple[_Value, ua.VariantType]] = {
    "VisionStateMachine.CurrentState": ("Preoperational", ua.VariantType.LocalizedText),
    "VisionStateMachine.AutomaticModeStateMachine.CurrentState": ("Initialized", ua.VariantType.LocalizedText),
    "ResultManagement.Results.Result.ResultId": ("", ua.VariantType.String),
    "ResultManagement.Results.Result.IsPartial": (False, ua.VariantType.Boolean),
    "ResultManagement.Results.Result.ResultState": (0, ua.VariantType.Int32),
    "ResultManagement.Results.Result.PartId": ("", ua.VariantType.String),
    "ResultManagement.Results.Result.InternalRecipeId": ("", ua.VariantType.String),
    "ResultManagement.Results.Result.JobId": ("", ua.VariantType.String),
    "ResultManagement.Results.Result.CreationTime": (utc(0.0), ua.VariantType.DateTime),
    "ResultManagement.Results.Result.ResultContent": ([], ua.VariantType.String),
}


class OpcUaServer(FrameSink):
    """Has the line's values and the last part's result as nodes, and takes triggers and recipes as methods.

    All of a result is written without a pause, so a read request and a subscription's publication see it whole.
    """

    takes_pictures = False
    takes_frames = False

    def __init__(
        self,
        name: str,
        *,
        address: tuple[str, int],
        control: LineControl | None,
        tell: Tell | None,
        login: tuple[str, str] | None,
        identity: Identity | None,
    ) -> None:
        """
        Args:
            name: of the output, in messages.
            address: host and port.
            control: of the line; without one, triggers and recipes are refused.
            tell: takes the event that a trigger was refused.
            login: that a client must have; None lets everybody in.
            identity: by which connections are signed and encrypted; None leaves them open.
        Raises:
            OutputError: if the port is taken or the address is another machine's.
        """
        require_free(name, *address)
        self._control = control
        self._name = name
        self._losses = Losses(name, tell)
        self._recipe_log = Seldom()
        self._logins = Logins(name, login)
        self._identity = identity
        self._place = f"{address[0]}:{address[1]}"
        self._run = uuid.uuid4().hex[:12]
        """Makes the numbers of parts unique over all runs."""
        self._nodes: dict[str, Node] = {}
        self._types = {f"Line.{name}": kind for name, (_, kind) in _LINE.items()}
        self._types |= {f"VisionSystem.{name}": kind for name, (_, kind) in _VISION.items()}
        self._values: dict[str, _Value] = {}
        self._triggered: set[int] = set()
        """Parts that were triggered here and have no result yet."""
        # It logs, with traces, what any client on the network does wrong.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self._loop = LoopThread(name)
        self._is_closed = False
        try:
            self._server = self._loop.run(self._serve(address), within_s=_STARTS_WITHIN_S)
        except Exception as error:
            self._loop.close()
            if isinstance(error, StlmError):
                raise
            raise OutputError(f"{name} cannot be opened ({shortly(error)})") from error

    @classmethod
    def check(cls, uri: str) -> None:
        options = output_options(uri, _OPTIONS)
        read_login(uri, options.get("login"), is_anonymous="anonymous" in options)
        require_free(uri, *address_of(uri, urlsplit(uri), default_port=PORT))

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> OpcUaServer:
        """Raises `OutputError` on unknown options too, and where nobody says who may come in."""
        context.require_parts(uri)
        address = address_of(uri, urlsplit(uri), default_port=PORT)
        options = output_options(uri, _OPTIONS)
        login = read_login(uri, options.get("login"), is_anonymous="anonymous" in options)
        is_open = "security" in options
        if is_open and login is not None:
            raise OutputError(
                f"{uri} would send passwords over the network as they are; leave security=none out, or the login and "
                "give anonymous=1"
            )
        folder = options.get("certificates") or default_folder()
        return cls(
            uri,
            address=address,
            control=context.control,
            tell=context.tell,
            login=login,
            identity=None if is_open else own_identity(folder, host=address[0]),
        )

    @property
    def state(self) -> str:
        served = self._server.bserver
        clients = counted(0 if served is None else len(served.clients), "client")
        return f"listens on {self._place}, {clients}, {self._losses.count} missed"

    def write(self, inspection: Inspection) -> None:
        """Nothing: the machine gets one result a part."""

    def write_part(self, part: Part) -> None:
        self._loop.run(self._show(part), within_s=self.closes_within_s)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._loop.run(self._server.stop(), within_s=self.closes_within_s / 2)
        finally:
            self._loop.close()

    async def _serve(self, address: tuple[str, int]) -> Server:
        server = Server(user_manager=self._logins)  # type: ignore[arg-type, unused-ignore]
        server.iserver.allow_remote_admin = False
        await server.init()
        server.set_server_name("stlm-edge")
        host, port = address
        server.set_endpoint(f"opc.tcp://{f'[{host}]' if ':' in host else host}:{port}/")
        if self._identity is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            await server.set_application_uri(self._identity.application_uri)
            await server.load_certificate(self._identity.certificate, "der")
            await server.load_private_key(self._identity.key, format="pem")
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            # Clients ask for the endpoints without encryption. As asyncua is, they could go on like that.
            unencrypted = SecurityPolicyFactory(
                SecurityPolicyNone, ua.MessageSecurityMode.None_, permission_ruleset=_Nothing()
            )
            server._policies.append(unencrypted)
        token = ua.AnonymousIdentityToken if self._logins.lets_everybody_in else ua.UserNameIdentityToken
        server.set_identity_tokens([token])
        await self._build(server)
        await server.start()
        assert server.bserver is not None and server.bserver._server is not None
        notice_lost_clients(server.bserver._server.sockets)
        self._looking = asyncio.create_task(self._look())
        return server

    async def _build(self, server: Server) -> None:
        space = await server.register_namespace(NAMESPACE)
        for root, variables in (("Line", _LINE), ("VisionSystem", _VISION)):
            parents = {"": server.nodes.objects}
            for name, (value, kind) in variables.items():
                *path, last = f"{root}.{name}".split(".")
                for depth, folder in enumerate(path):
                    place = ".".join(path[: depth + 1])
                    if place not in parents:
                        above = parents[".".join(path[:depth])]
                        parents[place] = await above.add_object(ua.NodeId(place, space), f"{space}:{folder}")
                whole = f"{root}.{name}"
                node = await parents[".".join(path)].add_variable(
                    ua.NodeId(whole, space), f"{space}:{last}", _variant(value, kind)
                )
                self._nodes[whole], self._values[whole] = node, value
        line = await server.nodes.objects.get_child([f"{space}:Line"])
        for name, method, takes, gives in (
            ("Trigger", self._on_trigger, "PartId", {"PartNumber": ua.VariantType.UInt32}),
            ("SelectRecipe", self._on_recipe, "Recipe", {}),
        ):
            await line.add_method(
                ua.NodeId(f"Line.{name}", space),
                f"{space}:{name}",
                method,
                [_argument(takes, ua.VariantType.String)],
                [_argument(given, kind) for given, kind in gives.items()],
            )

    async def _on_trigger(self, _parent: ua.NodeId, *given: ua.Variant) -> _Answer:
        try:
            number = controlled(self._control).trigger(text_argument(given) or None)
        except WrongArgument as error:
            self._losses.add(f"a trigger was refused ({error})")
            await self._set("Line", {"Missed": self._losses.count & _DOUBLE_WORD})
            return error.answer
        except ControlError as error:
            self._losses.add(f"a trigger was refused ({error})")
            await self._set("Line", {"Missed": self._losses.count & _DOUBLE_WORD})
            return ua.StatusCode(ua.StatusCodes.BadInvalidState)
        self._triggered.add(number)
        await self._set("Line", _NO_RESULT)
        await self._look_once()
        return [ua.Variant(number & _DOUBLE_WORD, ua.VariantType.UInt32)]

    async def _on_recipe(self, _parent: ua.NodeId, *given: ua.Variant) -> _Answer:
        try:
            controlled(self._control).change_recipe(text_argument(given))
        except WrongArgument as error:
            self._refuse_recipe(error)
            return error.answer
        except ControlError as error:
            self._refuse_recipe(error)
            return ua.StatusCode(ua.StatusCodes.BadNotFound)
        return []

    def _refuse_recipe(self, error: ControlError) -> None:
        if self._recipe_log.is_due():
            logger.warning("%s: a recipe was refused: %s", self._name, error)

    async def _show(self, part: Part) -> None:
        self._triggered.discard(part.number)
        name, recipe = part.part_id or "", part.recipe or ""
        score = None if part.score is None else round(part.score, 6)
        content = {
            "PartNumber": part.number,
            "PartId": name,
            "Verdict": part.verdict,
            "Score": score,
            "Frames": part.frames,
            "Recipe": recipe,
            "LatencyMs": round(part.latency_ms, 3),
        }
        result = {
            "ResultId": f"{self._run}-{part.number}",
            "ResultState": _RESULT_STATES[part.verdict],
            "PartId": name,
            "InternalRecipeId": recipe,
            "JobId": f"{self._run}-{part.number}",
            "CreationTime": utc(part.decided_s),
            "ResultContent": [json.dumps(content)],
        }
        await self._set("VisionSystem.ResultManagement.Results.Result", result)
        shown = {
            "Result": part.verdict == "good",
            "Verdict": part.verdict,
            "Score": -1.0 if part.score is None else part.score,
            "PartId": name,
            "PartNumber": part.number & _DOUBLE_WORD,
            "ResultsValid": True,
        }
        await self._set("Line", shown)

    async def _look(self) -> None:
        while True:
            await self._look_once()
            await asyncio.sleep(_LOOKS_EVERY_S)

    async def _look_once(self) -> None:
        line = line_state(self._control)
        idle = "Ready" if line.ready else "Initialized"
        states = {
            "CurrentState": "Error" if line.hangs else "Operational",
            "AutomaticModeStateMachine.CurrentState": "SingleExecution" if self._triggered else idle,
        }
        await self._set("VisionSystem.VisionStateMachine", states)
        values = {
            "Ready": line.ready,
            "RecipeId": line.recipe_number,
            "Recipe": line.recipe,
            "Heartbeat": line.heartbeat,
        }
        await self._set("Line", values)

    async def _set(self, place: str, values: Mapping[str, _Value]) -> None:
        """Write what has changed. It never waits, so nobody reads between two of them."""
        for name, value in values.items():
            whole = f"{place}.{name}"
            if self._values[whole] != value:
                self._values[whole] = value
                await self._nodes[whole].write_value(ua.DataValue(_variant(value, self._types[whole])))


class _Nothing:
    """Forbids everything but asking for endpoints and making a session, which asyncua has no rules for.

    Shaped as its `PermissionRuleset`.
    """

    def check_validity(self, user: object, action_type: object, body: object) -> bool:  # noqa: ARG002
        return False


def _variant(value: _Value, kind: ua.VariantType) -> ua.Variant:
    return ua.Variant(ua.LocalizedText(value) if kind == ua.VariantType.LocalizedText else value, kind)


def _argument(name: str, kind: ua.VariantType) -> ua.Argument:
    return ua.Argument(Name=name, DataType=ua.NodeId(kind.value), ValueRank=-1, ArrayDimensions=[])
