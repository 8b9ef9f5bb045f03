"""What c2c-otel-check-es asks an Elasticsearch (6 and newer) or OpenSearch: two searches, over plain HTTP."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from c2c_otel.http_call import CallError, basic, call, split_url

__all__ = ["Indexes"]


class Indexes:
    """Some indexes of a server.

    ``auth``: ``user:password``, or the value of an Authorization header (``ApiKey ...``); credentials in the URL are
    understood, too. Raises ValueError for a URL that cannot be used; the methods raise
    `c2c_otel.http_call.CallError`, an OSError, for what is not the answer of an Elasticsearch.
    """

    def __init__(self, url: str, names: str, auth: str | None = None, *, timeout: float = 30.0) -> None:
        split_url(url)
        self._url = f"{url.rstrip('/')}/{urllib.parse.quote(names, safe='*,')}/_search"
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if auth:
            user, _, password = auth.partition(":")
            self._headers["Authorization"] = auth if " " in auth.strip() else basic(user, password)
        self._timeout = timeout

    def newest(self, filters: Iterable[tuple[str, str]] = ()) -> float | None:
        """The latest ``@timestamp`` of the entries with these values, as unix time in seconds; None without any."""
        query: dict[str, Any] = {"size": 0, "aggs": {"newest": {"max": {"field": "@timestamp"}}}}
        terms = [{"term": {name: value}} for name, value in filters]
        if terms:
            query["query"] = {"bool": {"filter": terms}}
        value = _at(self._search(query), "aggregations", "newest", "value")
        return None if value is None else _number(value) / 1000

    def has(self, field: str, value: str) -> bool:
        """Whether there is an entry with this value."""
        answer = self._search({"size": 0, "query": {"match_phrase": {field: value}}})
        total = _at(answer, "hits", "total")  # a number until version 6
        return _number(_at(total, "value") if isinstance(total, Mapping) else total) > 0

    def _search(self, query: Mapping[str, Any]) -> Any:
        body = json.dumps(query).encode()
        answer = call("POST", self._url, body, self._headers, timeout=self._timeout)
        try:
            return json.loads(answer)
        except ValueError:
            raise CallError(f"POST {split_url(self._url)[0]}: the answer is not JSON: {answer[:100]!r}") from None


def _at(answer: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(answer, Mapping) or name not in answer:
            raise CallError(f"the answer has no {'.'.join(path)}; expected that of an Elasticsearch")
        answer = answer[name]
    return answer


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CallError(f"the answer has {value!r} for a number; expected that of an Elasticsearch")
    return float(value)
