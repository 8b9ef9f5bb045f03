"""What the channels in Redis are called. Pure.

A question goes to ``{prefix}{channel}``. Who hears it can be counted there, but not named; so each process is
subscribed to channels on which nothing is ever sent, and whose names are the list of who hears what:

    {prefix}node:{hostname}/{pid}/{token}:            each process, for as long as it listens
    {prefix}node:{hostname}/{pid}/{token}:{channel}   and for each of its channels

Redis itself takes a process off this list when its connection ends.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

__all__ = ["Listed", "Names"]

_GLOB = re.compile(rb"([\\*?\[\]^])")
_LISTED = re.compile(rb"([^:]*)/([0-9a-f]+):(.*)", re.DOTALL)


class Listed(NamedTuple):
    """One who hears a channel (empty: takes part at all). ``name`` is ``hostname/pid``, ``token`` makes it unique."""

    name: str
    token: str
    channel: str


class Names:
    """The names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._bytes = prefix.encode()
        self._nodes = self._bytes + b"node:"

    def question(self, channel: str) -> bytes:
        """Where the questions of a channel are published."""
        return self._bytes + channel.encode(errors="surrogateescape")

    def channel(self, name: bytes) -> str:
        """The other way."""
        return name.removeprefix(self._bytes).decode(errors="surrogateescape")

    def presence(self, name: str, token: str, channel: str = "") -> bytes:
        """What a process is subscribed to, to be found in the list."""
        member = f"{quote(name, safe='/')}/{token}:{channel}"
        return self._nodes + member.encode(errors="surrogateescape")

    def pattern(self, channel: str = "") -> bytes:
        """For ``PUBSUB CHANNELS``: all who hear the channel."""
        text = channel.encode(errors="surrogateescape")
        return _escaped(self._nodes) + b"*:" + _escaped(text)

    def listed(self, answer: list[bytes], channel: str = "") -> list[Listed]:
        """Those who hear it, in what `pattern` has found."""
        found = []
        for name in answer:
            match = _LISTED.fullmatch(name, len(self._nodes)) if name.startswith(self._nodes) else None
            if match is not None:
                one = Listed(
                    unquote(match[1].decode(errors="replace")),
                    match[2].decode(),
                    match[3].decode(errors="surrogateescape"),
                )
                if one.channel == channel:
                    found.append(one)
        return found


def _escaped(text: bytes) -> bytes:
    return _GLOB.sub(rb"\\\1", text)
