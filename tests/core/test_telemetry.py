"""What a process has for its telemetry: when it starts, what a fork leaves, how it ends. Each test runs a program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import OtlpReceiver, UdpSink

Run = Callable[..., subprocess.CompletedProcess[str]]

_BEGIN = """
import logging, multiprocessing, os, sys, threading, time
from opentelemetry import metrics, trace
from c2c_otel import stats, telemetry
process = telemetry.get()

def sample(name):
    lines = process.render("text/plain")[1].decode().splitlines()
    found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{"))]
    return sum(found) if found else None

def fork(child):
    one = multiprocessing.get_context("fork").Process(target=child)
    one.start()
    one.join(20)
    assert one.exitcode == 0, one.exitcode
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(code: str, *, ok: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("C2C_", "OTEL_", "STATSD_", "LOG_", "COVERAGE"))
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _BEGIN + code],
            env={**clean, "C2C_RUNTIME_DIR": str(tmp_path / "run"), **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not ok or (done.returncode == 0 and "Traceback" not in done.stderr), done.stderr
        return done

    return run


# -- start ------------------------------------------------------------------------------------------------------------


def test_the_first_measurement_starts_and_the_end_sends(run: Run, udp_sink: UdpSink) -> None:
    done = run(
        """
print(process.started, threading.active_count())
stats.increment_counter(["n"])
print(process.started)
""",
        STATSD_ADDRESS=udp_sink.address,
    )
    assert done.stdout.split() == ["False", "1", "True"]
    assert udp_sink.wait_for(1) == ["n:1|c"]


def test_the_first_span_starts_too_and_is_exported(run: Run, otlp_receiver: OtlpReceiver) -> None:
    run(
        """
process.install()
with trace.get_tracer("app").start_as_current_span("first"):
    pass
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=otlp_receiver.url,
    )
    assert [span["name"] for span in otlp_receiver.spans] == ["first"]


def test_what_is_measured_after_the_end_is_nobodys_problem(run: Run) -> None:
    done = run(
        """
stats.increment_counter(["n"])
counter = metrics.get_meter("app").create_counter("own")
timer = stats.timer(["late"])
stop = threading.Event()
def work():
    while not stop.is_set():
        with stats.timer_context(["busy"]):
            counter.add(1)
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
process.shutdown()
process.shutdown()
stats.increment_counter(["n"])
timer.stop()
counter.add(1)
process.start()
print(process.started, process.families()[0])
stop.set()
"""
    )
    assert done.stdout == "False []\n"
    assert done.stderr == ""


def test_a_bad_setting_deep_in_a_script_is_said_once_and_the_script_goes_on(run: Run) -> None:
    done = run(
        """
for _ in range(3):
    stats.increment_counter(["n"])
    with stats.timer_context(["t"]):
        pass
print("went on")
""",
        ok=False,
        STATSD_ADDRESS="nowhere",
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert done.stderr.count("STATSD_ADDRESS is 'nowhere'; expected host:port") == 1


def test_an_exporter_that_cannot_be_made_is_said_once_and_the_script_goes_on(run: Run) -> None:
    done = run(
        'for _ in range(3): stats.increment_counter(["n"])\nprint("went on", process.started)',
        ok=False,
        OTEL_TRACES_EXPORTER="bogus",
    )
    assert (done.returncode, done.stdout) == (0, "went on False\n")
    assert done.stderr.count("OTEL_TRACES_EXPORTER is 'bogus'; expected one of") == 1


def test_the_include_refuses_an_exporter_that_cannot_be_made(run: Run) -> None:
    done = run(
        'from pyramid.config import Configurator\nConfigurator().include("c2c_otel")',
        ok=False,
        OTEL_TRACES_EXPORTER="bogus",
    )
    assert done.returncode == 1
    assert "ConfigurationError: OTEL_TRACES_EXPORTER is 'bogus'; expected one of" in done.stderr


def test_an_ini_value_that_cannot_be_used_stops_the_include(run: Run) -> None:
    done = run(
        'from pyramid.config import Configurator\nConfigurator(settings={"c2c.stats_view": "x"}).include("c2c_otel")',
        ok=False,
    )
    assert "ConfigurationError: c2c.stats_view is 'x'; expected one of 1, true" in done.stderr


def test_a_second_application_that_wants_other_settings_is_told(run: Run) -> None:
    done = run("""
from pyramid.config import Configurator
for prefix in ("one", "two"):
    config = Configurator(settings={"c2c.statsd_prefix": prefix})
    config.include("c2c_otel")
    config.make_wsgi_app()
print(process.settings.statsd_prefix)
""")
    assert done.stdout == "one\n"
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip().endswith("differ from those this process runs with: STATSD_PREFIX")


def test_settings_are_frozen() -> None:
    from c2c_otel.settings import Settings

    with pytest.raises(AttributeError):
        Settings().base_path = "/x"  # type: ignore[misc] # that is the test


# -- providers of the application -------------------------------------------------------------------------------------


def test_an_application_keeps_the_providers_that_it_has_set(run: Run, otlp_receiver: OtlpReceiver) -> None:
    done = run(
        """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))

