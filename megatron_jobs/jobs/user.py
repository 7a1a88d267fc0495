"""Who is at work."""

import getpass
import os


def user_name() -> str:
    """The user's name; the number where the machine knows no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
