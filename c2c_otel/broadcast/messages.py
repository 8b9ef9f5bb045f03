"""What travels: one JSON object for a question, one for each answer; bounded, dated, signed where there is a secret.

A question is what c2cwsgiutils publishes, and more; each optional field is missing where the sender is of that kind:

    {"signature": "<64 hex digits>",            first, where there is a secret: HMAC-SHA256 of the bytes after it
     "params": {...}, "answer_channel": "...",  the latter where answers are wanted
     "channel": "...", "id": "...", "deadline": 1700000000.5, "sender": "host/pid",
     "via": ["..."]}                            the channels whose callbacks have led to this question, if any

A question with an id is answered ``{"signature": ..., "id": ..., "sender": "host/pid", "answer": ...}``, without
``answer`` by a process that has no callback for the channel; one without id by the bare answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_CHANNEL_BYTES",
    "MAX_QUESTION_BYTES",
    "MAX_SECONDS",
    "NOTHING",
    "Answer",
    "Question",
    "Refused",
    "decode_answer",
    "decode_question",
    "encode_answer",
    "encode_question",
    "key_of",
    "new_id",
]

MAX_QUESTION_BYTES = 1 << 20
MAX_ANSWER_BYTES = 16 << 20  # dumps of memory
MAX_CHANNEL_BYTES = 1024
MAX_SECONDS = 3600.0
"""No question is valid for longer, so that a copied one is not either."""

_SIGNATURE = b'{"signature":"'
_DIGITS = 64


class _Nothing:
    """The answer of a process that has no callback for the channel."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = _Nothing()


class Refused(Exception):  # noqa: N818 - what happened to the message; nothing went wrong here
    """A message that is not acted upon. ``str()`` is why, one word: counted as ``broadcast.refused.{why}``."""


class Question(NamedTuple):
    """``id``, ``sender`` and ``via`` are empty, ``deadline`` (epoch seconds) is infinite where nothing was told."""

    channel: str
    params: dict[str, Any]
    answer_channel: str | None
    id: str
    deadline: float
    sender: str
    via: tuple[str, ...] = ()


class Answer(NamedTuple):
    """``value`` is `NOTHING` where there was no callback. ``sender`` is empty where it cannot be told."""

    sender: str
    value: Any


def key_of(secret: str | None, prefix: str = "") -> bytes | None:
    """The key that signs the messages of the service with this secret and channel prefix; None: they are not signed."""
    if not secret:
        return None
    return hmac.digest(secret.encode(), b"c2c-otel broadcast\0" + prefix.encode(), hashlib.sha256)


def new_id(sender_token: str = "") -> str:
    """The id of a question; begins with what its sender recognises its own by."""
    return sender_token + os.urandom(8).hex()


def encode_question(question: Question, key: bytes | None) -> bytes:
    """The bytes of a question. Raises TypeError where the params are not JSON, ValueError where they, or the channel's
    name, are too large."""
    if len(question.channel.encode()) > MAX_CHANNEL_BYTES:
        raise ValueError(f"The channel {question.channel[:50]!r}... has more than {MAX_CHANNEL_BYTES} bytes.")
    fields: dict[str, Any] = {"params": question.params}
    if question.answer_channel is not None:
        fields["answer_channel"] = question.answer_channel
    fields |= {
        "channel": question.channel,
        "id": question.id,
        "deadline": question.deadline,
        "sender": question.sender,
    }
    if question.via:
        fields["via"] = question.via
    message = _signed(b"question", fields, key)
    if len(message) > MAX_QUESTION_BYTES:
        raise ValueError(
            f"The parameters of the broadcast on {question.channel!r} make a message of {len(message)} bytes; "
            f"expected at most {MAX_QUESTION_BYTES}."
        )
    return message


