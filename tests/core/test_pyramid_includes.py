from __future__ import annotations

import datetime
import decimal
import json
from types import SimpleNamespace
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.interfaces import ITweens
from pyramid.renderers import JSON
from pyramid.request import Request
from pyramid.response import Response

from c2c_otel import application
from c2c_otel.settings import ConfigurationError
from tests import pyramid_kit as kit
from tests.pyramid_kit import FakeTelemetry, assert_left_nothing, get


@pytest.fixture(autouse=True)
def fake(monkeypatch: Any) -> Any:
    yield kit.install(monkeypatch)
    assert_left_nothing()


def rendering(renderer: str, value: Any, configure: Any = None, **settings: Any) -> Any:
    config = Configurator(settings=settings)
    config.include("c2c_otel")
    if configure is not None:
        configure(config)
    config.add_route("it", "/it")
    config.add_view(lambda request: value, route_name="it", renderer=renderer)
    return get(config.make_wsgi_app(), "/it")


# -- settings -------------------------------------------------------------------------------------------------------


def test_the_ini_counts_and_the_environment_wins(fake: FakeTelemetry, monkeypatch: Any) -> None:
    monkeypatch.setenv("STATSD_PREFIX", "environment")
    config = Configurator(settings={"c2c.statsd_prefix": "ini", "c2c.base_path": "/admin"})
    config.include("c2c_otel")
    assert fake.settings.statsd_prefix == "environment"
    assert fake.settings.base_path == "/admin"
    assert application.of(config.registry).settings is fake.settings


def test_a_bad_setting_fails_the_start() -> None:
    config = Configurator(settings={"c2c.stats_view": "perhaps"})
    with pytest.raises(ConfigurationError, match=r"c2c\.stats_view is 'perhaps'"):
        config.include("c2c_otel")


def test_telemetry_off(fake: FakeTelemetry, monkeypatch: Any) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    answer = rendering("json", {"a": 1})
    assert answer.status == 200
    assert fake.spans == fake.sink.seen == []


def test_pyramid_s_instrumentation_off(fake: FakeTelemetry, monkeypatch: Any) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "pyramid")
    assert rendering("json", {"a": 1}).status == 200
    assert fake.spans == []


# -- pyramid_tm -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after", "settings", "committed", "never"])
def test_pyramid_tm_is_included_once(when: str) -> None:
    config = Configurator(settings={"pyramid.includes": "pyramid_tm"} if when == "settings" else {})
    if when in {"before", "committed"}:
        config.include("pyramid_tm")
    if when == "committed":
        config.commit()
    config.include("c2c_otel")
    if when == "after":
        config.include("pyramid_tm")
    managers: list[Any] = []
    config.add_route("it", "/it")
    config.add_view(lambda request: managers.append(request.tm) or Response(""), route_name="it")
    app = config.make_wsgi_app()
    assert get(app, "/it").status == 200
    assert managers[0] is not None
    names = [name for name, _ in app.registry.getUtility(ITweens).implicit()]
    assert names.count("pyramid_tm.tm_tween_factory") == 1


def test_it_changes_no_other_tween() -> None:
    config = Configurator()
    config.include("c2c_otel")
    config.commit()
    assert [name for name, _ in config.registry.getUtility(ITweens).implicit()] == [
        "pyramid_tm.tm_tween_factory",
        "pyramid.tweens.excview_tween_factory",
    ]


# -- cornice --------------------------------------------------------------------------------------------------------


def service(config: Any) -> None:
    from cornice import Service

    hello = Service(name="hello", path="/hello")
    hello.add_view("GET", lambda request: {"hello": request.current_service.name})
    config.add_cornice_service(hello)


@pytest.mark.parametrize("when", ["on demand", "before", "after", "after the service"])
def test_cornice(when: str) -> None:
    config = Configurator()
    if when == "before":
        config.include("cornice")
    config.include("c2c_otel")
    if when == "after":
        config.include("cornice")
    service(config)
    if when == "after the service":
        config.include("cornice")
    app = config.make_wsgi_app()
    answer = get(app, "/hello")
    assert (answer.status, json.loads(answer.body)) == (200, {"hello": "hello"})
    assert get(app, "/hello", "POST").status == 405
    assert [found.name for found in app.registry.cornice_services.values()] == ["hello"]


def test_cornice_services_that_a_scan_finds() -> None:
    config = Configurator()
    config.include("c2c_otel")
    config.scan("tests.pyramid_kit_services")
    app = config.make_wsgi_app()
    assert json.loads(get(app, "/scanned").body) == {"scanned": True}
    assert json.loads(get(app, "/things/3").body) == {"id": "3"}


def test_without_services_cornice_costs_nothing() -> None:
    config = Configurator()
    config.include("c2c_otel")
    config.commit()
    assert not hasattr(config.registry, "cornice_services")
    assert config.registry.has_listeners == _has_listeners()


