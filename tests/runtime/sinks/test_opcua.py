"""`opcua://` as clients see it, by asyncua's own client."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("asyncua", reason="needs the extra opcua")

from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from runtime.part import PartVerdict
from runtime.sinks import FrameSink, SinkContext, check_outputs, open_sink
from stlm_edge.errors import OutputError

from .cable import free_port
from .conftest import ENGINE
from .fake_line import FakeLine, part

pytestmark = pytest.mark.heavy

OPEN = "anonymous=1&security=none"


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


def test_taken_port_is_one_clear_line_and_found_without_opening(sink, port):
    with pytest.raises(OutputError, match="Address already in use"):
        check_outputs([f"opcua://:{port}?{OPEN}"])
    with pytest.raises(OutputError, match=rf"cannot listen on 127\.0\.0\.1 port {port} \(Address already in use\)"):
        open_sink(f"opcua://:{port}?{OPEN}", context=SinkContext(engine_sha256=ENGINE, has_parts=True))
