"""Providers: what the README's examples give, in a pod and elsewhere."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel import metrics
from c2c_otel.metrics import MemoryMapProvider, Provider, add_provider
from c2c_otel_exporters.model import Kind
from c2c_otel_exporters.publish import Publisher
from c2c_otel_exporters.store import Store


@pytest.fixture(autouse=True)
def same_providers() -> Iterator[None]:
    before = list(metrics.providers)
    yield
    metrics.providers[:] = before


class CustomProvider(Provider):
    """As in the README of the predecessor."""

    def __init__(self) -> None:
        super().__init__("my_metrics", "My Metric")

    def get_data(self) -> Any:
        return [({"metadata_key": "matadata_value"}, 42)]


def published(*providers: Provider) -> dict[str, dict[Any, float]]:
    store = Store(None)
    publisher = Publisher(store, registry=prometheus_client.CollectorRegistry(), providers=providers)
    publisher.publish()
    publisher.stop()
    return {
        family.metric.name: {labels: sample.values[0] for labels, sample in family.series.items()}
        for family in store.families()
    }


def test_readme_example_reaches_the_store() -> None:
    add_provider(CustomProvider())
    add_provider(MemoryMapProvider("rss"))
    add_provider(MemoryMapProvider("size", pids=[str(os.getpid())]))
    shown = published(*metrics.providers)
    assert shown["my_metrics"] == {(("metadata_key", "matadata_value"),): 42}
    ours = [name for name in shown if name.startswith(("pod_", "my_"))]  # other tests have added others
    assert ours == [
        "pod_process_smap_pss_kb",
        "my_metrics",
        "pod_process_smap_rss_kb",
        "pod_process_smap_size_kb",
    ]


def test_provider_has_what_it_was_told() -> None:
    provider = Provider("name", "Help", "counter", False)
    assert (provider.name, provider.help, provider.type, provider.extend) == ("name", "Help", "counter", False)
    assert CustomProvider().type == "gauge" and CustomProvider().extend
    with pytest.raises(NotImplementedError):
        provider.get_data()


def test_counter_provider_is_a_counter() -> None:
    class Count(Provider):
        def get_data(self) -> Any:
            return [({}, 3)]

    store = Store(None)
    publisher = Publisher(
        store, registry=prometheus_client.CollectorRegistry(), providers=[Count("done_total", "Done", "counter")]
    )
    publisher.publish()
    publisher.stop()
    (family,) = store.families()
    assert family.metric.kind is Kind.COUNTER and family.series[()].values == (3,)


def test_provider_of_the_same_name_replaces() -> None:
    first, second = CustomProvider(), CustomProvider()
    add_provider(first)
    add_provider(second)
    assert [provider for provider in metrics.providers if provider.name == "my_metrics"] == [second]


@pytest.mark.parametrize(
    ("hostname", "service"),
    [
        ("shop-api-5d4f8c7b9d-x2x7q", "shop-api"),
        ("shop-7f9c4d5b6-abcde", "shop"),
        ("shop-1234567890-2k4xz", "shop"),
        ("shop", None),
        ("my-web-server", None),
        ("shop-0", None),
        ("5d4f8c7b9d-x2x7q", None),
        ("ip-10-0-0-1", None),
        ("c0ffee123456", None),
    ],
)
def test_pod_labels(monkeypatch: pytest.MonkeyPatch, hostname: str, service: str | None) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    ((labels, value),) = CustomProvider().labelled()
    more = {"pod_name": hostname, "service_name": service} if service else {}
    assert (labels, value) == ({"metadata_key": "matadata_value", **more}, 42)
    plain = CustomProvider()
    plain.extend = False
    assert list(plain.labelled()) == [({"metadata_key": "matadata_value"}, 42)]


@given(st.text())
def test_any_host_name_will_do(hostname: str) -> None:
    labels = metrics._pod_labels(hostname)
    assert labels == {} or labels["pod_name"] == hostname


def test_a_label_of_the_same_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Provider):
        def get_data(self) -> Any:
            return [({"pod_name": "mine"}, 1)]

    monkeypatch.setattr(socket, "gethostname", lambda: "shop-5d4f8c7b9d-x2x7q")
    ((labels, _),) = Own("o", "O").labelled()
    assert labels == {"pod_name": "mine", "service_name": "shop"}


# -- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_type", ["pss", "rss", "size"])
def test_memory_of_this_process_by_mapping(memory_type: str) -> None:
    provider = MemoryMapProvider(memory_type)
    assert provider.name == f"pod_process_smap_{memory_type}_kb"
    data = {labels["name"]: value for labels, value in provider.get_data()}
    assert {labels["pid"] for labels, _ in provider.get_data()} == {str(os.getpid())}
    assert {"[heap]", "[stack]", "[anon]"} <= set(data)
    assert any(name.startswith("/") for name in data)
    assert all(value > 0 for value in data.values())


def test_mappings_add_up_to_what_the_kernel_says() -> None:
    rollup = re.search(r"^Rss: +(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert rollup is not None
    assert sum(value for _, value in MemoryMapProvider("rss").get_data()) == pytest.approx(int(rollup[1]), rel=0.1)


def test_the_kernel_is_not_asked_each_second() -> None:
    slow, quick = MemoryMapProvider(), MemoryMapProvider(refresh_seconds=0)
    assert slow.get_data() is slow.get_data()
    assert quick.get_data() is not quick.get_data()


def test_unknown_memory_type_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_type is 'uss'; expected pss, rss or size"):
        MemoryMapProvider("uss")


def test_processes_that_are_gone_are_left_out() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    data = MemoryMapProvider("pss", pids=[gone.pid, os.getpid(), "no pid"]).get_data()
    assert {labels["pid"] for labels, _ in data} == {str(os.getpid())}


def test_an_unreadable_process_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "open", refuse)
    assert list(MemoryMapProvider().get_data()) == []


GUNICORN = """
import os, sys
if sys.argv[1] == "gunicorn":
    import gunicorn.arbiter
from c2c_otel.metrics import MemoryMapProvider
parent = os.getpid()
pid = os.fork()
if pid == 0:
    pids = list(dict.fromkeys(labels["pid"] for labels, _ in MemoryMapProvider().get_data()))
    print(["own" if pid == str(os.getpid()) else "arbiter" if pid == str(parent) else pid for pid in pids], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(("master", "expected"), [("gunicorn", "['own', 'arbiter']"), ("other", "['own']")])
def test_a_gunicorn_worker_tells_of_its_arbiter_too(master: str, expected: str) -> None:
    run = subprocess.run([sys.executable, "-c", GUNICORN, master], capture_output=True, text=True, check=True)
    assert re.sub(r"\s+$", "", run.stdout) == expected
