"""The certificate by which an OPC UA server is known, made at its first start and kept, since clients trust just it."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from asyncua.crypto.cert_gen import dump_private_key_as_pem, generate_private_key, generate_self_signed_app_certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from stlm_edge.errors import OutputError, shortly
from stlm_edge.files import home, replacing, write_bytes

logger = logging.getLogger(__name__)

KEY, CERTIFICATE = "key.pem", "certificate.der"
_ONLY_OWNER = 0o600
_DAYS = 3650
"""A line should not stop because a year is over; who wants less brings a certificate of their own."""


@dataclass(frozen=True)
class Identity:
    """A certificate, its private key, and the application URI that the certificate is for."""

    certificate: bytes
    key: bytes
    application_uri: str


def default_folder() -> Path:
    """`$XDG_DATA_HOME/stlm-edge/opcua`, by default `~/.local/share/stlm-edge/opcua`."""
    return Path(os.environ.get("XDG_DATA_HOME") or home() / ".local" / "share") / "stlm-edge" / "opcua"


def own_identity(folder: Path, *, host: str) -> Identity:
    """What lies in `folder`; where there is nothing it is made, the key for its owner's eyes only.

    Args:
        host: that the server listens on.
    Raises:
        OutputError: if the folder cannot be written to, or holds what cannot be used.
    """
    key_file, certificate_file = folder / KEY, folder / CERTIFICATE
    if not key_file.exists():
        with replacing(key_file) as temporary:
            temporary.chmod(_ONLY_OWNER)
            temporary.write_bytes(dump_private_key_as_pem(generate_private_key()))
    key, private_key = _read_key(key_file)
    if not certificate_file.exists():
        write_bytes(certificate_file, _make(private_key, host=host))
        logger.warning("%s was made for this server; have the clients of opcua:// trust it", certificate_file)
    try:
        data = certificate_file.read_bytes()
        certificate = x509.load_der_x509_certificate(data)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri, *_) = names.get_values_for_type(x509.UniformResourceIdentifier)
        if certificate.public_key() != private_key.public_key():
            raise ValueError(f"it is not that of {KEY}")
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise _unusable(certificate_file, "a certificate in DER with an application URI", error) from error
    now, end = datetime.datetime.now(datetime.timezone.utc), certificate.not_valid_after_utc
    if end < now:
        logger.warning("%s has expired on %s; clients may refuse it", certificate_file, end.date())
    return Identity(data, key, uri)


def _read_key(file: Path) -> tuple[bytes, rsa.RSAPrivateKey]:
    try:
        mode = file.stat().st_mode
        if mode & 0o077:
            raise OutputError(f"{file} may be read by others than its owner; chmod 600 {file}")
        data = file.read_bytes()
        key = load_pem_private_key(data, None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("it is for another algorithm")
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(file, "a private RSA key in PEM without a password", error) from error
    return data, key


def _make(key: rsa.RSAPrivateKey, *, host: str) -> bytes:
    """A self-signed certificate, in DER."""
    name = socket.gethostname()
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(f"urn:{name}:stlm-edge"),
        x509.DNSName(name),
        x509.DNSName("localhost"),
    ]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    made = generate_self_signed_app_certificate(
        key,
        "stlm-edge",
        {},
        names,
        extended=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        days=_DAYS,
    )
    der: bytes = made.public_bytes(Encoding.DER)
    return der


def _unusable(file: Path, expected: str, error: Exception) -> OutputError:
    return OutputError(
        f"{file} cannot be used ({shortly(error)}), expected {expected}; move {KEY} and {CERTIFICATE} away to have "
        "them made anew, and have the clients trust the new one"
    )
