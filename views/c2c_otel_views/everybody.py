"""What views share that ask every process of the service."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pyramid.response import Response

from c2c_otel import broadcast
from c2c_otel.broadcast import Answers
from c2c_otel_views import answers

__all__ = ["MISSING", "answer", "ask"]

MISSING = "X-C2C-Missing"
"""The response header that names who did not answer: ``host/pid, host/pid``."""

_logger = logging.getLogger("c2c_otel")


def ask(channel: str, params: Mapping[str, Any], seconds: float) -> Answers:
    """What each process answers, None in the place of one that did not; who that was is said in the log."""
    found = broadcast.broadcast(channel, params, expect_answers=True, timeout=seconds)
    found = Answers() if found is None else found
    if found.missing:
        _logger.warning("%s: no answer from %s within %g s", channel, ", ".join(found.missing), seconds)
    return found


def answer(found: Answers, body: Any) -> Response:
    """The body as JSON, with the header `MISSING` where somebody did not answer."""
    response = answers.json_response(body)
    if found.missing:
        names = ", ".join(found.missing)
        response.headers[MISSING] = "".join(c if " " <= c <= "~" else "?" for c in names)
    return response