from pyramid.config import Configurator
from pyramid.request import Request
config = Configurator()
config.include("c2c_otel")
config.add_route("home", "/")
config.add_view(lambda request: {}, route_name="home", renderer="json")
app = config.make_wsgi_app()
metrics.get_meter("app").create_counter("own").add(1)
Request.blank("/", headers={"X-Request-ID": "abc"}).get_response(app).body
print([(span.name, span.attributes["c2c.request_id"]) for span in exporter.get_finished_spans()])
print(sample("http_server_request_duration_seconds_count"), sample("own_total"))
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=otlp_receiver.url,
    )
    assert done.stdout == "[('render json', 'abc'), ('GET /', 'abc')]\n1.0 None\n"
    assert otlp_receiver.spans == []


def test_a_meter_provider_that_is_set_after_the_include_is_kept(run: Run) -> None:
    done = run("""
from pyramid.config import Configurator
from opentelemetry.sdk.metrics import MeterProvider
config = Configurator()
config.include("c2c_otel")
mine = MeterProvider(shutdown_on_exit=False)
metrics.set_meter_provider(mine)
config.make_wsgi_app()
print(metrics.get_meter_provider() is mine)
""")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_force_flush_of_the_meter_provider_publishes(run: Run) -> None:
    done = run("""
stats.increment_counter(["n"])
metrics.get_meter("app").create_counter("own").add(3)
print(metrics.get_meter_provider().force_flush())
print([s for f in process.parts.store.families() if f.metric.name == "own" for s in f.series.values()][0].values[0])
""")
    assert done.stdout == "True\n3.0\n"


# -- fork -------------------------------------------------------------------------------------------------------------


def test_a_forked_child_counts_for_itself_and_nothing_twice(run: Run, udp_sink: UdpSink) -> None:
    done = run(
        """
stats.increment_counter(["ours"])
meter = metrics.get_meter("app")
counter, active = meter.create_counter("jobs"), meter.create_up_down_counter("active")
total = [100]
meter.create_observable_counter("observed", [lambda _: [metrics.Observation(total[0])]])
counter.add(5)
active.add(3)
process.families()
counter.add(2)                     # not read yet when the child is made
def child():
    assert not process.started and threading.active_count() == 1
    counter.add(10)
    active.add(1)
    total[0] += 7
    stats.increment_counter(["ours"])
    assert len([name for name in os.listdir(process.parts.run.metrics) if name.endswith(".metrics")]) == 2
    assert sample("active") == 4, "both live"
    assert process.parts.publisher is not parents
parents = process.parts.publisher
fork(child)
print(sample("jobs_total"), sample("active"), sample("observed_total"), sample("c2c_otel_events_total"))
""",
        STATSD_ADDRESS=udp_sink.address,
    )
    assert done.stdout == "17.0 3.0 107.0 2.0\n"
    lines = udp_sink.wait_for(lambda lines: sorted(lines).count("ours:1|c") == 2)
    own = [line for line in lines if line.startswith("jobs:")]
    assert sum(int(line[5:].partition("|")[0]) for line in own) == 17


