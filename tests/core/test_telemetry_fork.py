"""What a forked child has of its parent: nothing that it could count, send or wait for twice."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.servers import OtlpReceiver, UdpSink

Run = Callable[..., subprocess.CompletedProcess[str]]


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


def test_children_live_where_a_thread_pool_was_imported_after_the_include(run: Run) -> None:
    """The SDK's own handler of forks takes a lock that is only given back after it, for ever."""
    run("""
process.install()
import concurrent.futures.thread
process.start()
fork(lambda: stats.increment_counter(["n"]))
""")
