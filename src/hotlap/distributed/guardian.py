"""A process that ends what is left of a Ray started here when its driver has died.

Ray's own processes notice the death of a driver, but some take a minute over it, and none removes
the session's folder. Run as a script by `cluster.py`, with nothing imported but the standard
library, so that it costs little: it sleeps until the driver goes.

    guardian.py FOLDER PSUTIL    FOLDER: Ray's temporary folder; PSUTIL: where psutil is found
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import shutil
import sys
import time
from typing import Any

TICK = 0.5
"""Seconds between two looks at the parent."""

GRACE = 1.0
"""Seconds that Ray has to end its processes itself."""

ATTEMPTS = 20
"""Rounds of searching, half a second apart: a process may be starting another as it is ended."""


def main(folder: str, psutil_folder: str) -> None:
    """Wait for the driver to go; then end every process that has a file of `folder` open."""
    driver = os.getppid()
    while os.getppid() == driver:
        ready, _, _ = select.select([sys.stdin], [], [], TICK)
        if ready and not sys.stdin.buffer.read(1):
            break
    time.sleep(GRACE)
    sys.path.append(psutil_folder)
    psutil = importlib.import_module("psutil")
    clean = 0
    for _ in range(ATTEMPTS):
        left = _users_of(folder, psutil)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        clean = 0 if left else clean + 1
        if clean == 2:
            break
        time.sleep(TICK)
    shutil.rmtree(folder, ignore_errors=True)


def _users_of(folder: str, psutil: Any) -> list[Any]:
    """Return the processes of this user that write into `folder`: Ray's all log there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid():
                continue
            opened = [file.path for file in process.open_files()]
            words = process.cmdline()
            if any(path.startswith(folder) for path in opened) or any(folder in w for w in words):
                found.append(process)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
