"""A look into running processes: where their threads are, and what is in their memory.

The views under ``{base}/debug/`` use it; a process that serves nothing (a queue worker, a cron job) takes part with
`init_daemon`:

    from c2c_otel import debug

    debug.init_daemon()
"""

from __future__ import annotations

from typing import Any

from c2c_otel import broadcast
from c2c_otel.debug.memory import dump_memory
from c2c_otel.debug.memory_maps import dump_memory_maps
from c2c_otel.debug.sizes import get_size
from c2c_otel.debug.stacks import dump_stacks
from c2c_otel.settings import Settings

__all__ = ["MEMORY", "STACKS", "dump_memory_maps", "get_size", "init", "init_daemon", "listen"]

STACKS = "c2c_dump_stacks"
MEMORY = "c2c_dump_memory"
"""The channels on which processes are asked."""


def listen() -> None:
    """Answer the debug views from this process, once it takes part in the broadcast. Idempotent."""
    broadcast.subscribe(STACKS, dump_stacks)
    broadcast.subscribe(MEMORY, dump_memory)


def init(config: Any = None) -> None:
    """Take part in the broadcast and answer the debug views, where ``C2C_DEBUG_VIEW_ENABLED`` is on. The include does
    it by itself. ``config``: a Pyramid Configurator whose settings count beside the environment. Raises
    `c2c_otel.settings.ConfigurationError`."""
    if Settings.load(ini=None if config is None else config.registry.settings).debug_view_enabled:
        listen()
        broadcast.init(config)


init_daemon = init
"""For processes that serve nothing."""
