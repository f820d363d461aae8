"""`opcua://` as clients see it, by asyncua's own client."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("asyncua", reason="needs the extra opcua")

from asyncua import Client, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError
from cryptography.x509.oid import ExtendedKeyUsageOID

from runtime.part import PartVerdict
from runtime.sinks import FrameSink, SinkContext, check_outputs, open_sink
from runtime.sinks.opcua_access import LOGIN_VARIABLE
from stlm_edge.errors import OutputError

from .cable import free_port
from .conftest import ENGINE
from .fake_line import FakeLine, part

pytestmark = pytest.mark.heavy

OPEN = "anonymous=1&security=none"
CLIENT_URI = "urn:client"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def shared(port: int) -> Iterator[tuple[FrameSink, FakeLine]]:
    """One server for all tests that only look at values, since one takes seconds to start."""
    line = FakeLine(judges=False)
    context = SinkContext(engine_sha256=ENGINE, has_parts=True, control=line)
    with open_sink(f"opcua://:{port}?{OPEN}", context=context) as sink:
        yield sink, line
    line.end()


@pytest.fixture
def sink(shared) -> FrameSink:
    return shared[0]


@pytest.fixture
def line(shared) -> FakeLine:
    line = shared[1]
    line.ready, line.progress_s = True, None
    line.triggered.clear()
    line.recipes.clear()
    return line


async def read(client: Client, *paths: str) -> list[Any]:
    space = await client.get_namespace_index("urn:stlm-edge:line")
    nodes = [client.get_node(ua.NodeId(path, space)) for path in paths]
    return await client.read_values(nodes)


async def call(client: Client, method: str, *arguments: str) -> Any:
    space = await client.get_namespace_index("urn:stlm-edge:line")
    return await client.get_node(ua.NodeId("Line", space)).call_method(f"{space}:{method}", *arguments)


async def until(client: Client, path: str, value: object) -> None:
    end_s = time.monotonic() + 10
    while (seen := (await read(client, path))[0]) != value:
        assert time.monotonic() < end_s, seen
        await asyncio.sleep(0.01)


def with_client(port: int, work: Any) -> Any:
    async def run() -> Any:
        async with Client(f"opc.tcp://127.0.0.1:{port}/", timeout=10) as client:
            return await work(client)

    return asyncio.run(run())


def test_browsing_finds_the_line_and_the_names_of_machine_vision(sink, port):
    async def tree(node: Any, depth: int = 0) -> Any:
        return {
            (await child.read_browse_name()).Name: await tree(child, depth + 1)
            for child in await node.get_children()
            if await child.read_node_class() in (ua.NodeClass.Object, ua.NodeClass.Variable, ua.NodeClass.Method)
        }

    async def work(client: Client) -> Any:
        space = await client.get_namespace_index("urn:stlm-edge:line")
        found = {}
        for name in ("Line", "VisionSystem"):
            found[name] = await tree(await client.nodes.objects.get_child(f"{space}:{name}"))
        return found

    found = with_client(port, work)
    values = {"Ready", "ResultsValid", "Result", "Verdict", "Score", "PartId", "PartNumber", "Missed"}
    assert set(found["Line"]) == values | {"RecipeId", "Recipe", "Heartbeat", "Trigger", "SelectRecipe"}
    assert set(found["Line"]["Trigger"]) == {"InputArguments", "OutputArguments"}
    machine = found["VisionSystem"]["VisionStateMachine"]
    assert set(machine) == {"CurrentState", "AutomaticModeStateMachine"}
    assert set(machine["AutomaticModeStateMachine"]) == {"CurrentState"}
    assert set(found["VisionSystem"]["ResultManagement"]["Results"]["Result"]) == {
        *("ResultId", "IsPartial", "ResultState", "PartId", "InternalRecipeId", "JobId", "CreationTime"),
        "ResultContent",
    }


@pytest.mark.parametrize(
    ("verdict", "state"), [("good", 1), ("unclear", 1), ("reject", 1), ("missed", 3), ("fault", 4)]
)
def test_result_is_there_once_it_was_written(sink, line, port, verdict: PartVerdict, state: int):
    async def work(client: Client) -> list[Any]:
        score = None if verdict == "missed" else 0.25
        await asyncio.to_thread(sink.write_part, part(7, part_id="door left", verdict=verdict, score=score))
        results = "VisionSystem.ResultManagement.Results.Result"
        names = ("ResultsValid", "Result", "Verdict", "Score", "PartId", "PartNumber")
        return await read(
            client,
            *(f"Line.{name}" for name in names),
            *(f"{results}.{name}" for name in ("ResultState", "PartId", "JobId", "ResultContent")),
        )

    valid, good, told, score, name, number, *machine = with_client(port, work)
    assert (valid, good, told, name, number) == (True, verdict == "good", verdict, "door left", 7)
    assert score == (-1.0 if verdict == "missed" else 0.25)
    assert machine[:2] == [state, "door left"]
    assert machine[2].endswith("-7")
    (content,) = machine[3]
    assert json.loads(content)["Verdict"] == verdict
    assert json.loads(content)["PartNumber"] == 7


def test_values_that_are_read_in_one_request_are_of_one_part(sink, line, port):
    ends = threading.Event()

    def change() -> None:
        number = 0
        while not ends.is_set():
            number += 1
            sink.write_part(part(number, part_id=str(number), score=float(number)))

    async def work(client: Client) -> list[Any]:
        paths = [f"Line.{name}" for name in ("PartId", "PartNumber", "Score")]
        return [await read(client, *paths) for _ in range(200)]

    sink.write_part(part(0, part_id="0", score=0.0))
    changing = threading.Thread(target=change)
    changing.start()
    try:
        seen = with_client(port, work)
    finally:
        ends.set()
        changing.join()
    assert len({number for _, number, _ in seen}) > 20
    assert all(int(name) == number == score for name, number, score in seen)


def test_trigger_begins_a_part_and_its_result_follows(sink, line, port):
    async def work(client: Client) -> None:
        await until(client, "Line.Ready", True)
        await asyncio.to_thread(sink.write_part, part(0))
        mode = "VisionSystem.VisionStateMachine.AutomaticModeStateMachine.CurrentState"
        assert (await read(client, mode))[0].Text == "Ready"
        assert await call(client, "Trigger", "bolt 5") == 0
        assert line.triggered == ["bolt 5"]
        # What was good before says nothing of this part.
        assert await read(client, "Line.ResultsValid", "Line.Result") == [False, False]
        assert (await read(client, mode))[0].Text == "SingleExecution"
        assert await call(client, "Trigger", "") == 1
        assert line.triggered == ["bolt 5", None]
        for number in range(2):
            await asyncio.to_thread(sink.write_part, part(number))
        assert await read(client, "Line.Result", "Line.PartNumber") == [True, 1]
        await until(client, mode, ua.LocalizedText("Ready"))

    with_client(port, work)


def test_refused_trigger_is_an_error_and_counted(sink, line, port):
    async def work(client: Client) -> None:
        (before,) = await read(client, "Line.Missed")
        line.ready = False
        with pytest.raises(UaError, match="BadInvalidState"):
            await call(client, "Trigger", "")
        assert await read(client, "Line.Missed") == [before + 1]
        await until(client, "Line.Ready", False)

    with_client(port, work)


def test_recipe_is_selected_by_name_or_number_and_one_that_there_is_not_is_refused(sink, line, port):
    async def work(client: Client) -> None:
        await call(client, "SelectRecipe", "12")
        await until(client, "Line.RecipeId", 12)
        assert await read(client, "Line.Recipe") == ["recipe 12"]
        with pytest.raises(UaError, match="BadNotFound"):
            await call(client, "SelectRecipe", "99")
        assert line.recipes == ["12"]

    with_client(port, work)


@pytest.mark.parametrize("method", ["Trigger", "SelectRecipe"])
def test_wrong_arguments_are_refused_by_their_own_codes(sink, line, port, caplog, method: str):
    text, number = ua.Variant("A-17", ua.VariantType.String), ua.Variant(17, ua.VariantType.Int32)
    long = ua.Variant("x" * 5000, ua.VariantType.String)
    several = ua.Variant(["A", "B"], ua.VariantType.String)

    async def codes(client: Client, *arguments: ua.Variant) -> list[str]:
        space = await client.get_namespace_index("urn:stlm-edge:line")
        request = ua.CallMethodRequest(ua.NodeId("Line", space), ua.NodeId(f"Line.{method}", space), list(arguments))
        (result,) = await client.uaclient.call([request])
        return [code.name for code in (result.StatusCode, *result.InputArgumentResults)]

    async def work(client: Client) -> None:
        assert (await codes(client))[0] == "BadArgumentsMissing"
        assert (await codes(client, text, text))[0] == "BadTooManyArguments"
        for wrong in (number, several):
            assert await codes(client, wrong) == ["BadInvalidArgument", "BadTypeMismatch"]
        assert await codes(client, long) == ["BadInvalidArgument", "BadOutOfRange"]
        assert (await codes(client, text))[0] == "Good"

    with_client(port, work)
    assert line.triggered + line.recipes == ["A-17"]
    assert all(len(record.getMessage()) < 300 for record in caplog.records)


def test_line_that_hangs_is_in_error_and_its_heartbeat_stands(sink, line, port):
    async def work(client: Client) -> None:
        state = "VisionSystem.VisionStateMachine.CurrentState"
        await until(client, state, ua.LocalizedText("Operational"))
        line.progress_s = time.monotonic() - 60
        await until(client, state, ua.LocalizedText("Error"))
        await until(client, "Line.Ready", False)
        beat = await read(client, "Line.Heartbeat")
        await asyncio.sleep(0.7)
        assert await read(client, "Line.Heartbeat") == beat

    with_client(port, work)


def test_values_are_not_for_clients_to_write(sink, line, port):
    async def work(client: Client) -> None:
        space = await client.get_namespace_index("urn:stlm-edge:line")
        with pytest.raises(UaError, match=r"BadUserAccessDenied|BadNotWritable"):
            await client.get_node(ua.NodeId("Line.Result", space)).write_value(True)

    with_client(port, work)


def test_subscription_tells_each_part_once_and_in_order(sink, line, port):
    seen: list[int] = []

    class Handler:
        def datachange_notification(self, node: Any, value: int, data: Any) -> None:
            seen.append(value)

    async def work(client: Client) -> None:
        space = await client.get_namespace_index("urn:stlm-edge:line")
        node = client.get_node(ua.NodeId("Line.PartNumber", space))
        subscription = await client.create_subscription(20, Handler())
        await subscription.subscribe_data_change(node, queuesize=1000)
        for number in range(100, 200):
            await asyncio.to_thread(sink.write_part, part(number))
        end_s = time.monotonic() + 10
        while seen[-1:] != [199] and time.monotonic() < end_s:
            await asyncio.sleep(0.02)

    with_client(port, work)
    assert [number for number in seen if number >= 100] == list(range(100, 200))


def test_state_tells_how_many_listen(sink, line, port):
    async def work(client: Client) -> str:
        return sink.state

    assert with_client(port, work).startswith(f"listens on 127.0.0.1:{port}, 1 client, ")


def test_line_that_is_not_controlled_refuses_triggers():
    port = free_port()

    async def work(client: Client) -> None:
        mode = "VisionSystem.VisionStateMachine.AutomaticModeStateMachine.CurrentState"
        await until(client, mode, ua.LocalizedText("Initialized"))
        with pytest.raises(UaError, match="BadInvalidState"):
            await call(client, "Trigger", "")

    with open_sink(f"opcua://:{port}?{OPEN}", context=SinkContext(engine_sha256=ENGINE, has_parts=True)):
        with_client(port, work)


def test_by_default_one_must_log_in_over_an_encrypted_connection(tmp_path, caplog):
    port = free_port()
    login, folder = tmp_path / "login", tmp_path / "data" / "certificates"
    login.write_text("plc:sesame: open\n")
    uri = f"opcua://127.0.0.1:{port}?login={login}&certificates={folder}"

    async def connect(user: str | None, password: str | None, *, encrypts: bool = True) -> Any:
        client = Client(f"opc.tcp://127.0.0.1:{port}/", timeout=10)
        client.application_uri = CLIENT_URI
        if encrypts:
            key, certificate = tmp_path / "client.pem", tmp_path / "client.der"
            uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
            await setup_self_signed_certificate(key, certificate, CLIENT_URI, socket.gethostname(), uses, {})
            await client.set_security(SecurityPolicyBasic256Sha256, certificate, key)
        if user is not None:
            client.set_user(user)
            client.set_password(password or "")
        async with client:
            return (await read(client, "Line.ResultsValid"))[0]

    for _ in range(2):  # a second start keeps the certificate
        with open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True)):
            assert asyncio.run(connect("plc", "sesame: open")) is False
            for user, password in (("plc", "sesame"), ("", "sesame: open"), (None, None)):
                with pytest.raises(Exception, match=r"BadUserAccessDenied|BadIdentityToken"):
                    asyncio.run(connect(user, password))
            with pytest.raises(Exception) as refused:
                asyncio.run(connect("plc", "sesame: open", encrypts=False))
            assert not isinstance(refused.value, AssertionError)
        kept = [(folder / name).read_bytes() for name in ("key.pem", "certificate.der")]
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert kept == [(folder / name).read_bytes() for name in ("key.pem", "certificate.der")]
    told = [record.getMessage() for record in caplog.records if "login of a client is wrong" in record.getMessage()]
    assert len(told) == 2  # of each start, the first of several
    assert not any("sesame" in text for text in told)


@pytest.mark.parametrize("activates", [True, False])
def test_client_that_leaves_encryption_out_by_itself_gets_no_further(tmp_path, activates):
    """One that asks for no endpoint, has the right login, and goes on without what it may skip."""
    port = free_port()
    (tmp_path / "login").write_text("plc:word")

    async def work() -> None:
        client = Client(f"opc.tcp://127.0.0.1:{port}/", timeout=5)
        await client.connect_socket()
        try:
            await client.send_hello()
            await client.open_secure_channel()
            session = ua.CreateSessionParameters(EndpointUrl="opc.tcp://127.0.0.1/", SessionName="x")
            session.ClientNonce, session.RequestedSessionTimeout = bytes(32), 10_000
            await client.uaclient.create_session(session)
            if activates:
                token = ua.UserNameIdentityToken(PolicyId="username", UserName="plc", Password=b"word")
                params = ua.ActivateSessionParameters(UserIdentityToken=token, LocaleIds=["en"])
                params.ClientSignature, params.UserTokenSignature = ua.SignatureData(), ua.SignatureData()
                await client.uaclient.activate_session(params)
            with pytest.raises(UaError, match="BadUserAccessDenied"):
                await client.nodes.objects.get_children()
            with pytest.raises(UaError, match="BadUserAccessDenied"):
                await call(client, "Trigger", "")
        finally:
            client.uaclient.disconnect_socket()

    line = FakeLine(judges=False)
    context = SinkContext(engine_sha256=ENGINE, has_parts=True, control=line)
    with open_sink(f"opcua://:{port}?login={tmp_path}/login&certificates={tmp_path}", context=context):
        asyncio.run(work())
    assert line.triggered == []
    line.end()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "key.pem").write_text("no key"), r"key\.pem cannot be used"),
        (lambda folder: (folder / "key.pem").chmod(0o644), r"may be read by others than its owner; chmod 600 "),
        (lambda folder: (folder / "certificate.der").write_bytes(b""), r"certificate\.der cannot be used"),
        (lambda folder: (folder / "key.pem").unlink(), r"certificate\.der cannot be used \(it is not that of key\.pem"),
    ],
)
def test_certificate_that_cannot_be_used_is_one_clear_line(tmp_path, spoil, message):
    from runtime.sinks.certificate import own_identity

    own_identity(tmp_path, host="127.0.0.1")
    spoil(tmp_path)
    with pytest.raises(OutputError, match=message) as error:
        own_identity(tmp_path, host="127.0.0.1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "lets nobody in: found no login, expected login=FILE"),
        ("security=none", "lets nobody in"),
        ("security=none&login={folder}/login", "would send passwords over the network as they are"),
        ("anonymous=1&login={folder}/login", "has a login and anonymous=1; leave one of them out"),
        ("anonymous=yes", "anonymous is 'yes', expected 1"),
        ("login={folder}/gone", "gone cannot be read .No such file or directory., expected USER:PASSWORD"),
        ("login={folder}/empty", "empty has no login, expected USER:PASSWORD"),
    ],
)
def test_who_may_come_in_must_be_said(tmp_path, monkeypatch, query, message):
    monkeypatch.delenv(LOGIN_VARIABLE, raising=False)
    (tmp_path / "login").write_text("user:word")
    (tmp_path / "empty").write_text("user:\n")
    uri = f"opcua://:{free_port()}?{query.format(folder=tmp_path)}"
    with pytest.raises(OutputError, match=message) as error:
        open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True))
    assert "word" not in str(error.value).replace("password", "")


def test_login_may_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(LOGIN_VARIABLE, "user:")
    uri = f"opcua://:{free_port()}?certificates={tmp_path}"
    with pytest.raises(OutputError, match=f"{LOGIN_VARIABLE} has no login"):
        open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True))
    monkeypatch.setenv(LOGIN_VARIABLE, "user:word")
    with open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True)) as sink:
        assert sink.state.startswith("listens on")


def test_taken_port_is_one_clear_line_and_found_without_opening(sink, port):
    with pytest.raises(OutputError, match="Address already in use"):
        check_outputs([f"opcua://:{port}?{OPEN}"])
    with pytest.raises(OutputError, match=rf"cannot listen on 127\.0\.0\.1 port {port} \(Address already in use\)"):
        open_sink(f"opcua://:{port}?{OPEN}", context=SinkContext(engine_sha256=ENGINE, has_parts=True))
