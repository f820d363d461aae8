"""Who may come in to an OPC UA server, and with what its methods may be called."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from asyncua import ua
from asyncua.crypto.permission_rules import User, UserRole

from runtime.timing import Seldom
from stlm_edge.errors import ControlError, OutputError, counted, shown

logger = logging.getLogger(__name__)

LOGIN_VARIABLE = "STLM_OPCUA_LOGIN"
"""Of the environment: USER:PASSWORD, where no file has them."""

_LONGEST_LOGIN = 1024
_LONGEST_TEXT = 100


class Logins:
    """Lets clients in who have the login, as asyncua asks of a user manager; others are told of, once a minute."""

    def __init__(self, name: str, login: tuple[str, str] | None) -> None:
        """
        Args:
            name: of the output, in messages.
            login: user and password; None lets everybody in.
        """
        self._name = name
        self._login = login
        self._refused = 0
        self._log = Seldom()

    @property
    def lets_everybody_in(self) -> bool:
        """There is no login."""
        return self._login is None

    def get_user(
        self,
        _server: object,
        username: str | None = None,
        password: str | None = None,
        certificate: object = None,  # noqa: ARG002 - asyncua asks by these names
    ) -> User | None:
        """Who may come in; None for nobody."""
        if self._login is not None:
            given = (username or "", password or "")
            if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, self._login, strict=True)):
                self._tell()
                return None
        return User(role=UserRole.User)

    def _tell(self) -> None:
        """Without the name, in whose place people type passwords."""
        self._refused += 1
        if self._log.is_due():
            logger.warning(
                "%s: the login of a client is wrong, and it is not let in (%s refused since the start); check user and "
                "password there",
                self._name,
                counted(self._refused, "login"),
            )


class WrongArgument(ControlError):
    """A method was called with what it does not take. Attributes: answer: by the codes of OPC UA, part 4, 5.11.2."""

    def __init__(self, text: str, answer: ua.CallMethodResult) -> None:
        super().__init__(text)
        self.answer = answer


def text_argument(given: Sequence[ua.Variant]) -> str:
    """The one text that a method takes, empty for OPC UA's null. Raises `WrongArgument`."""
    codes = ua.StatusCodes
    if not given:
        raise _wrong("no argument", codes.BadArgumentsMissing)
    if len(given) > 1:
        raise _wrong(f"{len(given)} arguments", codes.BadTooManyArguments)
    value = given[0].Value
    if given[0].VariantType not in (ua.VariantType.String, ua.VariantType.Null) or not isinstance(value, str | None):
        raise _wrong(shown(value), codes.BadInvalidArgument, of_argument=codes.BadTypeMismatch)
    if value is not None and len(value) > _LONGEST_TEXT:
        raise _wrong(f"{len(value)} characters", codes.BadInvalidArgument, of_argument=codes.BadOutOfRange)
    return value or ""


def _wrong(found: str, code: int, *, of_argument: int | None = None) -> WrongArgument:
    answer = ua.CallMethodResult(StatusCode=ua.StatusCode(code))
    if of_argument is not None:
        answer.InputArgumentResults = [ua.StatusCode(of_argument)]
    return WrongArgument(f"found {found}, expected one text of {_LONGEST_TEXT} characters at most", answer)


def read_login(uri: str, file: Path | None, *, is_anonymous: bool) -> tuple[str, str] | None:
    """User and password that a client must have; None where everybody may come in. Raises `OutputError`."""
    found = os.environ.get(LOGIN_VARIABLE)
    if is_anonymous:
        if file is not None:
            raise OutputError(f"{uri} has a login and anonymous=1; leave one of them out")
        return None
    where = LOGIN_VARIABLE
    if file is not None:
        where = str(file)
        try:
            with file.open(encoding="utf-8-sig") as stream:
                found = stream.readline(_LONGEST_LOGIN).rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise OutputError(f"{file} cannot be read ({reason}), expected USER:PASSWORD in its first line") from None
    if found is None:
        raise OutputError(
            f"{uri} lets nobody in: found no login, expected login=FILE with USER:PASSWORD in its first line, or "
            f"{LOGIN_VARIABLE} in the environment; anonymous=1 lets everybody in"
        )
    user, colon, password = found.partition(":")
    if not (user and colon and password):
        raise OutputError(f"{where} has no login, expected USER:PASSWORD; write it there")
    return user, password
