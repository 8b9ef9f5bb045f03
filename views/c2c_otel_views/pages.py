"""A page of ours: one HTML document with its style, that needs nothing from anywhere and runs no script."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable
from typing import Any

from pyramid.response import Response

from c2c_otel.index import Html, escape

__all__ = ["SeeOther", "page"]

_STYLE = """
:root { color-scheme: light dark; --back: #f4f5f7; --card: #fff; --text: #1c2128; --soft: #57606a; --line: #d0d7de;
  --accent: #0b5cad; --on-accent: #fff; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --card: #1d232a; --text: #e6e9ed; --soft: #a3adb8;
  --line: #3a434d; --accent: #7ab8ff; --on-accent: #0d1a29; --bad: #ff9c92; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 1rem/1.5 "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
header, main { max-width: 62rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem 1.25rem; padding-top: 2rem; }
header p, header form { margin: 0; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 auto 0 0; }
h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: 0 0 .6rem; }
.soft, dd { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
a { color: var(--accent); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0;
  padding: 1rem 1.25rem; }
section.plain { background: none; border: 0; padding: 0; }
section section { border: 0; margin: 1rem 0 0; padding: 0; }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .3rem 1.25rem; margin: 0; }
dd { margin: 0; }
section > p:last-child, dd:last-child { margin-bottom: 0; }
form { display: flex; flex-wrap: wrap; align-items: end; gap: .6rem 1rem; margin: .4rem 0 0; }
.try { border-top: 1px solid var(--line); margin-top: .9rem; padding-top: .9rem; }
.try p { margin: 0; color: var(--soft); }
.forms { display: flex; flex-wrap: wrap; align-items: end; gap: 0 1.5rem; }
.forms form { max-width: 100%; }
label { display: block; max-width: 100%; }
label > span { display: block; font-size: .85rem; color: var(--soft); }
label.check { display: flex; align-items: center; gap: .45rem; min-height: 2.3rem; }
label.check > span { font-size: 1rem; color: var(--text); }
input, select, button { font: inherit; color: inherit; border: 1px solid var(--soft); border-radius: .35rem;
  padding: .35rem .6rem; min-height: 2.3rem; max-width: 100%; background: var(--card); }
input[type=checkbox] { min-height: 0; width: 1.1rem; height: 1.1rem; accent-color: var(--accent); }
input[type=text], input[type=password] { width: 17rem; }
input[type=number] { width: 7rem; }
button { background: var(--accent); border-color: var(--accent); color: var(--on-accent); padding: .35rem 1rem;
  cursor: pointer; }
::placeholder { color: var(--soft); opacity: 1; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""

_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# the icon is empty, and named so that no browser asks the application for /favicon.ico
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{beside}
</header>
<main>
{main}
</main>
</body>
</html>
"""


class SeeOther(Response):  # type: ignore[misc]  # Pyramid is not typed
    """To a path of this host, by whatever host and scheme the browser knows it: WebOb would make it absolute from what
    the last proxy says, and the page's policy stops a form that leads elsewhere."""

    def __init__(self, path: str) -> None:
        super().__init__(status=303, headerlist=[("Location", path), ("Content-Length", "0")])

    def __call__(self, environ: Any, start_response: Any) -> Any:
        start_response(self.status, list(self.headerlist))
        return []


def page(title: str, beside: Html, parts: Iterable[Html], status: int = 200, style: str = "") -> Response:
    """The answer with this page. ``beside``: what stands in its head, beside the title. ``style``: a page's own CSS."""
    main = "\n".join(part for part in parts if part)
    style = _STYLE + style
    text = _PAGE.format(title=escape(title), style=style, beside=beside, main=main)
    response = Response(text, status, content_type="text/html", charset="UTF-8")
    response.headers.update(_HEADERS)
    response.headers["Content-Security-Policy"] = _policy(style)
    return response


@functools.lru_cache(maxsize=16)
def _policy(style: str) -> str:
    found = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{found}'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
