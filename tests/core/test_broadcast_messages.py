"""The bytes of questions and answers: c2cwsgiutils' and more; what is refused, and why."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.broadcast import messages
from c2c_otel.broadcast.messages import (
    MAX_ANSWER_BYTES,
    MAX_QUESTION_BYTES,
    MAX_SECONDS,
    NOTHING,
    Answer,
    Question,
    Refused,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
    key_of,
)

KEY = key_of("a secret", "broadcast_api_")
QUESTION = Question("levels", {"name": "sqlalchemy"}, "broadcast_api_levels1", "1", 1000.0, "web-1/7")

keys = st.sampled_from([None, KEY])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def why(call: Any, *args: Any) -> str:
    with pytest.raises(Refused) as refused:
        call(*args)
    return str(refused.value)


def test_the_bytes_of_a_question() -> None:
    assert json.loads(encode_question(QUESTION, None)) == {
        "params": {"name": "sqlalchemy"},  # these two are what c2cwsgiutils publishes
        "answer_channel": "broadcast_api_levels1",
        "channel": "levels",
        "id": "1",
        "deadline": 1000.0,
        "sender": "web-1/7",
    }
    assert "answer_channel" not in json.loads(encode_question(QUESTION._replace(answer_channel=None), None))
    assert json.loads(encode_question(QUESTION._replace(via=("a",)), None))["via"] == ["a"]


def test_a_signature_is_of_the_bytes_after_it() -> None:
    message = encode_question(QUESTION, KEY)
    signature, rest = message[14:78].decode(), message[80:]
    key = hmac.digest(b"a secret", b"c2c-otel broadcast\0broadcast_api_", hashlib.sha256)
    assert signature == hmac.new(key, b"question\0" + rest, hashlib.sha256).hexdigest()
    assert json.loads(message) == {"signature": signature, **json.loads(encode_question(QUESTION, None))}


@given(
    st.builds(
        Question,
        st.text(),
        st.dictionaries(st.text(), json_values),
        st.none() | st.text(),
        st.text(min_size=1),
        st.floats(100, 100 + MAX_SECONDS),
        st.text(),
        st.lists(st.text()).map(tuple),
    ),
    keys,
)
def test_a_question_arrives_as_it_was_sent(question: Question, key: bytes | None) -> None:
    assert decode_question(encode_question(question, key), question.channel, key, 100.0) == question


@given(json_values, keys)
def test_an_answer_arrives_as_it_was_sent(value: Any, key: bytes | None) -> None:
    message = encode_answer(QUESTION, "web-2/8", value, key)
    assert decode_answer(message, "1", key) == Answer("web-2/8", value)
    assert ("answer" in json.loads(message)) is True


def test_no_callback_is_no_answer() -> None:
    for key in (None, KEY):
        assert decode_answer(encode_answer(QUESTION, "a/1", NOTHING, key), "1", key) == ("a/1", NOTHING)
        assert decode_answer(encode_answer(QUESTION, "a/1", None, key), "1", key) == ("a/1", None)


# -- c2cwsgiutils on the other side -----------------------------------------------------------------------------------


def test_a_question_of_the_predecessor_and_its_answer() -> None:
    wire = json.dumps({"params": {"name": "x"}, "answer_channel": "broadcast_api_levelsABCDEFGHIJ"}).encode()
    question = decode_question(wire, "levels", None, 5.0)
    assert question == Question("levels", {"name": "x"}, "broadcast_api_levelsABCDEFGHIJ", "", math.inf, "")
    assert encode_answer(question, "a/1", {"level": "INFO"}, None) == b'{"level":"INFO"}'
    assert encode_answer(question, "a/1", [1, None], None) == b"[1,null]"
    assert why(decode_question, wire, "levels", KEY, 5.0) == "unsigned"


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        (b'{"level":"INFO","hostname":"old","pid":3}', Answer("old/3", {"level": "INFO", "hostname": "old", "pid": 3})),
        (b"true", Answer("", True)),
        (
            b'{"id":1,"sender":"s","more":2}',
            Answer("", {"id": 1, "sender": "s", "more": 2}),
        ),  # not ours, it only looks so
    ],
)
def test_an_answer_of_the_predecessor(wire: bytes, answer: Answer) -> None:
    assert decode_answer(wire, "1", None) == answer
    assert why(decode_answer, wire, "1", KEY) == "unsigned"


# -- what is refused --------------------------------------------------------------------------------------------------


def question(key: bytes | None = None, **changes: Any) -> bytes:
    """The wire of a question with some fields changed."""
    return messages._signed(b"question", {**json.loads(encode_question(QUESTION, None)), **changes}, key)


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"params": [1]}, "garbage"),
        ({"params": None}, "garbage"),
        ({"answer_channel": 1}, "garbage"),
        ({"id": 1}, "garbage"),
        ({"sender": None}, "garbage"),
        ({"deadline": "1000"}, "garbage"),
        ({"deadline": None}, "garbage"),
        ({"via": "levels"}, "garbage"),
        ({"deadline": math.nan}, "garbage"),
        ({"deadline": 900.0 + MAX_SECONDS + 1}, "garbage"),
        ({"deadline": 899.0}, "late"),
        ({"deadline": -math.inf}, "late"),
        ({"channel": "readonly"}, "astray"),
        ({"channel": 1}, "astray"),
    ],
)
def test_fields_that_are_not_as_they_should_be(key: bytes | None, changes: dict[str, Any], reason: str) -> None:
    assert decode_question(question(key), "levels", key, 900.0).id == "1"
    assert why(decode_question, question(key, **changes), "levels", key, 900.0) == reason


def test_signed_questions_need_what_makes_a_copy_useless() -> None:
    fields = json.loads(encode_question(QUESTION, None))
    for name in ("id", "channel", "deadline"):
        message = messages._signed(b"question", {key: value for key, value in fields.items() if key != name}, KEY)
        assert why(decode_question, message, "levels", KEY, 900.0) == "garbage"


def test_what_is_not_signed_by_us_is_not_even_read() -> None:
    signed = encode_question(QUESTION, KEY)
    for key in (key_of("another"), key_of("a secret"), key_of("a secret", "other_")):
        assert why(decode_question, encode_question(QUESTION, key), "levels", KEY, 5.0) == "forged"
    assert why(decode_question, signed.replace(b"sqlalchemy", b"sqlalchemx"), "levels", KEY, 5.0) == "forged"
    assert why(decode_question, encode_question(QUESTION, None), "levels", KEY, 5.0) == "unsigned"
    assert why(decode_question, signed[:80], "levels", KEY, 5.0) == "forged"
    answer = encode_answer(QUESTION, "a/1", 1, KEY)
    assert why(decode_question, answer, "levels", KEY, 5.0) == "forged"  # neither stands for the other
    assert why(decode_answer, signed, "1", KEY) == "forged"
    assert why(decode_answer, answer, "2", KEY) == "astray"
    assert why(decode_answer, encode_answer(QUESTION, "a/1", 1, None), "1", KEY) == "unsigned"
    assert key_of(None) is None
    assert key_of("") is None


@given(st.binary(max_size=300), keys)
def test_garbage_is_refused(garbage: bytes, key: bytes | None) -> None:
    for call, args in ((decode_question, ("c", key, 0.0)), (decode_answer, ("1", key))):
        try:
            call(garbage, *args)
        except Refused:
            continue
        assert key is None  # and then it is JSON
        json.loads(garbage)


@given(st.binary(max_size=200))
def test_garbage_after_a_signature_is_refused(garbage: bytes) -> None:
    assert KEY is not None
    message = b'{"signature":"' + messages._signature(b"question", garbage, KEY) + b'",' + garbage
    assert why(decode_question, message, "levels", KEY, 0.0) in ("garbage", "astray", "late")


def test_nesting_is_garbage() -> None:
    assert why(decode_question, b"[" * 100_000, "levels", None, 0.0) == "garbage"
    assert why(decode_answer, b'{"a":' * 100_000, "1", None) == "garbage"


def test_sizes_are_bounded() -> None:
    assert why(decode_question, b" " * (MAX_QUESTION_BYTES + 1), "levels", None, 0.0) == "oversized"
    assert why(decode_answer, b" " * (MAX_ANSWER_BYTES + 1), "1", None) == "oversized"
    with pytest.raises(ValueError, match=f"'levels' make a message of .* bytes; expected at most {MAX_QUESTION_BYTES}"):
        encode_question(QUESTION._replace(params={"a": "x" * MAX_QUESTION_BYTES}), None)
    with pytest.raises(ValueError, match="has more than 1024 bytes"):
        encode_question(QUESTION._replace(channel="\u00e9" * 513), None)
    with pytest.raises(TypeError):
        encode_question(QUESTION._replace(params={"a": {1, 2}}), None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * MAX_ANSWER_BYTES, f"expected at most {MAX_ANSWER_BYTES}"),
        ({1}, "Object of type set is not JSON serializable"),
        ({"a": b""}, "Object of type bytes is not JSON serializable"),
    ],
)
def test_what_cannot_be_sent_as_an_answer_is_a_500(value: Any, message: str) -> None:
    answer = decode_answer(encode_answer(QUESTION, "a/1", value, KEY), "1", KEY)
    assert answer.sender == "a/1"
    assert answer.value["status"] == 500
    assert message in answer.value["message"]


def test_an_answer_that_contains_itself_is_a_500() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert decode_answer(encode_answer(QUESTION, "a/1", endless, None), "1", None).value["status"] == 500
