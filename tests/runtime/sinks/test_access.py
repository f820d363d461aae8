"""What is said of a certificate that is not trusted: each fault has its own remedy."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import pytest

x509 = pytest.importorskip("cryptography.x509")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

from runtime.sinks.access import why_untrusted  # noqa: E402


def self_signed(folder: Path, *, name: str, years: tuple[int, int]) -> Path:
    """Certificate and key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    begin, end = (datetime(year, 1, 1) for year in years)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    file = folder / "broker.pem"
    private = key.private_bytes(pem, form, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(pem) + private)
    return file


def greet(file: Path, *, trusted: bool) -> None:
    """A handshake in memory with `localhost`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    context = ssl.create_default_context(cafile=file if trusted else None)
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize(
    ("name", "years", "trusted", "remedy"),
    [
        ("localhost", (2020, 2021), True, "have it renewed"),
        ("localhost", (2090, 2099), True, "set the clock"),
        ("other.factory", (2020, 2099), True, "call localhost by a name that the certificate has"),
        ("localhost", (2020, 2099), False, "ca=FILE.pem"),
    ],
)
def test_each_fault_of_a_certificate_has_its_own_remedy(
    tmp_path: Path, name: str, years: tuple[int, int], trusted: bool, remedy: str
) -> None:
    file = self_signed(tmp_path, name=name, years=years)
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        greet(file, trusted=trusted)
    said = why_untrusted(error.value, host="localhost")
    assert said.startswith("its certificate is not trusted (")
    assert remedy in said.partition("); ")[2]
