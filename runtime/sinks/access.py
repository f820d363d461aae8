"""How an output is let in by whom it sends to: login, certificates, and where its queue lies."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any

from runtime.options import first_line
from runtime.sinks.base import output_options
from runtime.sinks.outbox import DEFAULT_LIMIT, Outbox, open_outbox
from runtime.uri import Option, choice, size_in_bytes
from stlm_edge.credentials import keep_secret
from stlm_edge.errors import OutputError, StlmError

logger = logging.getLogger(__name__)

_FILE = Option(Path, "a file")

NETWORK_OPTIONS = {
    "login": _FILE,
    "ca": _FILE,
    "cert": _FILE,
    "key": _FILE,
    "queue": Option(Path, "a folder"),
    "limit": size_in_bytes(least=10**5),
    "snapshot": choice("0", "1"),
}
"""What all outputs to a network take behind the question mark."""

_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
"""OpenSSL's X509_V_ERR_…"""


def why_untrusted(error: ssl.SSLCertVerificationError, *, host: str) -> str:
    """What is wrong with the other side's certificate, and the remedy. Args: host: as it was called."""
    remedies = {
        _NOT_YET_VALID: "set the clock of this machine, or have it made anew",
        _EXPIRED: "have it renewed, or set the clock of this machine",
        _OTHER_NAME: f"call {host} by a name that the certificate has",
        _OTHER_ADDRESS: f"call {host} by a name that the certificate has",
    }
    remedy = remedies.get(error.verify_code, "name what it was signed by: ca=FILE.pem")
    return f"its certificate is not trusted ({error.verify_message.rstrip('.')}); {remedy}"


class NetworkOptions:
    """The options of an output to a network.

    Attributes:
        snapshot: pictures are wanted of parts that are not good.
        rest: options that only this kind of output has.
    """

    def __init__(self, query: str, *, name: str, more: dict[str, Option]) -> None:
        """
        Args:
            query: what stands behind the question mark.
            name: of the output, for messages.
            more: options besides `NETWORK_OPTIONS`.
        Raises:
            OutputError: if there is one that is not known or not right.
        """
        self._name = name
        self.rest: dict[str, Any] = output_options(f"{name.partition('?')[0]}?{query}", {**NETWORK_OPTIONS, **more})
        self._files: dict[str, Path | None] = {
            each: self.rest.pop(each, None) for each in ("login", "ca", "cert", "key")
        }
        self._queue: Path | None = self.rest.pop("queue", None)
        self._limit: int = self.rest.pop("limit", DEFAULT_LIMIT)
        self.snapshot: bool = self.rest.pop("snapshot", "0") == "1"

    def login(self, variable: str, *, expected: str, example: str) -> str | None:
        """The first line of the file that `login=` names, or what a variable of the environment has; None for neither.

        From here on it is hidden in all that is logged.

        Args:
            expected, example: what it should be, for people.
        Raises:
            OutputError: if the file cannot be read or has nothing in its first line.
        """
        file = self._files["login"]
        if file is None:
            found = os.environ.get(variable) or None
        else:
            try:
                found = first_line(str(file), expected=expected, example=example)
            except StlmError as error:
                raise OutputError(f"login= of {self._name}: {error}") from None
        if found is not None:
            keep_secret(found)
        return found

    def tls(self) -> ssl.SSLContext:
        """What checks the other side's certificate, by the system's authorities or those of `ca=`, and has ours.

        Raises:
            OutputError: if a file cannot be used.
        """
        ca, cert, key = (self._files[each] for each in ("ca", "cert", "key"))
        if key is not None and cert is None:
            raise OutputError(f"{self._name} has key= without cert=; name the certificate of that key too")
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise self._unusable("ca", error, expected="certificates of authorities in PEM") from error
        if cert is not None:
            try:
                context.load_cert_chain(cert, key, password=_no_password)
            except (OSError, ValueError) as error:
                expected = "a certificate in PEM and its key, without a password"
                raise self._unusable("cert", error, expected=expected) from error
        return context

    def refuse_certificates(self, scheme: str) -> None:
        """Raises `OutputError` if certificates are given to what knows none. Args: scheme: that does know them."""
        given = [each for each in ("ca", "cert", "key") if self._files[each] is not None]
        if given:
            raise OutputError(f"{self._name} has {given[0]}=, which is for encrypted connections; use {scheme}://")

    def warn_of_clear_login(self, login: str | None, *, host: str, scheme: str) -> None:
        """Say that a login travels as it is, if it leaves this machine. Args: scheme: that would encrypt it."""
        if login is not None and host not in ("localhost", "127.0.0.1", "::1"):
            logger.warning(
                "%s is sent its login unencrypted, for everybody on the network; better use %s://", self._name, scheme
            )

    def outbox(self, kind: str) -> Outbox:
        """The queue of this output. Raises `OutputError`."""
        return open_outbox(kind, self._name, folder=self._queue, limit=self._limit)

    def _unusable(self, option: str, error: Exception, *, expected: str) -> OutputError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return OutputError(f"{option}= of {self._name} cannot be used ({reason}), expected {expected}")


def _no_password() -> str:
    """Of a key, for which OpenSSL would ask at the terminal."""
    raise ValueError
