"""HTTP requests as a client of a REST API makes them, each answer checked: status, CORS, caching, type.

    api = Connection("http://localhost:8080/api/", "https://shop.example.com")
    assert api.get_json("hello/1") == {"id": 1, "value": "world"}
    api.delete("hello/1", cache_expected=CacheExpected.DONT_CARE)

What is not as expected is an AssertionError that has the method, the URL, the status and the start of the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import urlsplit

from c2c_otel.acceptance._extra import missing
from c2c_otel.acceptance.network import is_loopback
from c2c_otel_exporters import masking

try:
    import requests
    from requests.adapters import HTTPAdapter
except ImportError as _error:
    raise missing("c2c_otel.acceptance.connection", _error) from _error

__all__ = ["CacheExpected", "Connection", "Options", "check_response"]

_BODY_SHOWN = 1000  # characters: the message of most errors, not the page around it
_CONNECTIONS = 50  # kept open for threads that ask at the same time


class CacheExpected(Enum):
    """What an answer must say of being kept."""

    NO = 0
    """``Cache-Control: no-cache``."""
    YES = 1
    """``Cache-Control: max-age=`` more than 0, and no ``no-cache`` or ``no-store``."""
    DONT_CARE = 2


class Options(TypedDict, total=False):
    """Keywords of every request: the first three are ours, the others those of ``requests.Session.request``."""

    headers: Mapping[str, str | bytes | None] | None
    cors: bool
    cache_expected: CacheExpected
    params: Any
    data: Any
    json: Any
    files: Any
    auth: Any
    cookies: Any
    timeout: Any
    allow_redirects: bool
    proxies: Any
    hooks: Any
    stream: bool
    verify: Any
    cert: Any


class Connection:
    """A service under one base URL. ``url`` of each method is relative to it (or whole: ``http://...``).

    ``expected_status`` is a status or a tuple of them. With ``cors`` the request has the header ``Origin``, and a page
    of that origin must be allowed to read the answer: ``Access-Control-Allow-Origin`` is the origin or, where there is
    no ``Access-Control-Allow-Credentials``, ``*``. An answer of 204 has no content: None.

    Cookies and connections are kept from request to request (``session`` is a ``requests.Session``); several threads
    may ask at once. Hosts that are this machine are not asked through a proxy.
    """

    def __init__(
        self,
        base_url: str,
        origin: str,
        *,
        timeout: float = 60.0,  # seconds without a byte: gunicorn ends a worker after half of that
        cors: bool = True,
        cache_expected: CacheExpected = CacheExpected.NO,
    ) -> None:
        """``timeout``, ``cors`` and ``cache_expected`` hold for requests that do not say otherwise."""
        self.base_url = base_url if base_url.endswith("/") else f"{base_url}/"
        self.origin = origin
        self.timeout, self.cors, self.cache_expected = timeout, cors, cache_expected
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))

    def close(self) -> None:
        """Close what is open to the service; the next request opens it again."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> str | None:
        """The body as text."""
        return _text(self._ask("GET", url, expected_status, options))

    def get_raw(
        self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]
    ) -> requests.Response:
        """The answer itself. With ``stream=True`` it is the caller's to close."""
        return self._ask("GET", url, expected_status, options)

    def get_json(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> Any:
        """The body's JSON, whose content type must be that of JSON."""
        return _json(self._ask("GET", url, expected_status, options))

    def get_xml(
        self,
        url: str,
        schema: str | Path | None = None,
        expected_status: int | Iterable[int] = 200,
        **options: Unpack[Options],
    ) -> Any:
        """The body as an ``lxml.etree`` ElementTree, valid for the XML schema in that file where one is given."""
        return _xml(self._ask("GET", url, expected_status, options), schema)

    def head(
        self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]
    ) -> requests.Response:
        """The answer. Redirects are not followed, which ``requests`` does not do for HEAD."""
        options.setdefault("allow_redirects", False)
        return self._ask("HEAD", url, expected_status, options)

    def options(
        self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]
    ) -> requests.Response:
        """The answer. With ``cors`` it is the pre-flight of a GET, or of the ``Access-Control-Request-Method`` among
        ``headers``."""
        if options.get("cors", self.cors):
            options["headers"] = {"Access-Control-Request-Method": "GET", **(options.get("headers") or {})}
        return self._ask("OPTIONS", url, expected_status, options)

    # -- changing -----------------------------------------------------------------------------------------------------

    def post(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> str | None:
        """The body as text."""
        return _text(self._ask("POST", url, expected_status, options))

    def post_json(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> Any:
        """The answer's JSON; the request's is the keyword ``json``."""
        return _json(self._ask("POST", url, expected_status, options))

    def post_files(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> Any:
        """The answer's JSON; the keyword ``files`` is ``{field: file}``, ``data`` are the other fields."""
        return _json(self._ask("POST", url, expected_status, options))

    def put(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> str | None:
        """The body as text."""
        return _text(self._ask("PUT", url, expected_status, options))

    def put_json(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> Any:
        """The answer's JSON; the request's is the keyword ``json``."""
        return _json(self._ask("PUT", url, expected_status, options))

    def patch(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> str | None:
        """The body as text."""
        return _text(self._ask("PATCH", url, expected_status, options))

    def patch_json(self, url: str, expected_status: int | Iterable[int] = 200, **options: Unpack[Options]) -> Any:
        """The answer's JSON; the request's is the keyword ``json``."""
        return _json(self._ask("PATCH", url, expected_status, options))

    def delete(
        self, url: str, expected_status: int | Iterable[int] = 204, **options: Unpack[Options]
    ) -> requests.Response:
        """The answer."""
        return self._ask("DELETE", url, expected_status, options)

    # -- all of them --------------------------------------------------------------------------------------------------

    def _ask(self, method: str, url: str, expected_status: int | Iterable[int], options: Options) -> requests.Response:
        cors = options.pop("cors", self.cors)
        cache_expected = options.pop("cache_expected", self.cache_expected)
        headers = dict(options.pop("headers", None) or {})
        own = next((value for name, value in headers.items() if name.lower() == "origin" and value is not None), None)
        if cors and own is None:
            headers["Origin"] = self.origin
        options.setdefault("timeout", self.timeout)
        whole = url if urlsplit(url).scheme in ("http", "https") else self.base_url + url.removeprefix("/")
        host = is_loopback(whole)
        if host:
            options.setdefault("proxies", {"no_proxy": host})
        response = self.session.request(method, whole, headers=headers, **dict[str, Any](options))
        try:
            check_response(response, expected_status, cache_expected)
            if cors:
                _check_cors(response, self.origin if own is None else own)
        except BaseException:
            response.close()  # of one that is streamed, nobody else would
            raise
        return response


def check_response(
    response: requests.Response,
    expected_status: int | Iterable[int] = 200,
    cache_expected: CacheExpected = CacheExpected.DONT_CARE,
) -> None:
    """Raises AssertionError where the status or ``Cache-Control`` is another one."""
    expected = (expected_status,) if isinstance(expected_status, int) else tuple(expected_status)
    if response.status_code not in expected:
        raise _not(response, f"expected {' or '.join(map(str, expected))}")
    if cache_expected is not CacheExpected.DONT_CARE:
        _check_cache(response, cache_expected)


def _check_cache(response: requests.Response, expected: CacheExpected) -> None:
    text = response.headers.get("Cache-Control")
    directives = [part.strip().lower() for part in (text or "").split(",")]
    forbidden = {"no-cache", "no-store"}.intersection(directives)
    if expected is CacheExpected.NO:
        good, wanted = "no-cache" in directives, "no-cache (CacheExpected.NO)"
    else:
        lasting = any(re.fullmatch(r"max-age=\"?0*[1-9]\d*\"?", part) for part in directives)
        good, wanted = lasting and not forbidden, "max-age of more than 0 (CacheExpected.YES)"
    if not good:
        raise _not(response, f"expected Cache-Control with {wanted}, not {text!r}")


def _check_cors(response: requests.Response, origin: str | bytes) -> None:
    """As a browser does, for a page of that origin; credentials are not allowed together with ``*``."""
    origin = origin.decode("latin-1") if isinstance(origin, bytes) else origin
    allowed = response.headers.get("Access-Control-Allow-Origin")
    credentials = response.headers.get("Access-Control-Allow-Credentials", "false").strip().lower() == "true"
    if allowed != origin and (credentials or allowed != "*"):
        wanted = f"{origin!r}, for credentials are allowed" if credentials else f"'*' or {origin!r}"
        raise _not(
            response, f"expected Access-Control-Allow-Origin {wanted}, not {allowed!r} (cors=False: not checked)"
        )


def _text(response: requests.Response) -> str | None:
    return None if response.status_code == 204 else response.text


def _json(response: requests.Response) -> Any:
    if response.status_code == 204:
        return None
    kind = _kind(response)
    if kind != "application/json" and not kind.endswith("+json"):
        raise _not(response, f"expected Content-Type application/json, not {kind!r}")
    try:
        return response.json()
    except ValueError as error:
        raise _not(response, f"expected JSON: {error}") from error


def _xml(response: requests.Response, schema: str | Path | None) -> Any:
    if response.status_code == 204:
        return None
    try:
        from lxml import etree
    except ImportError as error:
        raise missing("Connection.get_xml", error) from error
    try:
        document = etree.parse(BytesIO(response.content), etree.XMLParser(no_network=True))
    except etree.XMLSyntaxError as error:
        raise _not(response, f"expected XML: {error}") from error
    if schema is not None:
        rules = etree.XMLSchema(etree.parse(str(schema)))
        if not rules.validate(document):
            raise _not(response, f"not valid for {schema}: {_some(rules.error_log, str)}")
    return document


def _some(log: Iterable[Any], show: Callable[[Any], str], most: int = 5) -> str:
    entries = [f"line {entry.line}: {show(entry.message)}" for entry in log]
    more = f"; {len(entries) - most} more" if len(entries) > most else ""
    return "; ".join(entries[:most]) + more


def _kind(response: requests.Response) -> str:
    """The media type without its parameters."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _not(response: requests.Response, why: str) -> AssertionError:
    request = response.request
    kind = _kind(response)
    body = response.content
    if not body:
        shown = "no body"
    elif kind.startswith(("image/", "audio/", "video/")) or kind in ("application/pdf", "application/octet-stream"):
        shown = f"{len(body)} bytes of {kind}"
    else:
        shown = response.text[:_BODY_SHOWN] + ("..." if len(response.text) > _BODY_SHOWN else "")
    lines = f"{request.method} {request.url}: {response.status_code} {response.reason}; {why}\n{shown}"
    return AssertionError(masking.mask(lines))
