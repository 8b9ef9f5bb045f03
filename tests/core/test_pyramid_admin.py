from __future__ import annotations

import logging
from typing import Any

import pytest
from pyramid.authorization import Deny, Everyone
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response

from c2c_otel import admin
from c2c_otel.instrumentation.pyramid import PyramidInstrumentor
from c2c_otel.settings import Settings
from tests import pyramid_kit as kit
from tests.pyramid_kit import FakeTelemetry, assert_left_nothing, get

TIME = "/c2c/debug/time"


@pytest.fixture(autouse=True)
def fake(monkeypatch: Any) -> Any:
    fake = kit.install(monkeypatch)
    monkeypatch.setattr(fake, "render", lambda accept: ("text/plain", b"up 1\n"), raising=False)
    yield fake
    assert_left_nothing()


@pytest.fixture
def launched(fake: FakeTelemetry) -> Any:
    """As under the launcher: every application."""
    PyramidInstrumentor().instrument(skip_dep_check=True)
    yield fake
    PyramidInstrumentor().uninstrument()


def hello(request: Any) -> Response:
    return Response("theirs")


def add(config: Any, name: str, pattern: str, **options: Any) -> None:
    config.add_route(name, pattern, **options)
    config.add_view(hello, route_name=name)


# -- the three ways to have them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_include_alone(fake: FakeTelemetry, times: int) -> None:
    config = Configurator()
    for _ in range(times):
        config.include("c2c_otel")
        config.commit()
    app = config.make_wsgi_app()
    assert get(app, "/metrics").body == b"up 1\n"
    assert get(app, TIME).status == 200
    assert [span.name for span in fake.spans] == ["GET /metrics", "GET /c2c/debug/time"]
    assert fake.sink.routes[0] == ("GET", "c2c_metrics", "/metrics", 200, "http", None)
    assert fake.applications == 1


def test_launcher_alone_and_together_with_the_include(launched: FakeTelemetry) -> None:
    alone = Configurator().make_wsgi_app()
    config = Configurator()
    config.include("c2c_otel")
    together = config.make_wsgi_app()
    for app in (alone, together):
        launched.clear()
        answer = get(app, "/metrics")
        assert answer.body == b"up 1\n"
        assert len(answer.all("Server-Timing")) == 1
        assert len(answer.all("X-Request-ID")) == 1
        assert len(launched.spans) == len(launched.sink.routes) == 1


def test_auto_include_off(fake: FakeTelemetry, monkeypatch: Any) -> None:
    fake.settings = Settings(auto_include=False)
    PyramidInstrumentor().instrument(skip_dep_check=True)
    try:
        assert get(Configurator().make_wsgi_app(), "/metrics").status == 404
        assert len(fake.spans) == 1
        config = Configurator()
        config.include("c2c_otel")
        assert get(config.make_wsgi_app(), "/metrics").status == 200
    finally:
        PyramidInstrumentor().uninstrument()


def test_a_route_prefix_counts_for_ours_too() -> None:
    config = Configurator()
    config.include("c2c_otel", route_prefix="/api")
    app = config.make_wsgi_app()
    assert get(app, "/api/metrics").status == 200
    assert get(app, f"/api{TIME}").status == 200
    assert get(app, "/metrics").status == 404


def test_two_applications_each_have_their_own(fake: FakeTelemetry) -> None:
    apps = []
    for base in ("/one", "/two"):
        config = Configurator(settings={"c2c.base_path": base})
        config.include("c2c_otel")
        apps.append(config.make_wsgi_app())
    one, two = apps
    assert get(one, "/one/debug/time").status == get(two, "/two/debug/time").status == 200
    assert get(one, "/two/debug/time").status == get(two, "/one/debug/time").status == 404
    assert get(one, "/metrics").status == get(two, "/metrics").status == 200
    assert len(fake.sink.routes) == 6


def test_pyramid_s_last_application_is_the_application() -> None:
    from pyramid.config import global_registries

    config = Configurator()
    config.include("c2c_otel")
    app = config.make_wsgi_app()
    assert global_registries.last is app.registry


# -- the application's own things do not touch them -------------------------------------------------------------------


