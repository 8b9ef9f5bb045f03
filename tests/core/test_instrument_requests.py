"""Outgoing calls: against a real HTTP server on 127.0.0.1, and through adapters of all kinds."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor as Contrib
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.trace import SpanKind, StatusCode
from requests.adapters import BaseAdapter, HTTPAdapter

from c2c_otel import request_id
from c2c_otel.instrumentation import requests as ours
from c2c_otel.instrumentation import requests_timeout
from c2c_otel.instrumentation.requests import RequestsInstrumentor
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured, capture
from c2c_otel_exporters import guard


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        path = self.path.partition("?")[0]
        if path.startswith("/redirect/"):
            left = int(path.rpartition("/")[2])
            self.send_response(302)
            self.send_header("Location", f"/redirect/{left - 1}" if left > 1 else "/end")
        elif path == "/digest" and "authorization" not in {k.lower() for k in self.headers}:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')
        elif path.startswith("/status/"):
            self.send_response(int(path.rpartition("/")[2]))
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_FUNNY = do_GET

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    seen: list[tuple[str, str, dict[str, str]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    handler = type("H", (Handler,), {"seen": []})
    with Server(("127.0.0.1", 0), handler) as server:
        server.seen = handler.seen  # type: ignore[attr-defined]  # set just above
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def instrumented(settings: Settings | None = None, **kwargs: Any) -> Iterator[Captured]:
    requests_timeout.forget()
    with capture(settings or Settings()) as captured:
        RequestsInstrumentor().instrument(**kwargs)
        try:
            yield captured
        finally:
            RequestsInstrumentor().uninstrument()


@pytest.fixture
def captured() -> Iterator[Captured]:
    with instrumented() as captured:
        yield captured


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def answer(request: requests.PreparedRequest, status: int = 200) -> requests.Response:
    response = requests.Response()
    response.status_code, response.request, response.url = status, request, request.url or ""
    response.raw = io.BytesIO(b"")
    return response


class Fake(BaseAdapter):
    """What a test of an application mounts."""

    def __init__(self, reply: Callable[[requests.PreparedRequest], requests.Response] = answer) -> None:
        super().__init__()
        self.reply = reply

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        return self.reply(request)

    def close(self) -> None: ...


def names(captured: Captured) -> list[str]:
    return [span.name for span in captured.spans]


def attributes(captured: Captured) -> dict[str, Any]:
    (span,) = captured.spans
    return dict(span.attributes or {})


def test_one_call(server: Server, session: requests.Session, captured: Captured) -> None:
    assert session.get(f"{server.url}/hello?a=1", timeout=5).status_code == 200
    (span,) = captured.spans
    assert (span.name, span.kind, span.status.status_code) == ("GET", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "url.full": f"{server.url}/hello?a=1",
        "server.address": "127.0.0.1",
        "server.port": server.server_port,
        "user_agent.original": f"python-requests/{requests.__version__}",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    assert captured.statsd_names() == [f"requests.http.127_0_0_1.{server.server_port}.GET.200"]
    assert (
        captured.value(
            "http_client_request_duration_seconds_count",
            http_request_method="GET",
            http_response_status_code="200",
            server_address="127.0.0.1",
        )
        == 1
    )


def test_each_hop_of_a_redirect_chain(server: Server, session: requests.Session, captured: Captured) -> None:
    response = session.get(f"{server.url}/redirect/2", timeout=5)
    assert len(response.history) == 2
    spans = captured.spans
    assert [(span.attributes or {})["http.response.status_code"] for span in spans] == [302, 302, 200]
    assert [str((span.attributes or {})["url.full"]).rpartition("/")[2] for span in spans] == ["2", "1", "end"]
    assert [(span.attributes or {}).get("http.request.resend_count") for span in spans] == [None, 1, 2]
    ids = [f"{span.context.span_id:016x}" for span in spans if span.context]
    assert [headers["traceparent"].split("-")[2] for _, _, headers in server.seen] == ids
    assert len(captured.statsd) == 3


def test_a_redirect_not_followed(server: Server, session: requests.Session, captured: Captured) -> None:
    response = session.get(f"{server.url}/redirect/1", timeout=5, allow_redirects=False)
    assert response.next is not None
    assert len(captured.spans) == 1


def test_too_many_redirects(server: Server, session: requests.Session, captured: Captured) -> None:
    session.max_redirects = 2
    with pytest.raises(requests.TooManyRedirects):
        session.get(f"{server.url}/redirect/9", timeout=5)
    assert len(captured.spans) == len(server.seen) == 3
    session.get(f"{server.url}/x", timeout=5)
    assert "http.request.resend_count" not in (captured.spans[-1].attributes or {})


def test_an_answer_to_a_challenge_is_a_hop(server: Server, session: requests.Session, captured: Captured) -> None:
    session.get(f"{server.url}/digest", timeout=5, auth=requests.auth.HTTPDigestAuth("u", "p"))
    assert [(span.attributes or {})["http.response.status_code"] for span in captured.spans] == [401, 200]


@pytest.mark.parametrize(("status", "error"), [(200, False), (302, False), (404, True), (503, True)])
def test_status(session: requests.Session, captured: Captured, status: int, error: bool) -> None:
    session.mount("http://", Fake(lambda request: answer(request, status)))
    session.get("http://host/", timeout=5)
    (span,) = captured.spans
    assert (span.status.status_code is StatusCode.ERROR) is error
    assert (span.attributes or {}).get("error.type") == (str(status) if error else None)
    assert captured.statsd_names() == [f"requests.http.host.80.GET.{status}"]


def test_exception(session: requests.Session, captured: Captured) -> None:
    with pytest.raises(requests.ConnectionError):
        session.get("http://127.0.0.1:1/", timeout=5)
    (span,) = captured.spans
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ConnectionError"
    assert [event.name for event in span.events] == ["exception"]
    assert captured.statsd_names() == ["requests.http.127_0_0_1.1.GET.999"]
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(
    ("url", "port"), [("http://host/", 80), ("https://host/", 443), ("https://host:8443/", 8443), ("http://[::1]/", 80)]
)
def test_port(session: requests.Session, captured: Captured, url: str, port: int) -> None:
    session.mount("http://", Fake())
    session.mount("https://", Fake())
    session.get(url, timeout=5)
    assert attributes(captured)["server.port"] == port


def test_an_odd_method(session: requests.Session, captured: Captured) -> None:
    session.mount("http://", Fake())
    session.request("FUNNY", "http://host/", timeout=5)
    assert names(captured) == ["HTTP"]
    assert attributes(captured)["http.request.method"] == "_OTHER"
    assert attributes(captured)["http.request.method_original"] == "FUNNY"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@host/x", "http://REDACTED:REDACTED@host/x"),
        ("http://host/?secret=abc&b=1", "http://host/?secret=REDACTED&b=1"),
        ("http://host/?X-Amz-Signature=abc", "http://host/?X-Amz-Signature=REDACTED"),
        ("http://host/?sig=abc&AWSAccessKeyId=k", "http://host/?sig=REDACTED&AWSAccessKeyId=REDACTED"),
        ("http://host/a?b=c#d", "http://host/a?b=c#d"),
    ],
)
def test_secrets_do_not_get_into_spans(session: requests.Session, captured: Captured, url: str, shown: str) -> None:
    session.mount("http://", Fake())
    session.get(url, timeout=5)
    assert attributes(captured)["url.full"] == shown


@given(st.text(max_size=40), st.text(min_size=1, max_size=20).filter(lambda s: not set(s) & set("/?#@[]:\\")))
def test_no_url_makes_parsing_fail(path: str, password: str) -> None:
    prepared = requests.Request("GET", "http://host/" + path).prepare()
    _, scheme, host, port = ours._parsed(prepared.url or "")
    assert (scheme, host, port) == ("http", "host", 80)
    assert ours._parsed(f"http://u:secret{password}@host/")[0].startswith("http://REDACTED:REDACTED@host")


def test_the_request_id_and_the_trace_travel(server: Server, session: requests.Session, captured: Captured) -> None:
    context = otel_context.set_value(request_id.REQUEST_ID_KEY, "my id")
    token = otel_context.attach(context)
    try:
        session.get(f"{server.url}/", timeout=5)
        session.get(f"{server.url}/", timeout=5, headers={"X-Request-ID": "the caller's"})
    finally:
        otel_context.detach(token)
    assert [headers["x-request-id"] for _, _, headers in server.seen] == ["my id", "the caller's"]
    span = captured.spans[0]
    assert span.context
    assert server.seen[0][2]["traceparent"].startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}")


def test_a_prepared_request_sent_again_has_the_new_id(server: Server, session: requests.Session) -> None:
    with instrumented(Settings(request_id_header="X-Mine")):
        request_id.configure("X-Mine")
        prepared = session.prepare_request(requests.Request("GET", f"{server.url}/"))
        for value in ("one", "two"):
            token = otel_context.attach(otel_context.set_value(request_id.REQUEST_ID_KEY, value))
            session.send(prepared, timeout=5)
            otel_context.detach(token)
        request_id.configure(None)
    assert [headers["x-request-id"] for _, _, headers in server.seen] == ["one", "two"]
    assert [headers["x-mine"] for _, _, headers in server.seen] == ["one", "two"]


def test_adapters_of_all_kinds_are_one_hop(server: Server, captured: Captured) -> None:
    class Passing(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            return super().send(*args, **kwargs)

    class Plain(HTTPAdapter): ...

    class Answering(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            return answer(request)

    class Delegating(BaseAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            return HTTPAdapter().send(request, *args, **kwargs)

        def close(self) -> None: ...

    for adapter in (Passing(), Plain(), Answering(), Delegating(), Fake()):
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", adapter)
            captured.clear()
            session.get(f"{server.url}/x", timeout=5)
            assert len(captured.spans) == len(captured.statsd) == 1, adapter


def test_a_call_made_inside_an_adapter_is_its_own(server: Server, captured: Captured) -> None:
    class WithToken(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            requests.get(f"{server.url}/token", timeout=5)
            return super().send(*args, **kwargs)

    with requests.Session() as session:
        session.mount("http://", WithToken())
        session.get(f"{server.url}/x", timeout=5)
    assert captured.tree() == [("GET", [("GET", [])])]


def test_a_library_that_replaces_send_for_a_while(
    session: requests.Session, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = HTTPAdapter.send
    with monkeypatch.context() as patch:
        patch.setattr(HTTPAdapter, "send", lambda self, request, **_: answer(request))
        session.get("http://host/", timeout=5)
        assert names(captured) == ["GET"]
    assert HTTPAdapter.send is wrapped


def test_suppressed(server: Server, session: requests.Session, captured: Captured) -> None:
    with suppress_instrumentation():
        session.get(f"{server.url}/", timeout=5)
    with suppress_http_instrumentation():
        session.get(f"{server.url}/", timeout=5)
    assert captured.spans == []
    assert captured.statsd == []
    assert "traceparent" not in server.seen[0][2]


def test_excluded_urls(session: requests.Session) -> None:
    with instrumented(excluded_urls="health") as captured:
        session.mount("http://", Fake())
        session.get("http://host/health", timeout=5)
        session.get("http://host/other", timeout=5)
    assert len(captured.spans) == 1


def test_hooks(session: requests.Session, caplog: pytest.LogCaptureFixture) -> None:
    def request_hook(span: trace.Span, request: requests.PreparedRequest) -> None:
        assert trace.get_current_span() is span
        span.set_attribute("asked", request.path_url)

    def response_hook(span: trace.Span, request: requests.PreparedRequest, response: requests.Response) -> None:
        span.set_attribute("answered", response.status_code)
        raise ValueError("of the hook")

    session.mount("http://", Fake())
    with instrumented(request_hook=request_hook, response_hook=response_hook) as captured:
        assert session.get("http://host/path", timeout=5).status_code == 200
        assert trace.get_current_span() is trace.INVALID_SPAN
    assert attributes(captured)["asked"] == "/path"
    assert attributes(captured)["answered"] == 200
    assert "raised an exception" in caplog.text


def test_uninstrument_session(session: requests.Session, captured: Captured) -> None:
    session.mount("http://", Fake())
    RequestsInstrumentor.uninstrument_session(session)
    session.get("http://host/", timeout=5)
    assert captured.spans == []


def test_uninstrument_puts_everything_back() -> None:
    before = HTTPAdapter.send, Fake.send, requests.Session.get_adapter, requests.Session.resolve_redirects
    with instrumented(), requests.Session() as session:
        session.mount("http://", Fake())
        session.get("http://host/", timeout=5)
        assert HTTPAdapter.send is not before[0]
        assert Fake.send is not before[1]
    after = HTTPAdapter.send, Fake.send, requests.Session.get_adapter, requests.Session.resolve_redirects
    assert after == before
    assert type(Contrib()) is Contrib


def test_a_failure_of_ours_does_not_break_the_call(
    session: requests.Session, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise LookupError

    session.mount("http://", Fake())
    monkeypatch.setattr(ours, "_parsed", broken)
    guard.strict(False)
    try:
        assert session.get("http://host/", timeout=5).status_code == 200
    finally:
        guard.strict(None)
        guard.reset()


# -- timeouts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What arrived in HTTPAdapter.send."""
    seen: list[Any] = []

    def send(self: Any, request: Any, stream: Any = False, timeout: Any = None, *_: Any, **__: Any) -> Any:
        seen.append(timeout)
        return answer(request)

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return seen


