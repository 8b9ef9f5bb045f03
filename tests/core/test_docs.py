"""The texts say what is: generated parts are current, names exist, lines are those that are sent, examples run."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import opentelemetry.environment_variables
import opentelemetry.instrumentation.environment_variables
import opentelemetry.sdk.environment_variables
import pytest
from prometheus_client.parser import text_string_to_metric_families

from c2c_otel import cli, metrics, request_id, stats, telemetry
from c2c_otel.db import routing
from c2c_otel.health_check import runner
from c2c_otel.settings import Settings, rows
from c2c_otel.testing import capture
from c2c_otel_exporters import guard, log_lines, names
from tests.provision.docs import ROOT, readme_with_table

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text() for page in PAGES}
BY_HAND = {name: text for name, text in TEXT.items() if name != "settings.md"}
BY_HAND["README.md"] = re.sub(r"<!-- settings -->.*<!-- /settings -->", "", TEXT["README.md"], flags=re.DOTALL)

PACKAGES = ("c2c_otel", "exporters/c2c_otel_exporters", "views/c2c_otel_views")

# Variables that neither our table nor the packages of OpenTelemetry declare.
OTHERS = {
    "OTEL_PYTHON_PYRAMID_EXCLUDED_URLS",  # opentelemetry.util.http makes these names
    "OTEL_PYTHON_REQUESTS_EXCLUDED_URLS",
    "OTEL_SEMCONV_STABILITY_OPT_IN",
    "PROMETHEUS_MULTIPROC_DIR",  # prometheus_client's
    "C2C_JSON_PRETTY_PRINT",  # the predecessor's, in migrating.md
    "C2C_JSON_SORT_KEYS",
    "C2C_PROMETHEUS_PORT",
    "GUNICORN_THREADS",
    "GUNICORN_WORKERS",
    "SQLALCHEMY_URL",  # the demo application's
}


def each(pattern: str) -> dict[str, set[str]]:
    """Which pages have which texts, by the first group."""
    seen: dict[str, set[str]] = {}
    for name, text in BY_HAND.items():
        for match in re.finditer(pattern, text):
            seen.setdefault(match[1], set()).add(name)
    assert seen, f"nothing matches {pattern}"
    return seen


# -- what is generated ------------------------------------------------------------------------------------------------


def test_settings_are_current() -> None:
    assert TEXT["settings.md"] == f"{cli.settings_page()}\n", "make docs"
    assert TEXT["settings.md"].startswith("# Settings\n")
    assert README.read_text() == readme_with_table(README.read_text()), "make docs"


def test_markdown_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == TEXT["settings.md"]


# -- names ------------------------------------------------------------------------------------------------------------


def declared(module: ModuleType) -> set[str]:
    return {str(value) for name, value in vars(module).items() if name.startswith("OTEL_") and isinstance(value, str)}


def test_every_variable_exists() -> None:
    ours = {row.env for row in rows()}
    known = ours | OTHERS | set(os_names())
    for module in (
        opentelemetry.environment_variables,
        opentelemetry.instrumentation.environment_variables,
        opentelemetry.sdk.environment_variables,
    ):
        known |= declared(module)
    used = each(
        r"\b((?:C2C|OTEL|STATSD|STATS|LOG|SQL|GUNICORN|SENTRY|OTHER|PROMETHEUS|SQLALCHEMY)_[A-Z0-9_]*[A-Z0-9])\b"
    )
    families = tuple(row.env.rstrip("*") for row in rows() if row.env.endswith("*"))
    wrong = {name: pages for name, pages in used.items() if name not in known and not name.startswith(families)}
    assert not wrong
    assert "C2C_SQL_REQUEST_ID" in used


def os_names() -> Iterator[str]:
    """Families stand with their prefix alone, too."""
    for row in rows():
        if row.env.endswith("*"):
            yield row.env.rstrip("*_")


def test_every_setting_that_has_an_effect_is_explained() -> None:
    """Outside of the table, and not only where it says that it has none."""
    texts = "\n".join(BY_HAND.values())
    left_out = {
        "OTEL_TRACES_EXPORTER",  # deploying.md speaks of all three
        "OTEL_METRICS_EXPORTER",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",  # OpenTelemetry's own, which do what they do elsewhere
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_METRIC_EXPORT_TIMEOUT",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
    }
    missing = {row.env for row in rows() if row.env.rstrip("*") not in texts}
    assert missing <= left_out


def test_every_ini_key_exists() -> None:
    attributes = {request_id.ATTRIBUTE, routing.ROLE, routing.REASON, runner.NAME, runner.LEVEL}
    known = {row.ini for row in rows()} | attributes
    assert set(each(r"`(c2c\.[a-z_.]+)")) <= known


def test_every_module_and_name_exists() -> None:
    for path, pages in each(r"\b(c2c_otel(?:_exporters|_views)?(?:\.[A-Za-z_]+)+)\b").items():
        resolve(path, pages)


def resolve(path: str, pages: set[str]) -> object:
    """The object of a dotted path."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            assert hasattr(found, name), f"{path} in {pages}"
            found = getattr(found, name)
        return found
    raise AssertionError(f"{path} in {pages}")


