"""A receiver for OTLP over HTTP: protobuf and JSON, gzip, failures on demand; what arrives is decoded to plain values.

Stands where an OpenTelemetry Collector would: none can be had from PyPI, npm or Debian. Requests are decoded with
``opentelemetry-proto``, strictly: what is malformed is answered with 400 and kept in `errors`.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from google.protobuf import json_format  # type: ignore[import-untyped] # has no types of its own
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tests.servers.process import wait_until

__all__ = ["OtlpReceiver", "OtlpRequest"]

_TYPES: Mapping[str, tuple[Any, Any]] = {
    "/v1/traces": (trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse),
    "/v1/metrics": (metrics_service_pb2.ExportMetricsServiceRequest, metrics_service_pb2.ExportMetricsServiceResponse),
    "/v1/logs": (logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2.ExportLogsServiceResponse),
}
_IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class OtlpRequest:
    """One request as it came; `status` is what it was answered with, `headers` have lower-case names."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int


class OtlpReceiver:
    """``with OtlpReceiver() as receiver: export_to(receiver.url); receiver.wait_for(lambda: len(receiver.spans) == 2)``

    `spans`, `metrics` (one entry a data point) and `logs` are plain dicts with the keys ``resource`` and ``scope`` in
    each; attributes are plain values, ids hexadecimal text, times nanoseconds, names those of the OTLP messages.
    """

    def __init__(self) -> None:
        self.port = 0
        self.clear()
        self._fail: list[tuple[int, float | None]] = []

    def clear(self) -> None:
        """Forget what has arrived."""
        self.spans: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.requests: list[OtlpRequest] = []
        self.errors: list[str] = []

    @property
    def url(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def fail_next(self, count: int, status: int = 503, retry_after: float | None = None) -> None:
        """Answer the next requests with this status and keep only `requests` of them; 0 closes the connection."""
        self._fail += [(status, retry_after)] * count

    def wait_for(self, condition: Callable[[], object], timeout: float = 15.0) -> None:
        """Until it is true. Raises NotReady."""
        wait_until("OTLP data", lambda: bool(condition()), timeout, lambda: "\n".join([*self.errors, repr(self)]))

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._receive(self)

            def log_message(self, *args: object) -> None:
                pass

        class HttpServer(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that went away

        self._server = HttpServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="otlp", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<OtlpReceiver {len(self.spans)} spans, {len(self.metrics)} points, {len(self.logs)} logs>"

    # -- receiving ----------------------------------------------------------------------------------------------

    def _receive(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        status, answer, more = 200, b"", dict[str, str]()
        content_type = headers.get("content-type", "").split(";")[0]
        if self._fail:
            status, retry_after = self._fail.pop(0)
            if retry_after is not None:
                more["Retry-After"] = str(retry_after)
        else:
            try:
                answer = self._keep(handler.path, content_type, headers.get("content-encoding", ""), body)
            except Exception as error:  # whatever is wrong with it, the sender is told and the test can see it
                status, answer = (404 if handler.path not in _TYPES else 400), b""
                self.errors.append(f"{handler.path} {content_type}: {error!r}")
        self.requests.append(OtlpRequest(handler.path, headers, body, status))
        if status == 0:
            handler.close_connection = True
            return
        handler.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(answer)), **more}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer)

    def _keep(self, path: str, content_type: str, encoding: str, body: bytes) -> bytes:
        request_type, response_type = _TYPES[path]
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding not in ("", "identity"):
            raise ValueError(f"Content-Encoding {encoding}")
        request = request_type()
        if content_type == "application/json":
            json_format.ParseDict(_ids_to_base64(json.loads(body)), request)
        elif content_type == "application/x-protobuf":
            request.ParseFromString(body)
        else:
            raise ValueError(f"Content-Type {content_type}")
        for group in request.ListFields()[0][1] if request.ListFields() else ():
            self._keep_group(path, group)
        if content_type == "application/json":
            return b"{}"
        return bytes(response_type().SerializeToString())

    def _keep_group(self, path: str, group: Any) -> None:
        resource = _attributes(group.resource.attributes)
        if path == "/v1/traces":
            for scope in group.scope_spans:
                self.spans += [_span(span, resource, scope.scope.name) for span in scope.spans]
        elif path == "/v1/logs":
            for scope in group.scope_logs:
                self.logs += [_record(record, resource, scope.scope.name) for record in scope.log_records]
        else:
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    self.metrics += _points(metric, resource, scope.scope.name)


def _ids_to_base64(node: Any) -> Any:
    """OTLP's JSON has ids in hexadecimal; protobuf's JSON, which decodes it here, has bytes in base64."""
    if isinstance(node, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in _IDS else _ids_to_base64(value)
            for key, value in node.items()
        }
    return [_ids_to_base64(item) for item in node] if isinstance(node, list) else node


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)


def _attributes(pairs: Sequence[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _span(span: Any, resource: dict[str, Any], scope: str) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "trace_state": span.trace_state,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "status": type(span.status).StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        "status_message": span.status.message,
        "attributes": _attributes(span.attributes),
        "events": [
            {"name": event.name, "time": event.time_unix_nano, "attributes": _attributes(event.attributes)}
            for event in span.events
        ],
        "links": [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links],
        "resource": resource,
        "scope": scope,
    }


def _record(record: Any, resource: dict[str, Any], scope: str) -> dict[str, Any]:
    return {
        "body": _value(record.body),
        "severity_text": record.severity_text,
        "severity_number": record.severity_number,
        "time": record.time_unix_nano,
        "observed": record.observed_time_unix_nano,
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
        "attributes": _attributes(record.attributes),
        "resource": resource,
        "scope": scope,
    }


def _points(metric: Any, resource: dict[str, Any], scope: str) -> list[dict[str, Any]]:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    common: dict[str, Any] = {"name": metric.name, "unit": metric.unit, "description": metric.description, "kind": kind}
    if kind in ("sum", "histogram", "exponential_histogram"):
        temporality = type(data).DESCRIPTOR.fields_by_name["aggregation_temporality"].enum_type
        common["temporality"] = temporality.values_by_number[data.aggregation_temporality].name.rsplit("_", 1)[-1]
    if kind == "sum":
        common["monotonic"] = data.is_monotonic
    points = []
    for point in data.data_points:
        entry = {
            **common,
            "attributes": _attributes(point.attributes),
            "start": point.start_time_unix_nano,
            "time": point.time_unix_nano,
            "resource": resource,
            "scope": scope,
        }
        if kind in ("sum", "gauge"):
            entry["value"] = getattr(point, point.WhichOneof("value") or "as_int")
        else:
            entry |= {"count": point.count, "sum": point.sum}
        if kind == "histogram":
            entry |= {"buckets": list(point.bucket_counts), "bounds": list(point.explicit_bounds)}
        points.append(entry)
    return points
