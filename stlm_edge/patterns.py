"""Regular expressions that a user gives, without a heavy import: the settings of a training have one."""

from __future__ import annotations

import re

from stlm_edge.errors import ConfigError, shown


def compiled(pattern: str) -> re.Pattern[str]:
    """What finds the part in a picture's name. Raises `ConfigError` if it is no regular expression."""
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"--group-by is {shown(pattern)}, expected a regular expression ({error}); for example '^(tile[0-9]+)_'"
        ) from None
