from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.instrumentation import wsgi_attributes
from tests.pyramid_kit import environ


@pytest.mark.parametrize(
    ("more", "address", "port"),
    [
        ({"HTTP_HOST": "example.com"}, "example.com", 80),
        ({"HTTP_HOST": "example.com:8080"}, "example.com", 8080),
        ({"HTTP_HOST": "example.com", "wsgi.url_scheme": "https"}, "example.com", 443),
        ({"HTTP_HOST": "[2001:db8::1]:81"}, "2001:db8::1", 81),
        ({"HTTP_HOST": "[2001:db8::1]"}, "2001:db8::1", 80),
        ({"HTTP_HOST": "x:²"}, "x", 80),
        ({"HTTP_HOST": "[["}, "[", 80),
        ({"HTTP_HOST": "", "SERVER_NAME": "me", "SERVER_PORT": "99"}, "me", 99),
        ({"HTTP_HOST": "", "SERVER_NAME": "unix", "SERVER_PORT": ""}, "unix", 80),
    ],
)
def test_server(more: dict[str, Any], address: str, port: int) -> None:
    found = wsgi_attributes.attributes(environ(**more), "GET")
    assert (found["server.address"], found["server.port"]) == (address, port)


def test_path() -> None:
    found = wsgi_attributes.attributes(environ("/a b/é".encode().decode("latin-1"), SCRIPT_NAME="/app"), "GET")
    assert found["url.path"] == "/app/a%20b/%C3%A9"


@pytest.mark.parametrize(
    "name", ["secret", "Secret", "api_key", "API-Key", "access_token", "sig", "s%65cret", "my+secret"]
)
def test_secrets_are_redacted(name: str) -> None:
    query = f"a=1&{name}=value&b=2;{name}=value"
    assert wsgi_attributes.redacted_query(query) == f"a=1&{name}=REDACTED&b=2;{name}=REDACTED"


@pytest.mark.parametrize("query", ["a=secret", "a=1&b=%65", "", "secret", "design=1", "&&;=", "a=b=secret"])
def test_the_rest_stays(query: str) -> None:
    assert wsgi_attributes.redacted_query(query) == query


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8))), st.text(min_size=12, max_size=12))
def test_no_secret_survives(pairs: list[tuple[str, str]], value: str) -> None:
    query = urlencode([*pairs, ("secret", value)])
    redacted = parse_qsl(wsgi_attributes.redacted_query(query), keep_blank_values=True)
    assert redacted[-1] == ("secret", "REDACTED")
    assert [name for name, _ in redacted] == [*(name for name, _ in pairs), "secret"]


@given(st.text(alphabet=st.characters(max_codepoint=255)), st.text(alphabet=st.characters(max_codepoint=255)))
def test_nothing_in_an_environ_makes_it_fail(path: str, host: str) -> None:
    more = {"PATH_INFO": path, "HTTP_HOST": host, "QUERY_STRING": host, "HTTP_USER_AGENT": host}
    found = wsgi_attributes.attributes(environ(**more), "GET")
    assert found["url.path"].isascii()
    assert all(isinstance(value, str | int) for value in found.values())


def test_methods() -> None:
    assert wsgi_attributes.known_method("PATCH") == "PATCH"
    assert wsgi_attributes.known_method("get") == "_OTHER"
