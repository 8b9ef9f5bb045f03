"""Waiting, trying again, floats that are about equal, and where the tests run."""

from __future__ import annotations

import collections
import ipaddress
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.acceptance import network, retry, utils
from c2c_otel.settings import ConfigurationError
from tests.acceptance_kit import serving


class Clock:
    """Time passes where it is slept."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


# -- retry ------------------------------------------------------------------------------------------------------------


def test_retry_until_it_works(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    @retry(KeyError, tries=4, delay=1, backoff=3)
    def shaky(name: str, *, fails: int) -> str:
        """Its own."""
        calls.append(name)
        if len(calls) <= fails:
            raise KeyError(name)
        return name * 2

    with caplog.at_level(logging.WARNING):
        assert shaky("a", fails=3) == "aa"
    assert calls == ["a"] * 4
    assert clock.slept == [1, 3, 9]
    assert (shaky.__name__, shaky.__doc__) == ("shaky", "Its own.")
    assert [record.getMessage().rpartition("shaky: ")[2] for record in caplog.records] == [
        "'a'; 3 more tries, in 1 s",
        "'a'; 2 more tries, in 3 s",
        "'a'; 1 more tries, in 9 s",
    ]


def test_retry_gives_up_with_the_last_exception(clock: Clock) -> None:
    raised = [ValueError("first"), KeyError("second"), ValueError("third"), AssertionError("never")]
    left = iter(raised)

    @retry((ValueError, KeyError))
    def fails() -> None:
        raise next(left)

    with pytest.raises(ValueError, match="third"):
        fails()
    assert clock.slept == [0.5, 1.0]


def test_retry_leaves_other_exceptions_alone(clock: Clock) -> None:
    @retry(ValueError, tries=1)
    def once() -> None:
        raise ValueError

    @retry(ValueError)
    def other() -> None:
        raise KeyError

    with pytest.raises(ValueError):
        once()
    with pytest.raises(KeyError):
        other()
    assert clock.slept == []


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"delay": -1}, {"backoff": -1}])
def test_retry_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        retry(ValueError, **wrong)


# -- retry_timeout ----------------------------------------------------------------------------------------------------


def test_the_first_true_answer_is_returned(clock: Clock) -> None:
    answers: Iterator[object] = iter([None, 0, "", OSError("no"), "there", "never"])

    def what() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert utils.retry_timeout(what) == "there"
    assert clock.slept == [0.5] * 4


@pytest.mark.parametrize(
    ("answer", "said"),
    [(OSError("refused"), "refused"), (KeyError(), "KeyError"), (None, "still None"), ([], r"still \[\]")],
)
def test_time_is_up(clock: Clock, answer: object, said: str) -> None:
    calls = []

    def what() -> object:
        calls.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(AssertionError, match=f"^Timeout: {said}$") as caught:
        utils.retry_timeout(what, timeout=1.2, interval=0.5)
    assert clock.slept == pytest.approx([0.5, 0.5, 0.2])
    assert len(calls) == 4
    assert caught.value.__cause__ is (answer if isinstance(answer, Exception) else None)


def test_no_time_is_still_one_call(clock: Clock) -> None:
    assert utils.retry_timeout(lambda: 1, timeout=0) == 1
    with pytest.raises(AssertionError, match="Timeout: "):
        utils.retry_timeout(lambda: 0, timeout=0)
    assert clock.slept == []


def test_mistakes_in_the_test_are_not_retried(clock: Clock) -> None:
    def mistake() -> object:
        return not_defined  # type: ignore[name-defined] # noqa: F821 # that is the mistake

    with pytest.raises(NameError, match="not_defined"):
        utils.retry_timeout(mistake)
    assert clock.slept == []


def test_an_interrupt_is_not_retried(clock: Clock) -> None:
    def interrupted() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        utils.retry_timeout(interrupted)
    assert clock.slept == []


# -- wait_url ---------------------------------------------------------------------------------------------------------


def test_wait_until_a_url_answers_200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving() as fake:
        statuses = iter([503, 404, 204, 302])

        def starting(asked: object) -> tuple[int, dict[str, str], bytes]:
            return next(statuses), {"Location": "/ready"}, b""

        fake.answers = {"/": starting, "/ready": (200, {}, b"")}
        utils.wait_url(fake.url)
        assert [asked.path for asked in fake.asked] == ["/", "/", "/", "/", "/ready"]


def test_a_url_that_never_answers(clock: Clock) -> None:
    with serving() as fake:
        fake.answers["/"] = (503, {}, b"")
        with pytest.raises(AssertionError, match=rf"^Timeout: {fake.url}\?secret=\*\*\* answers 503$"):
            utils.wait_url(f"{fake.url}?secret=abc", timeout=2)
    asked = len(fake.asked)
    assert asked == 5
    with pytest.raises(AssertionError, match=r"Timeout: .*secret=\*\*\*.*refused"):
        utils.wait_url(f"{fake.url}?secret=abc", timeout=0)
    assert len(fake.asked) == asked


# -- approx -----------------------------------------------------------------------------------------------------------


def test_floats_are_approximate_wherever_they_are() -> None:
    Point = collections.namedtuple("Point", "x y")  # what applications have
    exact = {"a": [1.0, {"b": (2.5, "text", 3)}], 4.0: None, "point": Point(1, 0.1)}
    near = {"a": [1.0000001, {"b": (2.5000001, "text", 3)}], 4.0: None, "point": Point(1, 0.1000000001)}
    far = {"a": [1.0, {"b": (2.6, "text", 3)}], 4.0: None, "point": Point(1, 0.1)}
    assert near != exact
    assert near == utils.approx(exact)
    assert far != utils.approx(exact)
    assert far == utils.approx(exact, abs=0.2)
    assert exact["a"][0] == 1.0 and type(exact["a"][0]) is float
    assert utils.approx(0.1) == 0.1 + 1e-9
    assert utils.approx([]) == []


def test_what_is_no_float_is_exact() -> None:
    assert utils.approx([1, True, "1", None]) != [2, True, "1", None]
    assert utils.approx({"n": 10**9}, rel=1) != {"n": 10**9 + 1}
    assert utils.approx((1.0,)) != [1.0]


_structures = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4) | st.tuples(inner)
    ),
    max_leaves=20,
)


@given(_structures)
def test_everything_is_about_itself(struct: Any) -> None:
    assert struct == utils.approx(struct)


# -- where the tests run ----------------------------------------------------------------------------------------------


def test_in_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_RUN", raising=False)
    assert not utils.in_docker()
    assert utils.DOCKER_GATEWAY == "localhost"
    monkeypatch.setenv("DOCKER_RUN", "0")
    assert not utils.in_docker()
    monkeypatch.setenv("DOCKER_RUN", "1")
    assert utils.in_docker()
    assert network.default_gateway() == utils.DOCKER_GATEWAY
    monkeypatch.setenv("DOCKER_RUN", "perhaps")
    with pytest.raises(ConfigurationError, match="DOCKER_RUN is 'perhaps'"):
        utils.in_docker()


def test_a_module_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = utils.nothing  # type: ignore[attr-defined] # that is what is tested
    assert all(getattr(utils, name) is not None for name in utils.__all__)


_CI_TEST = """
from c2c_otel.acceptance.utils import skipIfCI

