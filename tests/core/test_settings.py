"""Settings: one decoding for all, errors that help."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.settings import Address, ConfigurationError, Settings, rows

CONTRACT = """
C2C_BASE_PATH C2C_SECRET C2CWSGIUTILS_CONFIG C2C_LOG_VIEW_ENABLED C2C_DB_MAINTENANCE_VIEW_ENABLED
C2C_SQL_PROFILER_ENABLED C2C_DEBUG_VIEW_ENABLED C2C_ENABLE_EXCEPTION_HANDLING DEVELOPMENT C2C_REDIS_URL
C2C_REDIS_SENTINELS C2C_REDIS_SERVICENAME C2C_REDIS_DB C2C_REDIS_OPTIONS C2C_BROADCAST_PREFIX C2C_TRACK_REDIS
C2C_REQUEST_ID_HEADER C2C_REQUESTS_DEFAULT_TIMEOUT C2C_SQL_REQUEST_ID C2C_PROFILER_PATH C2C_PROFILER_MODULES
STATS_VIEW STATSD_ADDRESS STATSD_PREFIX STATSD_USE_TAGS STATSD_TAG_* SENTRY_URL SENTRY_CLIENT_* GIT_HASH SENTRY_TAG_*
SENTRY_LEVEL SENTRY_EXCLUDES LOG_LEVEL OTHER_LOG_LEVEL LOG_TYPE LOG_HOST LOG_PORT SQL_LOG_LEVEL GUNICORN_LOG_LEVEL
GUNICORN_PARAMS COVERAGE ES_URL ES_INDEXES ES_AUTH ES_FILTERS LOG_TIMEOUT
"""


def test_every_knob_of_the_predecessor_is_a_row() -> None:
    assert set(CONTRACT.split()) <= {row.env for row in rows()}


def test_environment_wins_over_ini_unless_it_is_empty() -> None:
    ini = {"c2c.statsd_prefix": "ini", "c2c.base_path": "/ini"}
    settings = Settings.load({"STATSD_PREFIX": "env", "C2C_BASE_PATH": ""}, ini)
    assert (settings.statsd_prefix, settings.base_path) == ("env", "/ini")
    assert settings.sources == {"statsd_prefix": "environment", "base_path": "ini"}


def test_empty_base_path_in_the_ini_means_no_prefix() -> None:
    assert Settings.load({}, {"c2c.base_path": ""}).base_path == ""


@pytest.mark.parametrize("word", ["1", "true", "TRUE", "t", "Yes", "y", "on", " on "])
def test_words_that_mean_on(word: str) -> None:
    assert Settings.load({"STATS_VIEW": word}).stats_view is True


@pytest.mark.parametrize("word", ["0", "false", "F", "no", "N", "OFF"])
def test_words_that_mean_off_for_every_flag(word: str) -> None:
    flags = [row for row in rows() if row.expected.startswith("one of 1")]
    assert len(flags) > 10
    settings = Settings.load({row.env: word for row in flags})
    assert not any(getattr(settings, row.name) for row in flags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8125", Address("127.0.0.1", 8125)),
        ("statsd.example.org:8125", Address("statsd.example.org", 8125)),
        ("[::1]:8125", Address("::1", 8125)),
        ("::1:8125", Address("::1", 8125)),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert Settings.load({"STATSD_ADDRESS": text}).statsd_address == expected


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 65535))
def test_an_address_reads_back(ip: object, port: int) -> None:
    address = Address(str(ip), port)
    assert Settings.load({"STATSD_ADDRESS": str(address)}).statsd_address == address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STATSD_ADDRESS", "localhost"),
        ("STATSD_ADDRESS", "localhost:http"),
        ("STATSD_ADDRESS", ":8125"),
        ("STATSD_ADDRESS", "localhost:70000"),
        ("STATS_VIEW", "flase"),
        ("C2C_BASE_PATH", "c2c"),
        ("C2C_REQUESTS_DEFAULT_TIMEOUT", "-1"),
        ("C2C_REQUESTS_DEFAULT_TIMEOUT", "nan"),
        ("C2C_METRICS_MAX_SERIES", "0"),
        ("C2C_TRACE_CONTEXT", "maybe"),
        ("C2C_REQUEST_ID_HEADER", "X Request"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_PORT", "abc"),
        ("C2C_REDIS_DB", "abc"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}; expected ")
    assert message.endswith(".")


def test_a_bad_ini_value_is_named_by_its_ini_key() -> None:
    with pytest.raises(ConfigurationError, match=r"^c2c\.stats_view is 'perhaps'; expected one of 1, true"):
        Settings.load({}, {"c2c.stats_view": "perhaps"})


def test_a_bad_secret_is_not_shown() -> None:
    secret_rows = [row for row in rows() if row.secret]
    assert {"C2C_SECRET", "C2C_REDIS_URL", "SENTRY_URL", "ES_AUTH"} <= {row.env for row in secret_rows}
    shown = {row.name: value for row, value, _ in Settings.load({"C2C_SECRET": "hush"}).describe()}
    assert shown["secret"] == "***"


def test_families_of_variables_have_lower_case_names() -> None:
    settings = Settings.load(
        {"STATSD_TAG_Env": "prod", "STATSD_TAG_A": "1", "STATSD_TAG_EMPTY": "", "STATSD_TAG_": "x"}
    )
    assert dict(settings.statsd_tags) == {"env": "prod", "a": "1"}


def test_settings_are_frozen() -> None:
    settings = Settings.load({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.base_path = "/x"  # type: ignore[misc]


@given(st.dictionaries(st.sampled_from([row.env for row in rows()]), st.text(max_size=20)))
def test_any_environment_is_decoded_or_named(environ: dict[str, str]) -> None:
    try:
        settings = Settings.load(environ)
    except ConfigurationError as error:
        assert error.name in environ
        assert error.expected
    else:
        for row, _, source in settings.describe():
            assert source == "default" or environ[row.env] != ""


def test_only_the_settings_read_the_environment() -> None:
    root = Path(__file__).parents[2]
    readers = {
        path.name
        for folder in ("c2c_otel", "exporters", "views")
        for path in (root / folder).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }
    assert readers == {"settings.py", "sitecustomize.py"}, "the latter runs where ours may not be installed"
