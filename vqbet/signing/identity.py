"""The name under which this process acts: of its trusted key, else of the operating system's user."""

from __future__ import annotations

import os
import pwd

from vqbet.signing import keys, trust


def who() -> str:
    """Return the name of the trusted key that $VQBET_KEY holds, else that of the operating system's user.

    Never from LOGNAME or USER, which anybody sets at will. Raises SigningError for a bad key or trust file.
    """
    key, trusted = keys.configured(), trust.current()
    holder = trusted.holders.get(key.id) if key and trusted else None
    return holder.name if holder else user()


def user() -> str:
    """Return the name of this process's user id, "uid 1234" where the system has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