def test_every_command_exists() -> None:
    points = importlib.metadata.distribution("c2c-otel").entry_points
    scripts = {point.name for point in points if point.group == "console_scripts"}
    assert set(each(r"(?<![\w/-])(c2c-otel-[a-z-]+[a-z])\b")) <= scripts
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(each(r"`make ([a-z]+)`")) <= targets


def test_every_extra_exists() -> None:
    known = set(importlib.metadata.metadata("c2c-otel").get_all("Provides-Extra") or ())
    assert set(each(r"c2c-otel\[([a-z]+)\]")) <= known


def test_every_entry_point_exists() -> None:
    known = {(point.group, point.name) for point in importlib.metadata.distribution("c2c-otel").entry_points}
    assert {("opentelemetry_logs_exporter", "c2c_json"), ("opentelemetry_logs_exporter", "c2c_cee")} <= known
    assert {("opentelemetry_distro", "c2c"), ("opentelemetry_configurator", "c2c")} <= known
    assert {("plaster.loader_factory", name) for name in ("c2c", "c2c+ini", "c2c+egg")} <= known


def test_every_link_leads_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#]+)\)", page.read_text())]
    assert len(links) > 10
    assert not [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_table_of_files_is_complete() -> None:
    section = ""
    listed: list[str] = []
    for line in TEXT["architecture.md"].splitlines():
        cell = line.split("|")[1] if line.startswith("| ") else ""
        if package := re.match(r" \*\*(.*)/\*\*", cell):
            section = package[1]
        elif section:
            files = re.findall(r"`([^`]+\.py)`", cell)
            folder = ""
            for file in files:  # `instrumentation/pyramid.py`, `pyramid_render.py`: the first one names the folder
                if "/" in file and not folder and file.startswith("instrumentation/"):
                    folder = "instrumentation/"
                listed.append(f"{section}/{file if '/' in file else folder + file}")
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert sorted(listed) == sorted(there)


# -- metrics.md -------------------------------------------------------------------------------------------------------


def measure_everything() -> None:
    """Each automatic measurement once, with all the labels that it can have."""
    timer = telemetry.get().sink.timer
    timer(names.route, "GET", "hello", "/hello", 200, "http", None).observe(0.012)
    timer(names.route, "GET", None, None, 404, "http", None).observe(0.012)
    timer(names.render, "GET", "hello", "/hello", 200).observe(0.0004)
    query = "SELECT FROM hello WHERE id = ?"
    timer(names.sql, "postgresql", "shop", "db", 5432, query, "SELECT", "SELECT hello", None).observe(0.0025)
    timer(names.sql_commit, "postgresql", "shop", "db", 5432, None).observe(0.003)
    timer(names.request, "https", "example.com", None, "GET", 200, None).observe(0.02)
    timer(names.request, "https", "example.com", None, "GET", 999, "ConnectTimeout").observe(0.02)
    timer(names.redis, "GET", True, 0, "cache", 6379, None).observe(0.001)


def block(marker: str) -> list[str]:
    match = re.search(rf"<!-- {marker} -->\n```\n(.*?)\n```", TEXT["metrics.md"], re.DOTALL)
    assert match, marker
    return match[1].split("\n")


@pytest.mark.parametrize(("marker", "use_tags"), [("statsd untagged", False), ("statsd tagged", True)])
def test_statsd_lines_are_those_that_are_sent(marker: str, use_tags: bool) -> None:
    settings = Settings(statsd_prefix="shop", statsd_tags={"env": "prod"}, statsd_use_tags=use_tags)
    with capture(settings) as captured:
        measure_everything()
    assert captured.statsd == block(marker)


def table(marker: str) -> dict[str, list[str]]:
    """Rows of a table by the names in their first cell."""
    match = re.search(rf"<!-- {marker} -->\n((?:\|.*\n)+)", TEXT["metrics.md"])
    assert match, marker
    made = {}
    for line in match[1].splitlines()[2:]:
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`([^`]+)`", first):
            made[name] = others
    return made


def test_the_table_of_metrics_is_what_is_shown() -> None:
    described = table("metrics")
    guard.tally["example"] += 1  # something that was dropped
    try:
        with capture() as captured:
            measure_everything()
            telemetry.get().sink.timer(names.route, "GET", "a", "/a", 500, "http", "ValueError").observe(1)
            telemetry.get().sink.timer(names.redis, "GET", False, 0, "cache", 6379, "TimeoutError").observe(1)
            stats.timer(["a"]).stop()
            stats.increment_counter(["a"])
            stats.set_gauge(["a"], 1)
            shown = captured.metrics_text()
    finally:
        del guard.tally["example"]
    seen: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(shown):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        seen[name] = (family.type, labels)
    if not Path("/proc/self/smaps").exists():
        described.pop("pod_process_smap_pss_kb")
    assert seen == {name: (cells[0], set(re.findall(r"`(\w+)`", cells[1]))) for name, cells in described.items()}
    assert metrics.MemoryMapProvider().name in described


def test_buckets_are_those_of_the_code() -> None:
    shown = {name: tuple(map(float, cells[0].split())) for name, cells in table("buckets").items()}
    code = [names.HTTP_SERVER, names.HTTP_CLIENT, names.RENDER, names.DB_CLIENT, names.TIMER]
    assert shown == {f"{metric.name.replace('.', '_')}_seconds": metric.buckets for metric in code}


@pytest.mark.parametrize("use_tags", [False, True])
def test_the_statistics_api_comes_out_as_it_is_told(use_tags: bool) -> None:
    code = re.search(r"### c2c_otel.stats\n\n```python\n(.*?)```", TEXT["metrics.md"], re.DOTALL)
    calls = r"^\| `(?:timer_context|outcome_timer_context|increment_counter|set_gauge)\(.*?\| (.*)\|$"
    cells = re.findall(calls, TEXT["metrics.md"], re.MULTILINE)
    assert code and len(cells) == 4
    with capture(Settings(statsd_use_tags=use_tags, stats_view=True)) as captured:
        exec(code[1], {})
        lines, shown = captured.statsd, captured.metrics_text()
        body = captured.stats()
    told = "\n".join(cells).replace("\\|", "|")
    mine = [line for line in lines if not line.startswith("import.all")]
    assert len(mine) == 4
    for line in mine:
        assert f"`{line}`" in told
    for key in (key for section in body.values() for key in section if key != "import/all"):
        assert f"`{key}`" in told
    for sample in ('c2c_otel_events_total{key="import/points"} 12.0', 'c2c_otel_value{key="import/waiting"} 3.0'):
        assert sample in shown
        assert f"`{sample.split()[0]}`" in told


_INSTRUMENTS = """
import re, sys
from pathlib import Path
from opentelemetry import metrics
from c2c_otel.testing import capture
text = Path(sys.argv[1]).read_text()
code = re.search(r"### OpenTelemetry instruments\\n\\n```python\\n(.*?)```", text, re.DOTALL)[1]
with capture() as captured:
    exec(code, {})
    free = lambda options: [metrics.Observation(7)]
    metrics.get_meter("x").create_observable_gauge("pool.free", callbacks=[free])
    shown = captured.metrics_text()
    assert len(captured.statsd) == 6, captured.statsd
    for line in captured.statsd:
        assert line.replace("|", "\\\\|") in text, line
samples = ['orders_total{kind="web"} 2.0', "parcel_weight_kg_count 1.0", "queue_length 3.0", "pool_free 7.0"]
for name in [*samples, "temperature_celsius 21.5"]:
    assert name in shown, name
    assert f"`{name.split()[0].removesuffix('_count')}`" in text, name
"""


def test_instruments_come_out_as_it_is_told() -> None:
    """In a process of its own: OpenTelemetry's MeterProvider is set but once."""
    run([sys.executable, "-c", _INSTRUMENTS, str(ROOT / "docs/metrics.md")])


# -- logs.md ----------------------------------------------------------------------------------------------------------


def test_every_field_of_a_log_line_is_listed() -> None:
    section = TEXT["logs.md"].partition("## Fields")[2].partition("## Syslog")[0]
    first_cells = "".join(re.findall(r"^\|([^|]*)\|", section, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(log_lines.FIXED)


# -- examples ---------------------------------------------------------------------------------------------------------


def run(command: list[str], **more: Any) -> str:
    ours = ("C2C_", "STATS", "LOG_", "OTEL_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=plain, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_examples_run(tmp_path: Path) -> None:
    """The Python blocks of a page, one after the other, are a test file."""
    count = 0
    for name, text in TEXT.items():
        code = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if code:
            (tmp_path / f"test_{name.removesuffix('.md').lower()}.py").write_text("\n".join(code))
            count += 1
    assert count >= 5
    said = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."], cwd=tmp_path)
    tests = sum(len(re.findall(r"^def test_", text, re.MULTILINE)) for text in TEXT.values())
    assert f"{tests} passed" in said, said


def test_an_example_of_an_error() -> None:
    match = re.search(r"\$ (STATSD_ADDRESS=nohost) .*\n(c2c-otel-instrument: .*)\n", TEXT["deploying.md"])
    assert match
    program = str(Path(sys.executable).with_name("c2c-otel-instrument"))
    variable, value = match[1].split("=")
    done = subprocess.run([program, "true"], capture_output=True, text=True, env={**os.environ, variable: value})
    assert (done.returncode, done.stderr.strip()) == (2, match[2])
