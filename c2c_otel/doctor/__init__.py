"""What is wrong with a service: before it starts, and while it runs. ``c2c-otel doctor`` shows it.

`presence` and `state` are the service's side: which processes there are, and what each says of itself. `before`,
`running` and `judge` are the side of who asks.
"""

from __future__ import annotations

__all__ = ["CHANNEL"]

CHANNEL = "c2c_doctor"
"""The broadcast channel on which each process answers with `state.report`."""