def test_default_timeout(timeouts: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    with instrumented(Settings(requests_default_timeout=7.5)):
        requests.get("http://host/")
        requests.get("http://host/", timeout=1)
        requests.get("http://host/", timeout=(1, None))
        HTTPAdapter().send(requests.Request("GET", "http://host/").prepare(), False, None)
    assert timeouts == [7.5, 1, (1, None), 7.5]
    assert "timeout" not in caplog.text


def test_an_adapter_with_a_timeout_of_its_own_keeps_it(
    timeouts: list[Any], session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    class Impatient(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            kwargs["timeout"] = kwargs.get("timeout") or 3
            return super().send(*args, **kwargs)

    session.mount("http://", Impatient())
    with instrumented(Settings(requests_default_timeout=60)):
        session.get("http://host/")
    with instrumented():
        session.get("http://host/")
    assert timeouts == [3, 3]
    assert "timeout" not in caplog.text


def test_one_warning_for_each_call_site(timeouts: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    with instrumented(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            requests.get("http://user:secret@host/?secret=1")
        requests.post("http://host/")
    records = [record for record in caplog.records if record.name == "c2c_otel.requests"]
    assert len(records) == 2
    assert all("test_instrument_requests.py:" in record.getMessage() for record in records)
    assert "secret" not in caplog.text
    assert timeouts == [None] * 4


def test_call_sites_that_are_remembered_are_bounded(
    timeouts: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_timeout, "_MAX_SITES", 2)
    with instrumented(), caplog.at_level(logging.WARNING):
        for n in range(5):
            exec(compile("requests.get('http://host/')", f"generated-{n}.py", "exec"), {"requests": requests})
    assert len([record for record in caplog.records if record.name == "c2c_otel.requests"]) == 2
