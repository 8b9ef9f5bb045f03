"""What an application adds to the page of our views, ``{base}``, and helpers that write HTML for it.

    from c2c_otel import index

    index.additional_title = "Tiles"
    index.additional_auth.append(index.paragraph(index.link("/tiles/admin", "Administration")))

Text is escaped wherever it comes from; what a helper returns, or any object with ``__html__`` (markupsafe's), is
HTML. For HTML written by hand there is `Html`. The page's policy allows no script and no style but its own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "Hook",
    "Html",
    "additional_auth",
    "additional_noauth",
    "additional_title",
    "button",
    "escape",
    "form",
    "input_",
    "link",
    "paragraph",
    "rendered",
    "section",
    "select",
]


class Html(str):
    """Text that is HTML already: nobody escapes it."""

    __slots__ = ()

    def __html__(self) -> Html:
        return self


Hook = Any
"""Text (which is escaped), HTML, None, a list of hooks, or a callable that takes the request and returns a hook."""

additional_title: Hook = None
"""What stands above the application's own part; text becomes a heading."""

additional_noauth: Hook = []
"""What everybody sees."""

additional_auth: Hook = []
"""What is added for who is logged in."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)", re.IGNORECASE)
_SCHEMES = frozenset({"http", "https", "mailto"})
_INVISIBLE = re.compile(r"[\x00-\x20]")  # browsers drop them from an URL before they look for its scheme


def escape(value: object) -> Html:
    """As HTML: what has ``__html__`` as it is, None as nothing, all else as text, also fit for a quoted attribute."""
    if isinstance(value, Html):
        return value
    if hasattr(value, "__html__"):
        return Html(value.__html__())
    return Html("" if value is None else html.escape(str(value)))


def rendered(hook: Hook, request: Any) -> Html:
    """The HTML of a hook for this request. Raises what the hook raises."""
    if callable(hook):
        return rendered(hook(request), request)
    if isinstance(hook, Iterable) and not isinstance(hook, str) and not hasattr(hook, "__html__"):
        return _lines(rendered(part, request) for part in hook)
    return escape(hook)


def section(title: object, *content: object, sep: bool = True) -> Html:
    """A part of the page under a heading; ``sep``: with a line above it."""
    kind = "" if sep else ' class="plain"'
    return Html(f"<section{kind}>\n<h2>{escape(title)}</h2>\n{_lines(map(escape, content))}\n</section>")


def paragraph(*content: object, title: object = None) -> Html:
    """A paragraph; its title stands before it."""
    head = Html("") if title is None else Html(f"<strong>{escape(title)}:</strong> ")
    return Html(f"<p>{head}{_lines(map(escape, content))}</p>")


def link(url: str | None, label: object, cssclass: str = "", target: str = "") -> Html:
    """A link, or nothing where there is no URL. Raises ValueError for a URL that is neither relative nor of http,
    https or mailto."""
    if url is None:
        return Html("")
    more = ' rel="noopener noreferrer"' if target == "_blank" else ""
    return Html(f"<a{_attributes(href=_url(url), **{'class': cssclass}, target=target)}{more}>{escape(label)}</a>")


def form(url: str, *content: object, method: str = "get", target: str = "") -> Html:
    """A form of ``get`` or ``post``. Raises ValueError as `link` does. The page's policy sends forms nowhere but to
    the page's own origin."""
    method = method.lower()
    if method not in ("get", "post"):
        raise ValueError(f"method is {method!r}; expected get or post.")
    encoded = "multipart/form-data" if method == "post" else ""
    attributes = _attributes(action=_url(url), method=method, enctype=encoded, target=target)
    return Html(f"<form{attributes}>\n{_lines(map(escape, content))}\n</form>")


def input_(
    name: str,
    label: object = None,
    type_: str | None = None,
    value: object = "",
    *,
    required: bool = False,
    **more: object,
) -> Html:
    """An input with its label (by default made of its name). Without a type: a bool is a checkbox that sends "true", an
    int a number, all else text. ``more``: further attributes, their ``_`` written as ``-``."""
    if type_ is None:
        type_ = "checkbox" if isinstance(value, bool) else "number" if isinstance(value, int) else "text"
    checked = type_ == "checkbox" and bool(value)
    if type_ == "checkbox":
        value = "true"
    options = {key.replace("_", "-"): option for key, option in more.items()}
    flags = (" checked" if checked else "") + (" required" if required else "")
    element = Html(f"<input{_attributes(type=type_, name=name, value=value, **options)}{flags}>")
    if type_ == "hidden":
        return element
    return _labelled(element, _label(name, label), first=type_ != "checkbox")


def select(name: str, choices: Iterable[str] | Mapping[str, object], label: object = None, value: str = "") -> Html:
    """A list to choose from, with its label. ``choices``: the values that are sent, with what is shown for each."""
    shown = choices if isinstance(choices, Mapping) else {choice: choice for choice in choices}
    options = "".join(
        f"<option{_attributes(value=choice)}{' selected' if choice == value else ''}>{escape(text)}</option>"
        for choice, text in shown.items()
    )
    return _labelled(Html(f"<select{_attributes(name=name)}>{options}</select>"), _label(name, label))


def button(label: object) -> Html:
    """What sends a form."""
    return Html(f'<button type="submit">{escape(label)}</button>')


def _label(name: str, label: object) -> object:
    return name.replace("_", " ").capitalize() if label is None else label


def _labelled(element: Html, label: object, first: bool = True) -> Html:
    """Inside of its label, so that no id is needed."""
    text = f"<span>{escape(label)}</span>"
    return Html(f"<label>{text} {element}</label>" if first else f'<label class="check">{element} {text}</label>')


def _lines(parts: Iterable[str]) -> Html:
    return Html("\n".join(part for part in parts if part))


def _attributes(**attributes: object) -> Html:
    """`` name="value"`` for each; those that are None or an empty class, target or encoding are left out."""
    kept = {
        name: value
        for name, value in attributes.items()
        if value is not None and (value != "" or name not in ("class", "target", "enctype"))
    }
    return Html("".join(f' {name}="{html.escape(str(value))}"' for name, value in kept.items()))


def _url(url: str) -> str:
    scheme = _SCHEME.match(_INVISIBLE.sub("", url))
    if scheme is not None and scheme[0].lower() not in _SCHEMES:
        raise ValueError(f"The URL is {url!r}; expected a relative one, or one of http, https or mailto.")
    return url
