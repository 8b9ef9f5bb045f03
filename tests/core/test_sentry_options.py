"""What SENTRY_CLIENT_* and the like become for sentry_sdk.init, and which texts are refused."""

from __future__ import annotations

from typing import Any

import pytest
from sentry_sdk.consts import DEFAULT_OPTIONS

from c2c_otel.sentry import options
from c2c_otel.settings import ConfigurationError, Settings

DSN = "https://key@sentry.example.com/42"


def made(ini: dict[str, str] | None = None, **environ: str) -> dict[str, Any]:
    return options.arguments(Settings.load({"SENTRY_URL": DSN, **environ}, ini or {}))


def test_defaults() -> None:
    found = made()
    assert found["dsn"] == DSN
    assert found["ignore_errors"] == ["SystemExit"]
    assert "release" not in found and "environment" not in found
    for patches in ("default_integrations", "auto_enabling_integrations", "propagate_traces", "auto_session_tracking"):
        assert found[patches] is False
    assert set(found) <= set(DEFAULT_OPTIONS)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("ENVIRONMENT", "prod", "prod"),
        ("SERVER_NAME", "1", "1"),
        ("MAX_BREADCRUMBS", "7", 7),
        ("SAMPLE_RATE", "0.5", 0.5),
        ("SHUTDOWN_TIMEOUT", "1.5", 1.5),
        ("TRACES_SAMPLE_RATE", "0", 0.0),
        ("DEBUG", "yes", True),
        ("ATTACH_STACKTRACE", "off", False),
        ("INCLUDE_LOCAL_VARIABLES", "0", False),
        ("IN_APP_INCLUDE", "a, b", ["a", "b"]),
        ("MAX_REQUEST_BODY_SIZE", "Small", "small"),
        ("PROXY_HEADERS", "a=b, c=d=e", {"a": "b", "c": "d=e"}),
        ("AUTO_ENABLING_INTEGRATIONS", "true", True),
    ],
)
def test_an_option_has_its_type(variable: str, text: str, value: Any) -> None:
    found = made(**{f"SENTRY_CLIENT_{variable}": text})[variable.lower()]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("MAX_BREADCRUMBS", "many", "an integer"),
        ("SAMPLE_RATE", "2", "a number from 0 to 1"),
        ("SAMPLE_RATE", "nan", "a number from 0 to 1"),
        ("SHUTDOWN_TIMEOUT", "inf", "a number"),
        ("DEBUG", "maybe", "one of 1, true"),
        ("MAX_REQUEST_BODY_SIZE", "huge", "one of never, small, medium, always"),
        ("NO_SUCH_OPTION", "1", "an option of sentry_sdk.init"),
        ("BEFORE_SEND", "print", "nothing"),
        ("TRANSPORT", "x", "nothing"),
        ("_EXPERIMENTS", "{}", "nothing"),
        ("DSN", "x", "nothing. Set SENTRY_URL instead."),
        ("INTEGRATIONS", "sqlalchemy,no_such", "names of integrations"),
        ("INTEGRATIONS", "../os", "names of integrations"),
        ("PROXY_HEADERS", "hush", "name=value"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(variable: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(**{f"SENTRY_CLIENT_{variable}": text})
    message = str(caught.value)
    assert message.startswith(f"SENTRY_CLIENT_{variable} is ")
    assert expected in message
    assert "hush" not in message


@pytest.mark.parametrize(
    "url", ["nonsense", "https://sentry.example.com/42", "https://key@sentry.example.com", "ftp://k@h/1"]
)
def test_a_dsn_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.arguments(Settings(sentry_url=url))
    assert str(caught.value).startswith("SENTRY_URL is '***'; expected a DSN")


def test_exceptions_to_ignore() -> None:
    assert made(SENTRY_CLIENT_IGNORE_EXCEPTIONS="KeyError, my.Error")["ignore_errors"] == ["KeyError", "my.Error"]


def test_integrations_by_name() -> None:
    names = [found.identifier for found in made(SENTRY_CLIENT_INTEGRATIONS="sqlalchemy,redis,stdlib")["integrations"]]
    assert names == ["sqlalchemy", "redis", "stdlib"]


@pytest.mark.parametrize(
    ("environ", "release"),
    [
        ({"GIT_HASH": "abc"}, "abc"),
        ({"GIT_HASH": "abc", "SENTRY_CLIENT_RELEASE": "1.2"}, "1.2"),
        ({"GIT_HASH": "abc", "SENTRY_CLIENT_RELEASE": "latest"}, "abc"),
        ({"SENTRY_CLIENT_RELEASE": "latest"}, "latest"),
    ],
)
def test_the_release(environ: dict[str, str], release: str) -> None:
    assert made(**environ)["release"] == release
    if "GIT_HASH" in environ:
        assert made({"c2c.git_hash": environ.pop("GIT_HASH")}, **environ)["release"] == release


def test_both_ini_keys() -> None:
    for key in ("c2c.sentry_url", "c2c.sentry.url"):
        assert Settings.load({}, {key: DSN}).sentry_url == DSN
    both = {"c2c.sentry_url": DSN, "c2c.sentry.url": "https://other@h/1"}
    assert Settings.load({}, both).sentry_url == DSN
    assert Settings.load({"SENTRY_URL": "https://env@h/1"}, both).sentry_url == "https://env@h/1"


def test_loggers_with_colons_or_commas() -> None:
    assert Settings.load({"SENTRY_EXCLUDES": "a:b.c, d"}, {}).sentry_excludes == ("a", "b.c", "d")
    assert Settings.load({}, {"c2c.sentry.excludes": "a:b"}).sentry_excludes == ("a", "b")
    assert Settings.load({}, {}).sentry_excludes == ("sentry_sdk",)
