"""The tables of names: what they promise exists, and docs/migrating.md shows what they say."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path

import pytest

from c2c_otel.migration import names

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "migrating.md").read_text()

# Public names of 4.1.1 (documented, or in its public modules) and of 6.1.10 beyond them; all have a place.
_NAMES = """
acceptance.retry acceptance.composition.Composition acceptance.connection.CacheExpected acceptance.connection.Connection
acceptance.connection.check_response
acceptance.print.PrintConnection acceptance.utils.approx acceptance.utils.in_docker acceptance.utils.retry_timeout
acceptance.utils.wait_url acceptance.image.check_image acceptance.image.check_image_file
acceptance.image.check_screenshot auth.auth_view auth.get_expected_secret auth.is_auth auth.is_enabled
broadcast.broadcast broadcast.decorator broadcast.init broadcast.subscribe broadcast.unsubscribe client_info.Filter
config_utils.get_base_path db.create_session db.setup_session debug.dump_memory_maps debug.get_size debug.init
debug.init_daemon debug.utils.dump_memory_maps debug.utils.get_size errors.init errors.includeme health_check.EngineType
health_check.HealthCheck health_check.JsonCheckException index.additional_auth index.additional_noauth
index.additional_title index.button index.form index.input_ index.link index.paragraph index.section loader.Loader
metrics.MemoryMapProvider metrics.Provider metrics.add_provider models_graph.generate_model_graph pretty_json.includeme
prometheus.PushgatewayGroupPublisher pyramid.includeme pyramid_logging.JsonLogHandler
pyramid_logging.PyramidCeeSysLogHandler sentry.capture_exceptions sentry.filter_wsgi_app sentry.init services.create
setup_process.init sqlalchemylogger.handlers.SQLAlchemyHandler stats.Timer stats.increment_counter
stats.outcome_timer_context stats.set_gauge stats.timer stats.timer_context version.get_version wsgi.create_application
wsgi_app.application
"""
KEPT = _NAMES.split()


@pytest.mark.parametrize("name", KEPT)
def test_each_kept_name_exists(name: str) -> None:
    old = f"{names.OLD}.{name}"
    assert names.gone(old) is None
    new = names.moved(old)
    assert new is not None
    module, _, attribute = new.rpartition(".")
    if name.startswith("wsgi_app."):  # importing it starts the application of /app/production.ini
        assert importlib.util.find_spec(module) is not None
        return
    assert hasattr(importlib.import_module(module), attribute), new


def test_what_is_gone_does_not_exist_under_its_new_name() -> None:
    """Where it came to be after all, the table is wrong."""
    there = []
    for old in names.GONE:
        module, _, attribute = (names.moved(old) or "").rpartition(".")
        if module and attribute in getattr(importlib.import_module(module), "__all__", ()):
            there.append(f"{module}.{attribute}")
    assert there == ["c2c_otel.sql_profiler.init"], "ours, which only the include calls"


def test_every_command_exists() -> None:
    points = importlib.metadata.distribution("c2c-otel").entry_points
    assert set(names.COMMANDS.values()) <= {point.name for point in points if point.group == "console_scripts"}


def test_every_extra_exists() -> None:
    known = set(importlib.metadata.metadata("c2c-otel").get_all("Provides-Extra") or ())
    assert {extra for extras in names.EXTRAS.values() for extra in extras} <= known


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2cwsgiutils", "c2c_otel"),
        ("c2cwsgiutils.stats.timer", "c2c_otel.stats.timer"),
        ("c2cwsgiutils.sqlalchemylogger.handlers.SQLAlchemyHandler", "c2c_otel.sqlalchemylogger.SQLAlchemyHandler"),
        ("c2cwsgiutils.redis_utils.get", None),
        ("c2cwsgiutils.db.init", "c2c_otel.db.init"),
        ("c2cwsgiutils_app.stats", None),
        ("other.c2cwsgiutils", None),
    ],
)
def test_moved(old: str, new: str | None) -> None:
    assert names.moved(old) == new


def test_gone() -> None:
    assert names.gone("c2cwsgiutils.redis_utils.get") is names.GONE["c2cwsgiutils.redis_utils"]
    assert names.gone("c2c_otel.db.init") is names.gone("c2cwsgiutils.db.init") is not None
    assert names.gone("c2c_otel.db.setup_session") is None
    assert names.gone("c2cwsgiutils.config_utils.get_base_path") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class = c2cwsgiutils.pyramid_logging.JsonLogHandler", ["c2cwsgiutils.pyramid_logging.JsonLogHandler"]),
        ("gunicorn c2cwsgiutils.wsgi_app:application", ["c2cwsgiutils.wsgi_app"]),
        ("c2cwsgiutils_app c2cwsgiutils-run my.c2cwsgiutils egg:c2cwsgiutils#sentry camptocamp/c2cwsgiutils:4", []),
        ("c2cwsgiutils.stats-x", []),
    ],
)
def test_dotted(text: str, found: list[str]) -> None:
    assert names.DOTTED.findall(text) == found


def test_commands() -> None:
    old = "c2cwsgiutils-run c2cwsgiutils_stats_db.py c2cwsgiutils-stats-db-x my-c2cwsgiutils-run c2cwsgiutils_run"
    new = "c2c-otel-run c2c-otel-stats-db c2cwsgiutils-stats-db-x my-c2cwsgiutils-run c2c-otel-run"
    assert names.command(old) == new


# -- the page ---------------------------------------------------------------------------------------------------------


def rows(marker: str) -> dict[str, str]:
    match = re.search(rf"<!-- {marker} -->\n((?:\|.*\n)+)", PAGE)
    assert match, marker
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in match[1].splitlines()[2:]]
    return {name: line[1] for line in cells for name in re.findall(r"`([^`]+)`", line[0])}


def test_the_page_has_every_kept_name() -> None:
    shown = rows("names")
    for name in KEPT:
        old = f"{names.OLD}.{name}"
        parents = [old, old.rpartition(".")[0], old.rpartition(".")[0].rpartition(".")[0]]
        (row, *_) = [parent for parent in parents if parent in shown] or [""]
        assert row, f"{old} is not in the table"
        assert f"`{names.text_moved(row)}`" in shown[row] or f"`{names.moved(row)}`" in shown[row], row


def test_the_page_has_every_name_that_is_gone() -> None:
    shown = rows("gone")
    assert set(shown) == set(names.GONE)
    for name, gone in names.GONE.items():
        assert gone.instead in shown[name], name


def test_every_section_that_is_named_exists() -> None:
    from c2c_otel.migration import settings

    headings = set(re.findall(r"^## (.+)$", PAGE, re.MULTILINE))
    assert {gone.section for gone in names.GONE.values()} <= headings
    assert {section for _, _, section in settings._SET} | {"Image", "Names"} <= headings


def test_the_page_has_every_command() -> None:
    shown = rows("commands")
    for old, new in names.COMMANDS.items():
        if not old.endswith((".py", "_run")):
            assert f"`{new}`" in shown[old]
