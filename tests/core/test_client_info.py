"""Who is believed about the client, and what an application then sees."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyramid.response import Response
from webob import Request

from c2c_otel.client_info import Filter, Resolver
from c2c_otel.settings import ConfigurationError, Settings
from tests import pyramid_kit as kit

PRIVATE = Settings().trusted_proxies
CLIENT, SPOOFED = "203.0.113.7", "198.51.100.66"


def seen(peer: str = "10.0.0.1", trusted: Any = PRIVATE, **headers: str) -> Request:
    """The request that an application behind the filter gets."""
    environ = Request.blank("/here?a=1", base_url="http://inside:8080").environ
    environ["REMOTE_ADDR"] = peer
    environ.update({f"HTTP_{name}": value for name, value in headers.items()})
    got: list[Any] = []
    Filter(lambda environ, start_response: got.append(environ) or [], trusted)(environ, None)
    return Request(got[0])


def test_what_a_trusted_proxy_says_is_what_the_application_sees() -> None:
    request = seen(X_FORWARDED_FOR=CLIENT, X_FORWARDED_HOST="shop.example", X_FORWARDED_PROTO="https")
    assert (request.client_addr, request.remote_addr) == (CLIENT, CLIENT)
    assert request.url == "https://shop.example/here?a=1"
    assert (request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]) == ("shop.example", "443")
    assert request.environ["HTTP_ORIGINAL_X_FORWARDED_FOR"] == CLIENT
    assert request.environ["HTTP_ORIGINAL_REMOTE_ADDR"] == "10.0.0.1"
    assert request.environ["HTTP_ORIGINAL_HOST"] == "inside:8080"


def test_forwarded_wins_and_takes_every_form_of_the_rfc() -> None:
    request = seen(
        FORWARDED='For="[2001:db8::17]:4711" ; proto=HTTPS;host="shop.example:8443";by=10.0.0.1',
        X_FORWARDED_FOR=SPOOFED,
    )
    assert request.client_addr == "2001:db8::17"
    assert request.host_url == "https://shop.example:8443"
    assert request.environ["SERVER_PORT"] == "8443"


def test_nobody_else_is_believed() -> None:
    request = seen(SPOOFED, X_FORWARDED_FOR=CLIENT, X_FORWARDED_HOST="evil.example", X_FORWARDED_PROTO="https")
    assert request.client_addr == SPOOFED
    assert request.host_url == "http://inside:8080"
    request = seen(SPOOFED, FORWARDED=f"for={CLIENT};host=evil.example;proto=https")
    assert (request.client_addr, request.host_url) == (SPOOFED, "http://inside:8080")


def test_what_the_client_wrote_itself_is_not_reached() -> None:
    request = seen(
        X_FORWARDED_FOR=f"{SPOOFED}, {CLIENT}, 10.0.0.9", X_FORWARDED_HOST="evil.example, shop.example, inner"
    )
    assert (request.client_addr, request.host) == (CLIENT, "shop.example")
    request = seen(
        FORWARDED=f"for={SPOOFED};host=evil.example, for={CLIENT};host=shop.example, for=10.0.0.9;host=inner"
    )
    assert (request.client_addr, request.host) == (CLIENT, "shop.example")


def test_all_proxies_trusted_the_first_one_is_the_client() -> None:
    assert seen(X_FORWARDED_FOR="192.168.1.5, 10.0.0.9").client_addr == "192.168.1.5"


def test_a_hop_that_hides_ends_the_way() -> None:
    assert seen(FORWARDED=f"for={CLIENT}, for=unknown;proto=https, for=10.0.0.9").client_addr == "10.0.0.9"
    assert seen(FORWARDED="for=_hidden;proto=https").scheme == "https"
    assert seen(X_FORWARDED_FOR=f"{CLIENT}, not-an-address").client_addr == "10.0.0.1"


def test_a_host_that_only_the_outer_proxy_has_set_is_kept() -> None:
    request = seen(X_FORWARDED_FOR=f"{CLIENT}, 10.0.0.9", X_FORWARDED_HOST="shop.example", X_FORWARDED_PROTO="https")
    assert (request.client_addr, request.host_url) == (CLIENT, "https://shop.example")


def test_the_older_names() -> None:
    request = seen(X_FORWARDED_FOR=CLIENT, X_FORWARDED_SERVER="shop.example", X_FORWARDED_SCHEME="https")
    assert request.host_url == "https://shop.example"


@pytest.mark.parametrize("peer", ["", "127.0.0.1", "::1", "::ffff:10.0.0.1", "fd00::1"])
def test_trusted_by_default(peer: str) -> None:
    assert seen(peer, X_FORWARDED_FOR=CLIENT).client_addr == CLIENT


def test_port_and_brackets_are_no_part_of_an_address() -> None:
    assert seen(X_FORWARDED_FOR=f"{CLIENT}:1234").client_addr == CLIENT
    assert seen(X_FORWARDED_FOR="[2001:db8::1]:80").client_addr == "2001:db8::1"
    assert seen(X_FORWARDED_FOR="2001:db8::1").client_addr == "2001:db8::1"
    assert seen(X_FORWARDED_FOR="fe80::1%<b>any text</b>").client_addr == "fe80::1"


@pytest.mark.parametrize(
    "value",
    [
        "for",
        "for=",
        "=x",
        'for="unclosed',
        "for=1.2.3.4;for=5.6.7.8",
        "for=1.2.3.4 proto=https",
        "for = 1.2.3.4",
        ",;,",
        "é",
    ],
)
def test_a_malformed_header_is_ignored(value: str) -> None:
    request = seen(FORWARDED=value)
    assert (request.client_addr, request.host_url) == ("10.0.0.1", "http://inside:8080")


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
@example('for="\\"";host="a\\b"', "", "", "")
@example(",,,", ",", "a b", "javascript")
def test_any_text_leaves_a_request_that_can_be_served(forwarded: str, addresses: str, host: str, proto: str) -> None:
    for headers in (
        {"FORWARDED": forwarded},
        {"X_FORWARDED_FOR": addresses, "X_FORWARDED_HOST": host, "X_FORWARDED_PROTO": proto},
    ):
        request = seen(**headers)
        ipaddress.ip_address(request.client_addr)
        assert request.scheme in ("http", "https")
        assert not set(request.host) & set(" \t\r\n<>\"'/\\@")


@pytest.mark.parametrize(("port", "believed"), [("65535", True), ("65536", False), ("99999", False)])
def test_a_port_that_there_is_not(port: str, believed: bool) -> None:
    request = seen(X_FORWARDED_HOST=f"shop.example:{port}")
    assert request.host == (f"shop.example:{port}" if believed else "inside:8080")


def test_the_way_is_walked_once() -> None:
    environ = {"REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", "HTTP_X_FORWARDED_FOR": f"{SPOOFED}, {CLIENT}"}
    for _ in range(2):
        Resolver(PRIVATE).resolve(environ)
        environ["HTTP_X_FORWARDED_FOR"] = SPOOFED  # as a middleware in between might
    assert environ["REMOTE_ADDR"] == CLIENT


def test_the_setting() -> None:
    def trusted(text: str) -> Any:
        return Settings.load({"C2C_TRUSTED_PROXIES": text}).trusted_proxies

    assert trusted("private") == PRIVATE
    assert trusted("none") == ()
    assert trusted("192.0.2.1, 2001:db8::/32") == (
        ipaddress.ip_network("192.0.2.1/32"),
        ipaddress.ip_network("2001:db8::/32"),
    )
    assert seen("10.0.0.1", (), X_FORWARDED_FOR=CLIENT).client_addr == "10.0.0.1"
    for bad in ("none, private", "10.0.0.1/8", "proxy.example"):
        with pytest.raises(ConfigurationError, match="C2C_TRUSTED_PROXIES is '"):
            trusted(bad)


def test_the_include_has_it_and_the_launcher_alone_does_not(monkeypatch: Any) -> None:
    kit.install(monkeypatch)

    def view(request: Any) -> Response:
        return Response(f"{request.client_addr} {request.url}")

    said = {"HTTP_X_FORWARDED_FOR": CLIENT, "HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "shop.example"}
    included = kit.make({"here": view}, lambda config: config.include("c2c_otel"))
    assert (
        kit.get(included, "/here", REMOTE_ADDR="10.0.0.1", **said).body
        == f"{CLIENT} https://shop.example/here".encode()
    )
    assert kit.get(included, "/here", REMOTE_ADDR=SPOOFED, **said).body.startswith(SPOOFED.encode())
    launched = kit.make({"here": view})
    assert b"shop.example" not in kit.get(launched, "/here", REMOTE_ADDR="10.0.0.1", **said).body
