"""Ends the process groups it was told of (``+pid``, ``-pid``) once its standard input closes, then removes the
directories it was told of (``/path``).

Run by `process.py` as a child of pytest: when pytest is killed without a chance to clean up, the servers go too.
"""

import os
import shutil
import signal
import sys
import time

groups: dict[int, None] = {}
directories: list[str] = []
for line in sys.stdin:
    if line.startswith("/"):
        directories.append(line.rstrip("\n"))
    elif line.startswith("+"):
        groups[int(line[1:])] = None
    else:
        groups.pop(int(line[1:]), None)
for number, pause in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.0)):
    for group in reversed(groups):
        try:
            os.killpg(group, number)
        except OSError:
            pass
    if groups:
        time.sleep(pause)
for directory in directories:
    shutil.rmtree(directory, ignore_errors=True)