def test_a_forked_child_exports_its_own_spans_and_logs_once(run: Run, otlp_receiver: OtlpReceiver) -> None:
    run(
        """
logging.getLogger().setLevel("INFO")
process.start()
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("parent before"):
    logging.info("parent before")
def child():
    assert threading.active_count() == 1, threading.enumerate()
    logging.info("child")
    with tracer.start_as_current_span("child"):
        pass
fork(child)
with tracer.start_as_current_span("parent after"):
    logging.info("parent after")
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=otlp_receiver.url,
    )
    names = ["child", "parent after", "parent before"]
    assert sorted(span["name"] for span in otlp_receiver.spans) == names
    assert sorted(log["body"] for log in otlp_receiver.logs) == names
    pids = {span["name"]: span["resource"]["process.pid"] for span in otlp_receiver.spans}
    assert pids["parent before"] == pids["parent after"] != pids["child"]


def test_a_child_can_be_made_while_other_threads_are_everywhere(run: Run) -> None:
    done = run("""
stats.increment_counter(["n"])
counter = metrics.get_meter("app").create_counter("own")
stop = threading.Event()
slow = threading.Event()
def observe(_):
    slow.wait(0.01)
    return [metrics.Observation(1)]
metrics.get_meter("app").create_observable_gauge("gauge", [observe])
def count():
    while not stop.is_set():
        counter.add(1)
        stats.increment_counter(["n"])
        trace.get_tracer(f"scope {time.time()}").start_span("x").end()
def read():
    while not stop.is_set():
        process.families()
threads = [threading.Thread(target=target) for target in (count, read)]
[thread.start() for thread in threads]
def child():
    counter.add(1)
    stats.increment_counter(["child"])
    trace.get_tracer("fresh").start_span("x").end()
    assert sample("own_total") > 0
for _ in range(10):
    fork(child)
stop.set()
[thread.join() for thread in threads]
print(sample('c2c_otel_events_total{key="child"}'))
""")
    assert done.stdout == "10.0\n"


def test_a_child_leaves_the_parents_port_and_directory_alone(run: Run) -> None:
    done = run(
        """
import urllib.request
process.start()
url = "http://127.0.0.1:%d/metrics" % process.parts.port.address[1]
release = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(release[1])
    os.read(release[0], 1)
    os._exit(0)
os.close(release[0])
assert urllib.request.urlopen(url).status == 200
process.parts.port.close()
try:
    urllib.request.urlopen(url, timeout=5)
except OSError as error:
    print("closed:", error.reason.errno)
os.close(release[1])
os.waitpid(pid, 0)
print(process.parts.run.metrics.is_dir())
""",
        OTEL_EXPORTER_PROMETHEUS_PORT="0",
    )
    assert done.stdout == "closed: 111\nTrue\n"


def test_a_child_of_a_capture_measures_nothing(run: Run) -> None:
    done = run("""
from c2c_otel.testing import capture
with capture() as captured:
    counter = metrics.get_meter("app").create_counter("own")
    def child():
        stats.increment_counter(["n"])
        counter.add(1)
        with stats.timer_context(["t"]):
            pass
        assert not process.started
    fork(child)
    print(captured.statsd, captured.spans)
print(os.path.exists(os.environ["C2C_RUNTIME_DIR"]))
""")
    assert done.stdout == "[] []\nFalse\n"


# -- turned off -------------------------------------------------------------------------------------------------------

_APPLICATION = """
from pyramid.config import Configurator
from pyramid.request import Request
config = Configurator()
config.include("c2c_otel")
config.add_route("home", "/")
config.add_view(lambda request: {"id": request.c2c_request_id}, route_name="home", renderer="fast_json")
app = config.make_wsgi_app()
home = Request.blank("/", headers={"X-Request-ID": "abc"}).get_response(app)
"""


@pytest.mark.parametrize(
    ("off", "metrics", "threads"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "# Telemetry is off in this process.\n", "1"),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "pyramid"}, "pod_process_smap_pss_kb", "3"),
    ],
)
def test_an_application_that_is_not_traced_works(run: Run, off: dict[str, str], metrics: str, threads: str) -> None:
    done = run(
        _APPLICATION
        + """
answers = [Request.blank(path).get_response(app) for path in ("/metrics", "/c2c", "/c2c/debug/time")]
print(home.json, threading.active_count(), [answer.status_int for answer in answers])
print(answers[0].text)
""",
        **off,
    )
    first, _, rest = done.stdout.partition("\n")
    assert first == f"{{'id': 'abc'}} {threads} [200, 200, 200]"
    assert metrics in rest
    assert "http_server_request" not in rest


def test_without_redis(run: Run) -> None:
    done = run(
        _APPLICATION
        + """
import redis
print(type(redis.Redis.execute_command).__name__)
""",
        C2C_TRACK_REDIS="0",
    )
    assert done.stdout == "function\n"


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "parent", "exported"),
    [
        ("always_off", "", 0),
        ("traceidratio", "", 0),  # the ratio is 0
        ("", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", 0),
        ("", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 2),
        ("parentbased_always_off", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 2),
    ],
)
def test_no_sampler_loses_a_measurement(
    run: Run, udp_sink: UdpSink, otlp_receiver: OtlpReceiver, sampler: str, parent: str, exported: int
) -> None:
    done = run(
        _APPLICATION.replace('"abc"}', f'"abc", "traceparent": "{parent}"}}')
        + 'home.body; home.app_iter.close() if hasattr(home.app_iter, "close") else None\n'
        + 'print(sample("http_server_request_duration_seconds_count"))',
        STATSD_ADDRESS=udp_sink.address,
        OTEL_TRACES_SAMPLER=sampler,
        OTEL_TRACES_SAMPLER_ARG="0",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{otlp_receiver.url}/v1/traces",
    )
    assert done.stdout == "1.0\n"
    lines = udp_sink.wait_for(2)
    assert sorted(line.partition(":")[0] for line in lines) == ["render.GET.home.200", "route.GET.home.200"]
    assert len(otlp_receiver.spans) == exported


def test_children_live_where_a_thread_pool_was_imported_after_the_include(run: Run) -> None:
    """The SDK's own handler of forks takes a lock that is only given back after it, for ever."""
    run("""
process.install()
import concurrent.futures.thread
process.start()
fork(lambda: stats.increment_counter(["n"]))
""")