def test_default_permission_csrf_tweens_policies_and_root_factory(launched: FakeTelemetry) -> None:
    class Root:
        __acl__ = ((Deny, Everyone, "view"),)

        def __init__(self, request: Any) -> None:
            asked.append("root factory")

    class Policy:
        def identity(self, request: Any) -> Any:
            asked.append("policy")

        def authenticated_userid(self, request: Any) -> Any:
            asked.append("policy")

        def permits(self, request: Any, context: Any, permission: Any) -> bool:
            asked.append("policy")
            return False

    asked: list[str] = []
    config = Configurator(
        root_factory=Root,
        security_policy=Policy(),
        settings={"pyramid.tweens": "tests.pyramid_kit_tweens.short\npyramid.tweens.excview_tween_factory"},
    )
    config.set_default_permission("view")
    config.set_default_csrf_options(require_csrf=True)
    config.add_view_deriver(
        lambda view, info: asked.append(f"deriver {info.options.get('route_name')}") or view, "ours"
    )
    config.add_subscriber(lambda event: asked.append("subscriber"), "pyramid.events.NewRequest")
    add(config, "theirs", "/theirs")
    app = config.make_wsgi_app()
    asked.clear()
    assert get(app, "/metrics", HTTP_X_TWEEN="raise").status == 200
    assert get(app, TIME, "POST").status == 405
    assert asked == []
    assert get(app, "/theirs").status == 403
    assert "policy" in asked


def test_an_applications_exception_views_do_not_answer_for_ours() -> None:
    config = Configurator()
    config.include("c2c_otel")
    config.add_notfound_view(lambda request: Response("their 404", 404))
    config.add_exception_view(lambda request: Response("their 500", 500), context=Exception)
    app = config.make_wsgi_app()
    assert get(app, TIME).status == 200
    assert get(app, "/c2c/unknown").body == b"their 404"
    assert get(app, "/c2c/stats.json").body == b"their 404"  # not on: no route of ours


def test_a_wrong_method() -> None:
    config = Configurator()
    config.include("c2c_otel")
    answer = get(config.make_wsgi_app(), "/metrics", "DELETE")
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")


# -- who answers a path -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["/metrics", "/{name}", "/*rest", "metrics"])
def test_a_path_the_application_claims_is_its_own(launched: FakeTelemetry, caplog: Any, pattern: str) -> None:
    config = Configurator()
    add(config, "own", pattern)
    with caplog.at_level(logging.WARNING, "c2c_otel"):
        app = config.make_wsgi_app()
    assert get(app, "/metrics").body == b"theirs"
    said = [message for message in caplog.messages if message.startswith("/metrics ")]
    assert said == [
        f"/metrics is not served by c2c-otel: the application's route 'own' (pattern {pattern!r}) matches it."
    ]
    assert (get(app, TIME).body == b"theirs") is ("*" in pattern)


def test_a_static_view_on_the_root_claims_all(launched: FakeTelemetry, tmp_path: Any) -> None:
    (tmp_path / "metrics").write_text("a file")
    config = Configurator()
    config.add_static_view("/", str(tmp_path))
    app = config.make_wsgi_app()
    assert get(app, "/metrics").body == b"a file"
    assert get(app, TIME).status == 404


def test_routes_with_predicates_claim_what_they_match(launched: FakeTelemetry, caplog: Any) -> None:
    config = Configurator()
    add(config, "posted", "/metrics", request_method="POST")
    add(config, "marked", "/*rest", header="X-Mine")
    with caplog.at_level(logging.WARNING, "c2c_otel"):
        app = config.make_wsgi_app()
    assert get(app, "/metrics", "POST").body == b"theirs"
    assert get(app, "/metrics").body == b"up 1\n"
    assert get(app, "/metrics", HTTP_X_MINE="1").body == b"theirs"
    assert get(app, "/metrics", "PUT").status == 405
    assert [m.split(":")[0] for m in caplog.messages if m.startswith("/metrics ")] == [
        "/metrics is not served by c2c-otel where its predicates hold"
    ] * 2


def test_nothing_shadowed_nothing_logged(launched: FakeTelemetry, caplog: Any) -> None:
    config = Configurator()
    add(config, "a", "/a/{b}")
    config.make_wsgi_app()
    assert caplog.messages == []


class Folder(dict[str, Any]):
    """A traversal root."""