def decode_question(message: bytes, channel: str, key: bytes | None, now: float) -> Question:
    """A question that came on this channel at this time. Raises `Refused`: oversized, unsigned, forged, garbage, astray
    (signed for another channel), late."""
    if len(message) > MAX_QUESTION_BYTES:
        raise Refused("oversized")
    fields = _fields(b"question", message, key)
    params = fields.get("params", {})
    answer_channel = fields.get("answer_channel")
    identity, sender = fields.get("id", ""), fields.get("sender", "")
    deadline, via = fields.get("deadline", float("inf")), fields.get("via", [])
    checked = ((params, dict), (deadline, int | float), (via, list))
    texts = isinstance(identity, str) and isinstance(sender, str) and isinstance(answer_channel, str | None)
    if not texts or not all(isinstance(value, kind) for value, kind in checked):
        raise Refused("garbage")
    if fields.get("channel", channel) != channel:
        raise Refused("astray")
    if key is not None and not (identity and "channel" in fields):
        raise Refused("garbage")
    if identity and not deadline <= now + MAX_SECONDS:
        raise Refused("garbage")
    if not deadline >= now:  # NaN, too
        raise Refused("late")
    return Question(channel, params, answer_channel, identity, deadline, sender, tuple(map(str, via)))


def encode_answer(question: Question, sender: str, value: Any, key: bytes | None) -> bytes:
    """The bytes of an answer; of a status 500 in its place where it is not JSON or too large."""
    try:
        message = _answer(question, sender, value, key)
        if len(message) <= MAX_ANSWER_BYTES:
            return message
        reason = f"The answer has {len(message)} bytes; expected at most {MAX_ANSWER_BYTES}."
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"The answer is not JSON: {error}"
    return _answer(question, sender, {"status": 500, "message": reason}, key)


def _answer(question: Question, sender: str, value: Any, key: bytes | None) -> bytes:
    if not question.id:
        return _dumps(None if value is NOTHING else value)
    fields = {"id": question.id, "sender": sender}
    if value is not NOTHING:
        fields["answer"] = value
    return _signed(b"answer", fields, key)


def decode_answer(message: bytes, identity: str, key: bytes | None) -> Answer:
    """An answer to the question of this id. Raises `Refused`: oversized, unsigned, forged, garbage, astray (to another
    question). A bare one (c2cwsgiutils) is taken where nothing is signed."""
    if len(message) > MAX_ANSWER_BYTES:
        raise Refused("oversized")
    value = _verified(b"answer", message, key)
    if not isinstance(value, dict) or not {"id", "sender"} <= value.keys() or value.keys() - _ANSWER_FIELDS:
        if key is not None:
            raise Refused("garbage")
        return Answer(_told_by(value), value)
    if value["id"] != identity:
        raise Refused("astray")
    if not isinstance(value["sender"], str):
        raise Refused("garbage")
    return Answer(value["sender"], value.get("answer", NOTHING))


_ANSWER_FIELDS = {"signature", "id", "sender", "answer"}


def _told_by(value: Any) -> str:
    """The name of who has put its host name and pid into a bare answer."""
    return (
        f"{value['hostname']}/{value['pid']}" if isinstance(value, dict) and {"hostname", "pid"} <= value.keys() else ""
    )


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _signed(kind: bytes, fields: Mapping[str, Any], key: bytes | None) -> bytes:
    body = _dumps(fields)
    if key is None:
        return body
    return _SIGNATURE + _signature(kind, body[1:], key) + b'",' + body[1:]


def _signature(kind: bytes, rest: bytes, key: bytes) -> bytes:
    """Of what follows the signature in a message. An answer's is never that of a question."""
    digest = hmac.new(key, kind + b"\0", hashlib.sha256)
    digest.update(rest)
    return digest.hexdigest().encode()


def _verified(kind: bytes, message: bytes, key: bytes | None) -> Any:
    if key is not None:
        end = len(_SIGNATURE) + _DIGITS
        if not message.startswith(_SIGNATURE) or message[end : end + 2] != b'",':
            raise Refused("unsigned")
        if not hmac.compare_digest(message[len(_SIGNATURE) : end], _signature(kind, message[end + 2 :], key)):
            raise Refused("forged")
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise Refused("garbage") from None


def _fields(kind: bytes, message: bytes, key: bytes | None) -> dict[str, Any]:
    value = _verified(kind, message, key)
    if not isinstance(value, dict):
        raise Refused("garbage")
    return value
