"""Who comes in to `opcua://`: logins, encryption, certificates."""

from __future__ import annotations

import asyncio
import socket
import stat
from typing import Any

import pytest

pytest.importorskip("asyncua", reason="needs the extra opcua")

from asyncua import Client, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError
from cryptography.x509.oid import ExtendedKeyUsageOID

from runtime.sinks import SinkContext, open_sink
from runtime.sinks.opcua_access import LOGIN_VARIABLE
from stlm_edge.errors import OutputError

from .cable import free_port
from .conftest import ENGINE
from .fake_line import FakeLine
from .test_opcua import call, read

pytestmark = pytest.mark.heavy

CLIENT_URI = "urn:client"


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