def _has_listeners() -> bool:
    plain = Configurator()
    plain.commit()
    return bool(plain.registry.has_listeners)


def test_cornice_leaves_exceptions_alone() -> None:
    config = Configurator()
    config.include("c2c_otel")
    service(config)
    config.add_route("boom", "/boom")
    config.add_view(lambda request: 1 / 0, route_name="boom")
    with pytest.raises(ZeroDivisionError):
        get(config.make_wsgi_app(), "/boom")


# -- renderers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", ["json", "fast_json"])
def test_json_is_indented_and_sorted(renderer: str) -> None:
    answer = rendering(renderer, {"b": [1, "é/"], "a": None})
    text = answer.body.decode()
    if renderer == "json":
        assert text == '{\n  "a": null,\n  "b": [\n    1,\n    "\\u00e9/"\n  ]\n}'
    else:
        assert text == '{\n  "a": null,\n  "b": [\n    1,\n    "é/"\n  ]\n}'
    assert (answer.header("Content-Type") or "").startswith("application/json")


@pytest.mark.parametrize("renderer", ["json", "fast_json"])
def test_objects_that_adapt_themselves(renderer: str) -> None:
    thing = SimpleNamespace(__json__=lambda request: {"path": request.path})
    assert json.loads(rendering(renderer, {"thing": thing}).body) == {"thing": {"path": "/it"}}
    with pytest.raises(TypeError, match="not JSON serializable"):
        rendering(renderer, {"thing": object()})


def test_numbers_of_fast_json() -> None:
    assert json.loads(rendering("fast_json", [decimal.Decimal("1.5"), 2**70, "é"]).body) == [1.5, 2**70, "é"]


def test_a_content_type_of_the_view_stays() -> None:
    def configure(config: Any) -> None:
        def view(request: Any) -> Any:
            request.response.content_type = "application/geo+json"
            return {}

        config.add_route("geo", "/geo")
        config.add_view(view, route_name="geo", renderer="fast_json")

    config = Configurator()
    config.include("c2c_otel")
    configure(config)
    assert (get(config.make_wsgi_app(), "/geo").header("Content-Type") or "").startswith("application/geo+json")


def test_an_application_s_own_json_renderer_wins() -> None:
    def configure(config: Any) -> None:
        renderer = JSON()
        renderer.add_adapter(datetime.date, lambda value, request: value.isoformat())
        config.add_renderer("json", renderer)

    assert rendering("json", [datetime.date(2020, 1, 2)], configure).body == b'["2020-01-02"]'


# -- requests -------------------------------------------------------------------------------------------------------


def test_the_class_of_requests_is_made_once() -> None:
    seen: list[Any] = []

    def view(request: Any) -> Response:
        seen.append((request, type(request), request.lazy, request.lazy, request.method_added(), request.tm))
        request.lazy = "set"
        request.set_property(lambda request: "own", name="own")
        assert request.own == "own"
        return Response("")

    config = Configurator()
    config.include("c2c_otel")
    made: list[int] = []
    config.add_request_method(lambda request: made.append(1) or len(made), "lazy", reify=True)
    config.add_request_method(lambda request: ("method", id(request)), "method_added")
    config.add_request_method(lambda request: request.path, "dynamic", property=True)
    config.add_route("it", "/it")
    config.add_view(view, route_name="it")
    app = config.make_wsgi_app()
    for _ in range(3):
        get(app, "/it")
    assert len({cls for _, cls, *_ in seen}) == 1
    assert [lazy for _, _, lazy, *_ in seen] == [1, 2, 3]
    assert all(method == ("method", id(request)) for request, _, _, _, method, _ in seen)
    assert not hasattr(seen[0][1], "own")
    assert not hasattr(Request, "lazy")

    app.request_extensions.descriptors["later"] = property(lambda request: "later")
    late: list[str] = []
    config.add_route("late", "/late")
    config.add_view(lambda request: late.append(request.later) or Response(""), route_name="late")
    config.commit()
    get(app, "/late")
    assert late == ["later"]


def test_each_request_has_the_interfaces_it_was_given() -> None:
    from zope.interface import Interface, alsoProvides

    class IMarked(Interface):
        pass

    seen: list[bool] = []

    def view(request: Any) -> Response:
        seen.append(IMarked.providedBy(request))
        alsoProvides(request, IMarked)
        seen.append(IMarked.providedBy(request))
        return Response("")

    config = Configurator()
    config.include("c2c_otel")
    config.add_route("it", "/it")
    config.add_view(view, route_name="it")
    app = config.make_wsgi_app()
    get(app, "/it")
    get(app, "/it")
    assert seen == [False, True, False, True]
