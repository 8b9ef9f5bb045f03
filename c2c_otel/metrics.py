"""Numbers that are read when Prometheus asks for them: providers.

    from c2c_otel.metrics import Provider, add_provider

    class Queue(Provider):
        def __init__(self):
            super().__init__("queue_length", "Jobs that wait")

        def get_data(self):
            return [({"queue": "mail"}, len(mail))]

    add_provider(Queue())

Each worker reads its providers about once a second and before it answers a scrape. Of a gauge that several workers
tell, the latest reading is shown; a counter is the sum of what they tell. `MemoryMapProvider` is there by default.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_otel import smaps

__all__ = ["MemoryMapProvider", "Provider", "add_provider", "providers"]

Data = Iterable[tuple[Mapping[str, Any], float]]

# A pod of a Kubernetes deployment is named deployment-templatehash-id; both are made of these letters and digits
# (older clusters: a hexadecimal hash).
_POD = re.compile(r"(?P<service>.+)-(?:[0-9a-f]{6,10}|[bcdfghjklmnpqrstvwxz0-9]{6,10})-[a-z0-9]{5}")


class Provider:
    """One metric of this process; `get_data` is overridden.

    ``type_``: ``gauge``, or ``counter`` for a total that only grows. With ``extend``, in a Kubernetes pod each label
    set gets ``pod_name`` and ``service_name``, made from the host name; a label of the same name stays.
    """

    def __init__(self, name: str, help_: str, type_: str = "gauge", extend: bool = True) -> None:
        self.name = name
        self.help = help_
        self.type = type_
        self.extend = extend

    def get_data(self) -> Data:
        """Label sets and values as they are now: ``[({"queue": "mail"}, 3)]``. Label values may be anything."""
        raise NotImplementedError

    def labelled(self) -> Data:
        """`get_data`, extended if that is asked for."""
        more = _pod_labels(socket.gethostname()) if self.extend else {}
        return [({**more, **labels}, value) for labels, value in self.get_data()]


@functools.lru_cache(maxsize=4)
def _pod_labels(hostname: str) -> Mapping[str, str]:
    match = _POD.fullmatch(hostname)
    return {"pod_name": hostname, "service_name": match["service"]} if match else {}


class MemoryMapProvider(Provider):
    """``pod_process_smap_{memory_type}_kb{pid,name}``: memory in KiB of each process, by what is mapped.

    ``memory_type``: ``pss`` (shared pages are divided among those who share them), ``rss`` or ``size`` (addresses).
    ``pids``: by default this process and, in a worker, gunicorn's arbiter, so all workers together tell of the whole
    service. ``name``: the file, what the kernel calls the mapping (``[heap]``), or ``[anon]``; mappings of one name
    are added up, those without any pages are left out, as are processes that are gone or may not be read.

    The kernel needs about a millisecond for each process, so its answer is used for ``refresh_seconds``.
    """

    def __init__(
        self, memory_type: str = "pss", pids: Iterable[int | str] | None = None, refresh_seconds: float = 10.0
    ) -> None:
        if memory_type not in smaps.FIELDS:
            raise ValueError(f"memory_type is {memory_type!r}; expected pss, rss or size")
        super().__init__(
            f"pod_process_smap_{memory_type}_kb", f"Memory of the processes of this service, {memory_type}, in KiB."
        )
        self.memory_type = memory_type
        self.pids: Sequence[str] | None = None if pids is None else [str(pid) for pid in pids]
        self._refresh_seconds = refresh_seconds
        self._read: tuple[float, int, list[tuple[Mapping[str, Any], float]]] | None = None

    def get_data(self) -> Data:
        now, own = time.monotonic(), os.getpid()
        if self._read is None or self._read[1] != own or now - self._read[0] >= self._refresh_seconds:
            self._read = (now, own, list(self._measure()))
        return self._read[2]

    def _measure(self) -> Iterator[tuple[Mapping[str, Any], float]]:
        for pid in _own_pids() if self.pids is None else self.pids:
            try:
                mappings = smaps.read(pid, self.memory_type)
            except OSError:  # gone, or somebody else's
                continue
            for name, sizes in mappings.items():
                if size := sizes[self.memory_type]:
                    yield {"pid": pid, "name": name}, size


def _own_pids() -> list[str]:
    own, parent = str(os.getpid()), str(os.getppid())
    return [own, parent] if "gunicorn.arbiter" in sys.modules and _same_program(own, parent) else [own]


def _same_program(pid: str, other: str) -> bool:
    """Whether both run one executable, as a forked worker and its arbiter do."""
    try:
        return Path(f"/proc/{pid}/exe").readlink() == Path(f"/proc/{other}/exe").readlink()
    except OSError:  # gone, or somebody else's
        return False


providers: list[Provider] = [MemoryMapProvider()]
"""What this process publishes; read anew each time."""


def add_provider(provider: Provider) -> None:
    """Publish this too. One of the same name is replaced."""
    providers[:] = [other for other in providers if other.name != provider.name] + [provider]
