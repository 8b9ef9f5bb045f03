"""When a process has telemetry, whose providers it uses, how it ends. Each test is a program of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.servers import OtlpReceiver, UdpSink

Run = Callable[..., subprocess.CompletedProcess[str]]


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
threads = {thread.name for thread in threading.enumerate()} - {"c2c_broadcast_listener", "c2c_otel_shared"}
print(home.json, len(threads), [answer.status_int for answer in answers])
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