def test_a_traversal_application_is_asked_first(launched: FakeTelemetry) -> None:
    root = Folder()
    config = Configurator(root_factory=lambda request: root)
    config.add_view(lambda context, request: Response("found"), context=Folder)
    app = config.make_wsgi_app()
    answer = get(app, "/metrics")
    assert answer.body == b"up 1\n"
    assert answer.starts == 1
    assert len(answer.all("X-Request-ID")) == len(answer.all("Server-Timing")) == 1
    assert launched.sink.routes == [("GET", "c2c_metrics", "/metrics", 200, "http", None)]
    assert len([span for span in launched.spans if span.parent is None]) == 1
    root["metrics"] = Folder()
    assert get(app, "/metrics").body == b"found"
    assert get(app, "/nowhere").status == 404
    root["metrics"] = Folder()

    config = Configurator(root_factory=lambda request: root)
    config.add_view(lambda context, request: Response("no", 403), context=Folder)
    assert get(config.make_wsgi_app(), "/metrics").status == 403


def test_a_traversal_application_without_exception_views(launched: FakeTelemetry) -> None:
    config = Configurator(settings={"pyramid.tweens": "tests.pyramid_kit_tweens.passing"})
    config.add_view(hello, name="named")
    app = config.make_wsgi_app()
    assert get(app, "/metrics").body == b"up 1\n"
    assert get(app, "/named").body == b"theirs"


def test_a_404_that_was_not_taken_is_closed(launched: FakeTelemetry) -> None:
    closed = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(1)

    config = Configurator()
    config.add_view(hello, name="named")
    config.add_notfound_view(lambda request: Response(status=404, app_iter=Body([b"x"])))
    app = config.make_wsgi_app()
    assert get(app, "/metrics").body == b"up 1\n"
    assert closed == [1]


@pytest.mark.parametrize(
    ("configure", "expected"),
    [
        (lambda config: None, False),
        (lambda config: add(config, "a", "/a"), False),
        (lambda config: config.add_notfound_view(hello), False),
        (lambda config: config.add_forbidden_view(hello), False),
        (lambda config: config.add_view(hello, context=ValueError), False),
        (lambda config: config.add_view(hello, context=HTTPForbidden), False),
        (lambda config: config.add_exception_view(hello), False),
        (lambda config: config.include("cornice"), False),
        (lambda config: config.include("pyramid_tm"), False),
        (lambda config: config.add_static_view("static", "tests:core"), False),
        (lambda config: config.add_view(hello), True),
        (lambda config: config.add_view(hello, name="x"), True),
        (lambda config: config.add_view(hello, context=Folder), True),
        (lambda config: config.add_view(hello, name="x", request_method="GET", permission="p"), True),
    ],
)
@pytest.mark.parametrize("introspection", [True, False])
def test_what_counts_as_traversal(configure: Any, expected: bool, introspection: bool) -> None:
    config = Configurator(introspection=introspection)
    configure(config)
    config.commit()
    assert admin.has_traversal_views(config.registry) is expected


def test_a_failing_predicate_leaves_the_answer_to_the_application(launched: FakeTelemetry) -> None:
    from c2c_otel_exporters import guard

    class Failing:
        def __init__(self, value: Any, config: Any) -> None: ...

        def text(self) -> str:
            return "failing"

        phash = text

        def __call__(self, info: Any, request: Any) -> bool:
            raise LookupError

    config = Configurator()
    config.add_route_predicate("failing", Failing)
    add(config, "odd", "/metrics", failing=True)
    app = config.make_wsgi_app()
    guard.strict(False)
    try:
        with pytest.raises(LookupError):
            get(app, "/metrics")
        assert guard.tally["failed.admin.claim"] == 1
    finally:
        guard.strict(None)
        guard.reset()
    assert len(launched.sink.routes) == 1


def test_an_excluded_url_is_still_answered(launched: FakeTelemetry, monkeypatch: Any) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXCLUDED_URLS", "/metrics")
    app = Configurator().make_wsgi_app()
    assert get(app, "/metrics").body == b"up 1\n"
    assert launched.spans == []


def test_an_empty_base_path() -> None:
    config = Configurator(settings={"c2c.base_path": ""})
    config.include("c2c_otel")
    app = config.make_wsgi_app()
    assert get(app, "/debug/time").status == 200
    assert get(app, "/").status == 404
