"""Numbers of jobs that end before Prometheus could scrape them: pushed to a Pushgateway.

>>> publisher = PushgatewayGroupPublisher("http://pushgateway:9091", "import", labels={"env": "prod"})
>>> publisher.add("import_points", 12, labels={"file": "a.gpx"})
>>> print(publisher, end="")
# TYPE import_points gauge
import_points{env="prod", file="a.gpx"} 12
"""

from __future__ import annotations

import base64
import math
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from c2c_otel.http_call import call, split_url

__all__ = ["PushgatewayGroupPublisher"]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TYPES = ("gauge", "counter", "untyped")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class PushgatewayGroupPublisher:
    """Collects samples and replaces a group of a Pushgateway by them: one PUT to
    ``{base_url}/metrics/job/{job}[/instance/{instance}]``.

    ``labels`` are on every sample; a sample's own win. Credentials in the URL are sent as basic authentication.
    Not thread-safe. Raises ValueError for a URL or job that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        job: str,
        instance: str | None = None,
        labels: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
    ) -> None:
        split_url(base_url)
        if not job:
            raise ValueError("job is ''; expected the name of a job")
        self._url = f"{base_url.rstrip('/')}/metrics{_grouping('job', job)}"
        if instance is not None:
            self._url += _grouping("instance", instance)
        self._labels = _checked(labels or {})
        self._timeout = timeout
        self._reset()

    def _reset(self) -> None:
        self._types: dict[str, str] = {}
        self._samples: dict[str, dict[str, str]] = {}

    def add(self, name: str, value: float, type: str = "gauge", labels: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the documented name
        """One sample. The same name and labels once more replace it: a group holds each series once.

        ``type``: gauge, counter or untyped. Raises ValueError for another one, for another one than the name has
        already, and for names and values that Prometheus does not have.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"name is {name!r}; expected letters, digits, '_' and ':', not a digit first")
        if type not in _TYPES:
            raise ValueError(f"type of {name} is {type!r}; expected one of {', '.join(_TYPES)}")
        if (known := self._types.get(name, type)) != type:
            raise ValueError(f"type of {name} is {type!r}; it was {known!r} before, and a name has one")
        series = _series(name, {**self._labels, **_checked(labels or {})})
        text = _number(name, value)
        self._types[name] = type
        self._samples.setdefault(name, {})[series] = text

    def __str__(self) -> str:
        """What would be pushed: Prometheus' text format, names in the order in which they came."""
        lines = []
        for name, samples in self._samples.items():
            lines.append(f"# TYPE {name} {self._types[name]}\n")
            lines += [f"{series} {value}\n" for series, value in samples.items()]
        return "".join(lines)

    def commit(self) -> None:
        """Push, and begin anew. Series that the group had and that were not added are gone from it.

        Raises `c2c_otel.http_call.CallError`, an OSError, for no answer or one that is not 2xx; then nothing is
        forgotten, and it may be tried again.
        """
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        call("PUT", self._url, str(self).encode(), headers, timeout=self._timeout)
        self._reset()


def _grouping(label: str, value: str) -> str:
    """One label of the grouping key in the URL. What a path cannot hold (slashes, nothing, dots that a server would
    take for directories) is written in base64, which the Pushgateway knows by the suffix of the label."""
    if "/" in value or value in ("", ".", ".."):
        return f"/{label}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"
    return f"/{label}/{urllib.parse.quote(value, safe='')}"


def _checked(labels: Mapping[str, Any]) -> dict[str, str]:
    for label in labels:
        if not _LABEL.fullmatch(label) or label.startswith("__"):
            raise ValueError(f"label is {label!r}; expected letters, digits and '_', not a digit or '__' first")
    return {label: str(value) for label, value in labels.items()}


def _series(name: str, labels: Mapping[str, str]) -> str:
    """The documented form has a blank after each comma."""
    if not labels:
        return name
    pairs = (f'{label}="{_escaped(labels[label])}"' for label in sorted(labels))
    return f"{name}{{{', '.join(pairs)}}}"


def _escaped(value: str) -> str:
    return value.encode("utf-8", "replace").decode().translate(_ESCAPES)  # a lone surrogate is no UTF-8


def _number(name: str, value: object) -> str:
    if isinstance(value, int):
        return str(int(value))
    try:
        number = float(value)  # type: ignore[arg-type] # what float() refuses is what the except is for
    except (TypeError, ValueError):
        raise ValueError(f"value of {name} is {value!r}; expected a number") from None
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    return repr(number)
