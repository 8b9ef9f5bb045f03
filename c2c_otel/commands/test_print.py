"""``c2c-otel-test-print --url URL``: let a MapFish Print server print each of its examples.

Of MapFish Print's API: ``apps.json``; ``{app}/capabilities.json``, ``{app}/exampleRequest.json`` (name -> request, as
text), ``{app}/report.pdf`` (POST, answers ``{"ref": ...}``), ``status/{ref}.json``, ``report/{ref}``.

Exit codes: 0 where every example became a PDF; 1 where one did not, or the server is away; 2 for a usage error.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any, NoReturn

from c2c_otel.commands import shell

__all__ = ["Print", "PrintError", "main"]

_PROGRAM = "c2c-otel-test-print"


class PrintError(Exception):
    """The server did not do what it should; ``str()`` says what."""


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    parser = shell.parser(
        _PROGRAM,
        "Let a MapFish Print server print each of its examples, and show how large the PDFs are.",
        "c2c-otel-test-print --url http://localhost:8080/print\n"
        "c2c-otel-test-print --url https://maps.example.com/print --app default --referer https://maps.example.com",
        "0; 1: an example could not be printed, or the server is away; 2: usage",
    )
    parser.add_argument("--url", required=True, help="the base URL of the print server, up to /print")
    parser.add_argument("--app", help="the application to test (default: all but the one named default)")
    parser.add_argument("--referer", help="sent with each request (default: the URL)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for the server, and for each PDF (60)")
    parser.add_argument("--verbose", action="store_true", help="show capabilities and requests, too")
    options = parser.parse_args(arguments)
    if urllib.parse.urlsplit(options.url).scheme not in ("http", "https"):
        parser.error(f"--url is {options.url!r}; expected a URL that starts with http:// or https://")
    server = Print(options.url, options.referer or options.url, options.timeout)
    try:
        apps = [options.app] if options.app else server.apps()
    except PrintError as error:
        shell.complain(_PROGRAM, error)
        return 1
    failures = sum(_test_app(server, app, options.verbose) for app in apps)
    if not apps:
        shell.complain(_PROGRAM, f"{options.url} has no application")
    return 1 if failures or not apps else 0


def _test_app(server: Print, app: str, verbose: bool) -> int:
    """How much has failed."""
    try:
        server.wait_ready(app)
        capabilities = server.capabilities(app)
        examples = server.examples(app)
    except PrintError as error:
        shell.complain(_PROGRAM, f"{app}: {error}")
        return 1
    if verbose:
        print(f"{app}: capabilities\n{json.dumps(capabilities, indent=2)}", file=sys.stderr)
    failures = 0
    for name, request in examples.items():
        if verbose:
            print(f"{app}: {name}\n{json.dumps(request, indent=2)}", file=sys.stderr)
        try:
            size = len(server.pdf(app, request))
        except PrintError as error:
            shell.complain(_PROGRAM, f"{app}: {name}: {error}")
            failures += 1
        else:
            print(f"{app}: {name}: {size} bytes", flush=True)
    if not examples:
        shell.complain(_PROGRAM, f"{app}: there is no example")
    return failures + (not examples)


class Print:
    """A print server, seen from outside. ``timeout`` in seconds, for each thing that is waited for. All raise
    `PrintError`."""

    def __init__(self, url: str, referer: str, timeout: float = 60.0, pause: float = 0.5) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Referer": referer, "Origin": referer}
        self._timeout = timeout
        self._pause = pause

    def apps(self) -> list[str]:
        """The applications, without the one named default where there are others."""
        found = [str(app) for app in self._json("apps.json")]
        return [app for app in found if app != "default"] or found

    def wait_ready(self, app: str) -> None:
        """Until it can tell its capabilities."""
        self._until(lambda: self.capabilities(app) or True)

    def capabilities(self, app: str) -> Any:
        """What the application's layouts and attributes are."""
        return self._json(f"{_quoted(app)}/capabilities.json")

    def examples(self, app: str) -> dict[str, Any]:
        """Its example requests, by name."""
        found = self._json(f"{_quoted(app)}/exampleRequest.json")
        try:
            return {name: json.loads(text) if isinstance(text, str) else text for name, text in found.items()}
        except (ValueError, AttributeError) as error:
            raise PrintError(f"exampleRequest.json is not what MapFish Print answers: {error}") from None

    def pdf(self, app: str, request: Any) -> bytes:
        """The report of a request."""
        body = json.dumps(request).encode()
        created = self._json(f"{_quoted(app)}/report.pdf", body)
        ref = created.get("ref") if isinstance(created, dict) else None
        if not ref:
            raise PrintError(f"report.pdf answered without a ref: {created!r}")

        def done() -> Any:
            status = self._json(f"status/{_quoted(str(ref))}.json")
            return status if isinstance(status, dict) and status.get("done") else None

        status = self._until(done)
        if status.get("status", "finished") != "finished" or status.get("error"):
            raise PrintError(f"the report ended as {status.get('status')}: {status.get('error') or 'no reason given'}")
        content, kind = self._get(f"report/{_quoted(str(ref))}")
        if not content.startswith(b"%PDF") or not kind.startswith("application/pdf"):
            raise PrintError(f"the report is no PDF: {kind or 'no content type'}, {len(content)} bytes")
        return content

    def _until(self, ask: Callable[[], Any]) -> Any:
        """What it answers first that is true."""
        end = time.monotonic() + self._timeout
        while True:
            error: PrintError | None = None
            try:
                if answer := ask():
                    return answer
            except PrintError as failed:
                error = failed
            if time.monotonic() > end:
                raise error or PrintError(f"not ready after {self._timeout:g} s")
            time.sleep(self._pause)

    def _json(self, path: str, body: bytes | None = None) -> Any:
        content, _ = self._get(path, body)
        try:
            return json.loads(content)
        except ValueError:
            self._fail(path, f"answered no JSON: {content[:200].decode('utf-8', 'replace')!r}")

    def _get(self, path: str, body: bytes | None = None) -> tuple[bytes, str]:
        """Content and content type."""
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        request = urllib.request.Request(f"{self._url}/{path}", data=body, headers=headers)  # noqa: S310 - http(s) only
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310 - likewise
                return answer.read(), answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(500).decode("utf-8", "replace")
            self._fail(path, f"answered {error.code}: {text}")
        except (OSError, HTTPException) as error:
            self._fail(path, f"cannot be reached: {getattr(error, 'reason', error)}")

    def _fail(self, path: str, what: str) -> NoReturn:
        raise PrintError(f"{self._url}/{path} {what}")


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
