"""One connection to an MQTT broker, kept up, through which what waits in an outbox is sent in order."""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from runtime.closing import Closing
from runtime.sinks.access import why_untrusted
from runtime.sinks.outbox import Outbox
from runtime.sources.network import why_unreachable
from runtime.timing import Seldom
from stlm_edge.errors import OutputError, StlmError, counted, shortly

logger = logging.getLogger(__name__)

ONLINE, OFFLINE = "online", "offline"

_ANSWERS_WITHIN_S = 5.0
_KEEPALIVE_S = 15
_LAST_SENT_WITHIN_S = 5.0
"""How long an end of the program waits until the broker has what waits."""
_RETRIED_AFTER_S = (0.1, 10.0)
"""The first and the longest wait between two attempts to reach a broker."""
_IN_FLIGHT = 20
"""Messages that are sent before the first of them is acknowledged."""
_UNAVAILABLE = "Server unavailable"

Command = Callable[[bytes], None]


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and how one is let in.

    Attributes:
        name: for messages.
        base: the topic below which everything is published.
        tls: None for a connection that is not encrypted.
        client_id: empty for one that is drawn.
    """

    name: str
    host: str
    port: int
    base: str
    user: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    client_id: str = ""


class _AwayError(Exception):
    """The broker cannot be reached now; for people."""


class _RefusedError(_AwayError):
    """It can be reached and will not have us, which does not change by itself."""


class Connection(Closing):
    """Sends the messages of an outbox to `BASE/<kind>` at QoS 1, in order, each until the broker has it.

    `BASE/status` is `online` or `offline`, retained; the broker says the latter itself when the program is gone (its
    last will). A lost connection is made again without end, and what was not acknowledged is sent again.

    Whoever sends does so at once on its own thread; a thread of the connection reads, keeps it up, and runs commands.
    One lock is held for all that is asked of the client, which never waits for the network meanwhile.
    """

    def __init__(self, broker: Broker, outbox: Outbox, *, commands: Mapping[str, Command]) -> None:
        """Connect. A broker that is away is no error; it is tried again from then on.

        Args:
            outbox: is not closed by this.
            commands: topic below the base → what is done with a payload, on the connection's own thread.
        Raises:
            OutputError: if the broker refuses us: the login, the certificate.
        """
        self._broker = broker
        self._outbox = outbox
        self._commands = dict(commands)
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._sent = 0
        self._in_flight: dict[int, int] = {}
        """Number that the client gave a message → number in the outbox."""
        self._answer: ReasonCode | None = None
        self._asked: list[tuple[str, bytes]] = []
        self._farewell: int | None = None
        self._is_ending = False
        self._away_since_s = time.monotonic()
        self._away: str | None = None
        self._away_log = Seldom()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        first: Client | None = None
        try:
            first = self._connect()
        except _RefusedError as error:
            self._close_pipe()
            raise OutputError(f"{broker.name}: {error}") from None
        except _AwayError as error:
            self._tell_away(error)
        self._thread = threading.Thread(target=self._run, args=(first,), name=f"mqtt {broker.name}", daemon=True)
        self._thread.start()

    @property
    def away(self) -> str | None:
        """Why the broker is away, for people; None while it is there."""
        return self._away

    @property
    def away_s(self) -> float:
        """For how long it has been."""
        return time.monotonic() - self._away_since_s

    def send(self) -> None:
        """Send what has come into the outbox, on this thread, if the broker is there. Raises `OutputError`."""
        with self._lock:
            self._send_waiting()
            needs_help = self._client is not None and self._client.want_write()
        if self._away is not None:  # while it is there, nothing waits for long, and no result is to wait for the disk
            self._outbox.keep_saved()
        if needs_help:  # the network is slow: the connection's thread waits for it
            self._wake()

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and say that we are offline; the rest stays in the outbox."""
        if self._is_ending:
            return
        self._is_ending = True
        self._end_s = time.monotonic() + _LAST_SENT_WITHIN_S
        self._wake()
        self._thread.join()
        self._close_pipe()

    def _run(self, client: Client | None) -> None:
        wait_s = _RETRIED_AFTER_S[0]
        while True:
            try:
                if client is None:
                    if self._is_ending:
                        return
                    client = self._connect()
                wait_s = _RETRIED_AFTER_S[0]
                if self._serve(client):
                    return
            except (_AwayError, OSError, StlmError) as error:
                self._tell_away(error)
            except Exception as error:  # a mistake of ours or the library's must not end the hand-over
                logger.debug("", exc_info=True)
                self._tell_away(_AwayError(f"{type(error).__name__}: {shortly(error)}"))
            with self._lock:
                left, client, self._client = client, None, None
                self._in_flight.clear()
            if left is not None:
                with suppress(OSError):
                    _close(left)
            self._sleep(wait_s)
            wait_s = min(2 * wait_s, _RETRIED_AFTER_S[1])

    def _connect(self) -> Client:
        """A client that the broker has let in. Raises `_AwayError`."""
        broker = self._broker
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id or f"stlm-{os.urandom(8).hex()}",
            reconnect_on_failure=False,
        )
        client.connect_timeout = _ANSWERS_WITHIN_S
        client.max_inflight_messages_set(2 * _IN_FLIGHT)
        client.will_set(f"{broker.base}/status", OFFLINE, qos=1, retain=True)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        self._answer = None
        try:
            self._greet(client)
        except BaseException:
            _close(client)
            raise
        return client

    def _greet(self, client: Client) -> None:
        broker = self._broker
        try:
            client.connect(broker.host, broker.port, keepalive=_KEEPALIVE_S)
            self._await_answer(client)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise _AwayError("it ends the connection before it is encrypted") from error
        except ssl.SSLCertVerificationError as error:
            raise _RefusedError(why_untrusted(error, host=broker.host)) from error
        except ssl.SSLError as error:
            remedy = "is this its port for encrypted connections (8883)?"
            raise _RefusedError(f"the connection cannot be encrypted ({error.reason or error}); {remedy}") from error
        except (OSError, UnicodeError) as error:
            waited_s = _ANSWERS_WITHIN_S
            reason = why_unreachable(error, host=broker.host, port=broker.port, waited_s=waited_s, what="broker")
            raise _AwayError(reason) from error

    def _await_answer(self, client: Client) -> None:
        give_up_s = time.monotonic() + _ANSWERS_WITHIN_S
        while self._answer is None:
            if time.monotonic() > give_up_s or client.socket() is None:
                hint = (
                    " (does it want a certificate: cert=, key=?)" if self._broker.tls else " (does it want mqtts://?)"
                )
                does = "takes the connection and ends it" if client.socket() is None else "does not answer"
                raise _AwayError(f"it {does}{hint if client.socket() is None else ''}")
            if self._wait(client, 0.2)[0]:
                client.loop_read()
            if client.want_write():
                client.loop_write()
        if self._answer.is_failure:
            what = str(self._answer)
            if what == _UNAVAILABLE:
                raise _AwayError("it says that it is not available")
            raise _RefusedError(
                f"the broker refuses us ({what}), expected it to take the login; give it by login=FILE or "
                "STLM_MQTT_LOGIN as USER:PASSWORD"
            )

    def _serve(self, client: Client) -> bool:
        """Serve a connection until it is lost, or ended by us; whether it was that. Raises `_AwayError`."""
        with self._lock:
            self._outbox.save()
            self._client, self._sent = client, 0
            self._in_flight.clear()
            self._farewell = None
            client.publish(f"{self._broker.base}/status", ONLINE, qos=1, retain=True)
            if self._commands:
                client.subscribe([(f"{self._broker.base}/{name}", 2) for name in self._commands])
            self._tell_back()
            self._send_waiting()
        while True:
            is_readable, is_writable = self._wait(client, 0.2 if self._is_ending else 1.0)
            with self._lock:
                if is_readable:
                    client.loop_read()
                if is_writable:
                    client.loop_write()
                client.loop_misc()
                if client.socket() is None:
                    raise _AwayError("the connection was lost")
                self._send_waiting()
                asked, self._asked = self._asked, []
                if self._is_ending and self._said_farewell(client):
                    return True
            for name, payload in asked:  # without the lock, since the line may have something to send at once
                self._commands[name](payload)
            self._outbox.keep_saved()

    def _wait(self, client: Client, timeout_s: float) -> tuple[bool, bool]:
        """Until there is something to read or it can be written, or somebody wakes us."""
        connection = client.socket()
        if connection is None:
            return False, False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True, client.want_write()
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        poll.register(self._wake_read, select.POLLIN)
        ready = dict(poll.poll(1e3 * timeout_s))
        if ready.pop(self._wake_read, 0):
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        found = next(iter(ready.values()), 0)
        return bool(found & ~select.POLLOUT), bool(found & select.POLLOUT)

    def _send_waiting(self) -> None:
        """Hand the client what is next in the outbox, as far as the broker has acknowledged what was before."""
        client = self._client
        if client is None or self._farewell is not None:
            return
        while len(self._in_flight) < _IN_FLIGHT and (message := self._outbox.after(self._sent)) is not None:
            self._sent = message.number
            sent = client.publish(f"{self._broker.base}/{message.kind}", message.payload, qos=1)
            self._in_flight[sent.mid] = message.number
            if sent.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
                return

    def _said_farewell(self, client: Client) -> bool:
        """Say that we are offline once nothing waits any more; whether the broker has heard it, or will not."""
        is_late = time.monotonic() > self._end_s
        if self._farewell is None and (is_late or not len(self._outbox)):
            self._farewell = client.publish(f"{self._broker.base}/status", OFFLINE, qos=1, retain=True).mid
            self._end_s = time.monotonic() + 1
        elif self._farewell == -1 or (self._farewell is not None and is_late):
            _close(client)
            self._client = None
            return True
        return False

    def _tell_away(self, error: Exception) -> None:
        if self._away is None:
            self._away_since_s = time.monotonic()
        self._away = str(error)
        if self._away_log.is_due():
            logger.warning(
                "%s is away: %s; the line goes on, and its results wait in %s until it is back",
                self._broker.name,
                error,
                self._outbox.file.parent,
            )

    def _tell_back(self) -> None:
        if self._away is not None:
            waiting = counted(len(self._outbox), "message")
            logger.info("%s is there after %.1f s; %s waited", self._broker.name, self.away_s, waiting)
        self._away = None

    def _on_connect(
        self, _: Client, __: object, ___: ConnectFlags, answer: ReasonCode, ____: Properties | None
    ) -> None:
        self._answer = answer

    def _on_publish(self, _: Client, __: object, mid: int, ___: ReasonCode, ____: Properties) -> None:
        number = self._in_flight.pop(mid, None)
        if number is not None:
            self._outbox.done(number)
        elif mid == self._farewell:
            self._farewell = -1

    def _on_subscribe(
        self, _: Client, __: object, ___: int, answers: list[ReasonCode], ____: Properties | None
    ) -> None:
        for name, answer in zip(self._commands, answers, strict=False):
            if answer.is_failure:
                logger.error("%s does not let us listen to %s/%s", self._broker.name, self._broker.base, name)

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        name = message.topic.removeprefix(f"{self._broker.base}/")
        if message.retain:  # somebody's of once, and not asked of us now
            logger.warning("%s has a retained message on %s, which is not obeyed", self._broker.name, message.topic)
        elif name in self._commands:
            self._asked.append((name, bytes(message.payload)))

    def _wake(self) -> None:
        with suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"0")

    def _sleep(self, seconds: float) -> None:
        """Until the time is over, or the end is wanted."""
        over_s = time.monotonic() + seconds
        while not self._is_ending and (left_s := over_s - time.monotonic()) > 0:
            if select.select([self._wake_read], [], [], min(left_s, 1.0))[0]:
                os.read(self._wake_read, 4096)
            self._outbox.keep_saved()

    def _close_pipe(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


def _send_at_once(_: Client, __: object, connection: object) -> None:
    """Without waiting for an answer to what was sent before (Nagle's algorithm), which takes up to 40 ms."""
    assert isinstance(connection, socket.socket)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close(client: Client) -> None:
    """End a connection as one who means it."""
    client.disconnect()
    connection = client.socket()
    if connection is not None:
        connection.close()
