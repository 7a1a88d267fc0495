"""A browser for the tests of pages."""

import os
import shutil
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def browser() -> str:
    """Debian's chromium; installed where it is missing and may be."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if browser := next(found, None):
        return browser
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no chromium, and no right to install Debian's")
    print("\nno chromium: apt-get install chromium", file=sys.stderr, flush=True)
    update = ["apt-get", "update", "-qq"]
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (update, install):  # of the two the second tells: one list of many may fail
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode != 0:
        pytest.skip(f"no chromium: {' '.join(install)}: {done.stderr.strip()[-300:]}")
    return "/usr/bin/chromium"
