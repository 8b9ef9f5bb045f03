"""What a request may say to a view: decoded, defaulted or refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import hypothesis
import pytest
from hypothesis import strategies as st
from pyramid.httpexceptions import HTTPBadRequest, HTTPLengthRequired, HTTPRequestEntityTooLarge
from pyramid.request import Request

from c2c_otel_views import parameters

READERS: dict[str, Any] = {
    "flag": parameters.flag,
    "integer": lambda request, name, *default: parameters.integer(request, name, 1, 9, *default),
    "number": lambda request, name, *default: parameters.number(request, name, 0, 9.5, *default),
    "only": lambda request, name, *default: parameters.only(request, name, ("a", "b"), *default),
}


def asked(*pairs: tuple[str, str]) -> Any:
    return Request.blank(f"/?{urlencode(pairs)}")


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_missing_or_left_blank_in_a_form(reader: Any) -> None:
    for request in (asked(), asked(("x", ""))):
        assert reader(request, "x", "default") == "default"
        assert reader(request, "x", None) is None
        with pytest.raises(HTTPBadRequest, match=r"x is (missing|''); expected "):
            reader(request, "x")


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [("flag", "On", True), ("flag", "0", False), ("integer", "9", 9), ("number", "9.5", 9.5), ("only", "b", "b")],
)
def test_given(reader: str, text: str, value: Any) -> None:
    assert READERS[reader](asked(("x", text)), "x", "default") == value
    with pytest.raises(HTTPBadRequest, match="x is given 2 times"):
        READERS[reader](asked(("x", text), ("x", text)), "x", "default")


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        ("flag", "2"),
        ("integer", "0"),
        ("integer", "10"),
        ("integer", "1.5"),
        ("number", "nan"),
        ("number", "9.6"),
        ("only", "c"),
    ],
)
def test_refused_with_name_value_and_expectation(reader: str, text: str) -> None:
    with pytest.raises(HTTPBadRequest, match=f"^x is '{text}'; expected "):
        READERS[reader](asked(("x", text)), "x", "default")


@hypothesis.given(st.text(), st.sampled_from(sorted(READERS)))
def test_any_text_is_a_value_or_a_400(text: str, reader: str) -> None:
    try:
        READERS[reader](asked(("x", text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))), "x", None)
    except HTTPBadRequest as refused:
        assert len(str(refused.detail)) < 250


class _Unread:
    """A body that may not be read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("it was read")

    readline = read


def _posted(length: int | None, **environ: str) -> Any:
    request = Request.blank("/", method="POST", content_type="application/x-www-form-urlencoded")
    request.environ.update({"wsgi.input": _Unread(), "wsgi.input_terminated": True}, **environ)
    request.content_length = length
    return request


def test_a_form_without_bounds_is_not_read() -> None:
    with pytest.raises(HTTPRequestEntityTooLarge, match="The form has 100001 bytes; expected 100000 at most"):
        parameters.check(_posted(parameters.MAX_FORM_BYTES + 1))
    with pytest.raises(HTTPLengthRequired):
        parameters.check(_posted(None, HTTP_TRANSFER_ENCODING="chunked"))


def test_a_form_of_the_longest_length_is_read() -> None:
    body = b"x=" + b"y" * (parameters.MAX_FORM_BYTES - 2)
    request = Request.blank("/", method="POST", POST=body, content_type="application/x-www-form-urlencoded")
    parameters.check(request)
    assert len(parameters.text(request, "x")) == len(body) - 2
