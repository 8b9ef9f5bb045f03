"""PushgatewayGroupPublisher: its text, byte by byte; what a Pushgateway and promtool make of it; what fails."""

from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from c2c_otel.http_call import CallError
from c2c_otel.prometheus import PushgatewayGroupPublisher
from tests.servers import Pushgateway

URL = "http://127.0.0.1:9091"


class Recorder:
    """An HTTP server that keeps each request and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                recorder.requests.append((self.command, self.path, headers, body))
                status, more, text = recorder.answers.pop(0) if recorder.answers else (202, {}, b"")
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT

            def log_message(self, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.stop()


def example(url: str = URL, **more: float) -> PushgatewayGroupPublisher:
    publisher = PushgatewayGroupPublisher(url, "import", "a", {"env": "prod"}, **more)
    publisher.add("points", 12)
    publisher.add("seconds", 1.5, "gauge", {"zone": "b", "app": "x"})
    publisher.add("points", 0, labels={"env": "test"})
    publisher.add("errors_total", 3, "counter")
    return publisher


TEXT = """\
# TYPE points gauge
points{env="prod"} 12
points{env="test"} 0
# TYPE seconds gauge
seconds{app="x", env="prod", zone="b"} 1.5
# TYPE errors_total counter
errors_total{env="prod"} 3
"""


def test_text() -> None:
    assert str(example()) == TEXT


def test_without_labels_there_are_no_braces() -> None:
    publisher = PushgatewayGroupPublisher(URL, "j")
    publisher.add("a", 1)
    assert str(publisher) == "# TYPE a gauge\na 1\n"


def test_the_last_value_of_a_series_counts() -> None:
    publisher = PushgatewayGroupPublisher(URL, "j")
    publisher.add("a", 1, labels={"x": "1", "y": "2"})
    publisher.add("a", 2, labels={"y": "2", "x": "1"})
    assert str(publisher) == '# TYPE a gauge\na{x="1", y="2"} 2\n'


def test_values() -> None:
    publisher = PushgatewayGroupPublisher(URL, "j")
    values = [True, -0.0, 1e300, math.inf, -math.inf, math.nan, Decimal("2.50"), 2**70]
    for position, value in enumerate(values):
        publisher.add(f"a{position}", value)  # type: ignore[arg-type] # a Decimal is what databases give
    shown = [line.split()[1] for line in str(publisher).splitlines() if not line.startswith("#")]
    assert shown == ["1", "-0.0", "1e+300", "+Inf", "-Inf", "NaN", "2.5", str(2**70)]


def test_another_type_for_a_name() -> None:
    publisher = PushgatewayGroupPublisher(URL, "j")
    publisher.add("a", 1)
    with pytest.raises(ValueError, match="type of a is 'counter'; it was 'gauge' before"):
        publisher.add("a", 1, "counter")
    assert str(publisher) == "# TYPE a gauge\na 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1a", 1), "name is '1a'"),
        (("a b", 1), "name is 'a b'"),
        (("a\n", 1), "name is"),
        (("", 1), "name is ''"),
        (("a", "x"), "value of a is 'x'; expected a number"),
        (("a", None), "value of a is None"),
        (("a", 1, "histogram"), "type of a is 'histogram'; expected one of gauge, counter, untyped"),
        (("a", 1, "gauge", {"b-c": 1}), "label is 'b-c'"),
        (("a", 1, "gauge", {"__b": 1}), "label is '__b'"),
    ],
)
def test_what_prometheus_does_not_have_is_refused_and_leaves_nothing(arguments: tuple[object], message: str) -> None:
    publisher = PushgatewayGroupPublisher(URL, "j")
    with pytest.raises(ValueError, match=message):
        publisher.add(*arguments)  # type: ignore[arg-type] # wrong ones are the point
    assert str(publisher) == ""


@pytest.mark.parametrize("url", ["", "pushgateway:9091", "ftp://a", "file:///etc/passwd", "http://"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="starts with http"):
        PushgatewayGroupPublisher(url, "j")


def test_a_job_has_a_name() -> None:
    with pytest.raises(ValueError, match="job is ''"):
        PushgatewayGroupPublisher(URL, "")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(), max_size=3), st.floats())
def test_any_label_comes_back(labels: dict[str, str], value: float) -> None:
    publisher = PushgatewayGroupPublisher(URL, "j")
    publisher.add("a", value, labels=labels)
    publisher.add("a", 1, labels={"other_one": "x"})
    (family,) = text_string_to_metric_families(str(publisher))
    assert family.type == "gauge"
    assert {name: text.encode("utf-8", "replace").decode() for name, text in labels.items()} == family.samples[0].labels
    assert family.samples[0].value == value or math.isnan(value)


def test_promtool_has_nothing_to_say(promtool: Callable[[str], tuple[int, str]]) -> None:
    publisher = PushgatewayGroupPublisher(URL, "j", labels={"env": 'a"b\\c\nd'})
    publisher.add("points", 12)
    publisher.add("seconds", math.nan, labels={"x": "é"})
    publisher.add("points", 1e-9, labels={"x": ""})
    code, said = promtool(str(publisher))
    assert code in (0, 3), said  # 3: that there is no help text, which this API does not take
    assert all("no help text" in line for line in said.splitlines()), said


# -- pushing ----------------------------------------------------------------------------------------------------------


def test_what_is_sent(recorder: Recorder) -> None:
    publisher = example(f"http://{recorder.address}/gateway/")
    publisher.commit()
    ((method, path, headers, body),) = recorder.requests
    assert (method, path, body) == ("PUT", "/gateway/metrics/job/import/instance/a", TEXT.encode())
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "authorization" not in headers
    assert str(publisher) == ""
    publisher.add("points", 1, "counter")  # of another type: nothing is remembered
    publisher.commit()
    assert recorder.requests[1][3] == b'# TYPE points counter\npoints{env="prod"} 1\n'


def test_credentials_of_the_url(recorder: Recorder) -> None:
    example(f"http://me:p%40ss@{recorder.address}").commit()
    assert recorder.requests[0][2]["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert recorder.requests[0][2]["host"] == recorder.address


@pytest.mark.parametrize(("status", "headers"), [(400, {}), (500, {}), (301, {"Location": "/elsewhere"})])
def test_a_bad_answer_raises_and_forgets_nothing(recorder: Recorder, status: int, headers: dict[str, str]) -> None:
    publisher = example(f"http://me:secret@{recorder.address}")
    recorder.answers.append((status, headers, b"pushed metrics\nare invalid"))
    with pytest.raises(OSError, match=f"{status} .*: pushed metrics are invalid") as caught:
        publisher.commit()
    assert isinstance(caught.value, CallError)
    assert caught.value.status == status
    assert "secret" not in str(caught.value)
    assert str(publisher) == TEXT
    publisher.commit()
    assert [request[3] for request in recorder.requests] == [TEXT.encode()] * 2


def test_nobody_listens() -> None:
    publisher = example("http://127.0.0.1:1")
    with pytest.raises(CallError, match="refused"):
        publisher.commit()
    assert str(publisher) == TEXT


def test_a_gateway_that_does_not_answer() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        publisher = example(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with pytest.raises(CallError, match=r"no answer within 0\.05 s"):
            publisher.commit()


# -- a real one -------------------------------------------------------------------------------------------------------


def test_a_pushgateway_takes_it(pushgateway: Pushgateway) -> None:
    pushgateway.clear()
    example(pushgateway.url).commit()
    assert pushgateway.scrape() == (
        "# TYPE errors_total counter\n"
        'errors_total{env="prod",instance="a",job="import"} 3\n'
        "# TYPE points gauge\n"
        'points{env="prod",instance="a",job="import"} 12\n'
        'points{env="test",instance="a",job="import"} 0\n'
        "# TYPE seconds gauge\n"
        'seconds{app="x",env="prod",instance="a",job="import",zone="b"} 1.5\n'
    )


def test_a_group_is_replaced(pushgateway: Pushgateway) -> None:
    pushgateway.clear()
    publisher = PushgatewayGroupPublisher(pushgateway.url, "j")
    for name in ("old", "new"):
        publisher.add(name, 1)
        publisher.commit()
    assert pushgateway.scrape() == '# TYPE new gauge\nnew{instance="",job="j"} 1\n'


@pytest.mark.parametrize(
    ("job", "instance"),
    [("a/b", None), ("j", ""), ("..", "."), ("a b+é", "x?y#z%2F"), ("j", "http://h:80/"), ("@base64", ">>>?")],
)
def test_any_job_and_instance(pushgateway: Pushgateway, job: str, instance: str | None) -> None:
    pushgateway.clear()
    publisher = PushgatewayGroupPublisher(pushgateway.url, job, instance)
    publisher.add("a", 1)
    publisher.commit()
    key = {"job": job} if instance is None else {"job": job, "instance": instance}
    assert [group["labels"] for group in pushgateway.groups()] == [key]


def test_any_label_of_a_sample(pushgateway: Pushgateway) -> None:
    pushgateway.clear()
    publisher = PushgatewayGroupPublisher(pushgateway.url, "j", labels={"a": '"\\\n\t\x00é🎉\u2028', "b": "\ud800"})
    publisher.add("a", 1)
    publisher.commit()
    (group,) = pushgateway.groups()
    labels = group["a"]["metrics"][0]["labels"]
    assert (labels["a"], labels["b"]) == ('"\\\n\t\x00é🎉\u2028', "?")


def test_what_it_refuses_is_told(pushgateway: Pushgateway) -> None:
    """A name that the gateway has with another type, in another group: only the gateway can know."""
    pushgateway.clear()
    for job, type_ in (("one", "gauge"), ("two", "counter")):
        publisher = PushgatewayGroupPublisher(pushgateway.url, job)
        publisher.add("same", 1, type_)
        try:
            publisher.commit()
        except CallError as error:
            assert job == "two" and error.status == 400 and "same" in str(error)
            break
    else:
        pytest.fail(json.dumps(pushgateway.groups()))
