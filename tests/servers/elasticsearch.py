"""A stand-in for Elasticsearch, which can be had neither from PyPI nor npm nor Debian: a few documents, two searches.

It understands ``POST /{indexes}/_search`` with a ``max`` aggregation of a date, ``term`` filters and ``match_phrase``,
as the documentation of Elasticsearch describes them; everything else is answered with 400, as there.
"""

from __future__ import annotations

import fnmatch
import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["FakeElasticsearch"]


class FakeElasticsearch:
    """``with FakeElasticsearch() as es: es.add("logs-1", {"@timestamp": "2026-01-01T00:00:00Z"})``

    `version` 6 tells totals as numbers. `authorization`, where set, is asked of each request. `fail_next` answers.
    """

    def __init__(self, version: int = 8) -> None:
        self.version = version
        self.authorization: str | None = None
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._failures: list[tuple[int, bytes]] = []

    def add(self, index: str, document: dict[str, Any]) -> None:
        """One entry; fields of objects are named with dots."""
        self.documents.append((index, document))

    def fail_next(self, status: int, body: bytes = b"{}", times: int = 1) -> None:
        """So the next requests are answered."""
        self._failures += [(status, body)] * times

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = fake._answer(self.path, dict(self.headers.items()), body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-es")
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if self._failures:
            return self._failures.pop(0)
        if self.authorization is not None and headers.get("Authorization") != self.authorization:
            return 401, b'{"error": {"type": "security_exception"}, "status": 401}'
        try:
            query = json.loads(body)
            names, end = path.removeprefix("/").rsplit("/", 1)
            assert headers["Content-Type"] == "application/json" and end == "_search"
            self.requests.append((names, query))
            return 200, json.dumps(self._search(names, query)).encode()
        except Exception as error:
            return 400, json.dumps({"error": {"type": "parsing_exception", "reason": repr(error)}}).encode()

    def _search(self, names: str, query: dict[str, Any]) -> dict[str, Any]:
        patterns = names.split(",")
        found = [
            document
            for index, document in self.documents.copy()
            if any(fnmatch.fnmatchcase(index, pattern) for pattern in patterns)
            and _matches(document, query.get("query", {"match_all": {}}))
        ]
        assert query.pop("size") == 0
        total: Any = {"value": len(found), "relation": "eq"} if self.version > 6 else len(found)
        answer: dict[str, Any] = {
            "took": 1,
            "timed_out": False,
            "hits": {"total": total, "max_score": None, "hits": []},
        }
        for name, aggregation in query.pop("aggs", {}).items():
            field = aggregation["max"]["field"]
            times = [datetime.fromisoformat(document[field]).timestamp() * 1000 for document in found]
            answer.setdefault("aggregations", {})[name] = {"value": max(times) if times else None}
        query.pop("query", None)
        assert not query, f"unknown key {list(query)}"
        return answer


def _matches(document: dict[str, Any], query: dict[str, Any]) -> bool:
    ((kind, what),) = query.items()
    if kind == "match_all":
        return True
    if kind == "bool":
        ((clause, parts),) = what.items()
        assert clause == "filter"
        return all(_matches(document, part) for part in parts)
    assert kind in ("term", "match_phrase"), f"unknown query [{kind}]"
    ((field, value),) = what.items()
    return bool(document.get(field) == value)