@skipIfCI
def test_a():
    pass
"""


@pytest.mark.parametrize(("value", "outcome"), [(None, "1 passed"), ("0", "1 passed"), ("1", "1 skipped")])
def test_not_on_ci(tmp_path: Path, value: str | None, outcome: str) -> None:
    (tmp_path / "test_ci.py").write_text(_CI_TEST)
    environ = {name: text for name, text in os.environ.items() if name != "IN_CI"}
    environ |= {"IN_CI": value} if value is not None else {}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "test_ci.py"]
    said = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60).stdout
    assert outcome in said, said
    assert ("IN_CI=1" in said) == (value == "1")


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t00000000\t020011AC\t0003\t0\t0\t9\t00000000\t0\t0\t0
"""


@pytest.mark.skipif(sys.byteorder == "big", reason="the file is a little-endian machine's")
def test_the_gateway_is_that_of_the_default_route(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTES)
    assert network.default_gateway(tmp_path / "route") == "172.17.0.1"
    (tmp_path / "route").write_text("".join(ROUTES.splitlines(keepends=True)[:3]))
    assert network.default_gateway(tmp_path / "route") == "127.0.0.1"
    assert network.default_gateway(tmp_path / "none") == "127.0.0.1"


def test_addresses() -> None:
    assert ipaddress.ip_address(network.own_address())
    assert ipaddress.ip_address(network.docker_host())
    assert network.interface_address("no-such-0") is None
    if sys.platform == "linux":
        assert network.interface_address("lo") == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://localhost:8080/a", "localhost"),
        ("http://LOCALHOST/", "localhost"),
        ("http://shop.localhost/", "shop.localhost"),
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://127.8.8.8:80/", "127.8.8.8"),
        ("http://[::1]:8080/", "::1"),
        ("http://localhost.example.com/", None),
        ("http://notlocalhost/", None),
        ("http://10.0.0.1/", None),
        ("http://127.0.0.1.example.com/", None),
        ("a/b", None),
        ("", None),
    ],
)
def test_this_machine(url: str, host: str | None) -> None:
    assert network.is_loopback(url) == host
