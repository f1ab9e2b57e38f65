"""Name under which this process acts: that of its trusted key, otherwise that of the operating system's user."""

from __future__ import annotations

import os
import pwd

from vqbet.signing import keys, trust


def who() -> str:
    """Return the holder's name of the trusted key that $VQBET_KEY names, else the name of the operating system's user.

    LOGNAME and USER are ignored because anyone can set them. Raises SigningError for a bad key or trust file.
    """
    key, trusted = keys.configured(), trust.current()
    holder = trusted.holders.get(key.id) if key and trusted else None
    return holder.name if holder else user()


def user() -> str:
    """Return the name of this process's user id, or "uid 1234" if the system has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
