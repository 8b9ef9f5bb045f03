"""`HealthCheck`: what an application adds, and what a request selects of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from c2c_otel import application, redis_clients, version
from c2c_otel.health_check import alembic_heads, database, redis, url, wording
from c2c_otel.health_check.database import EngineType
from c2c_otel.health_check.runner import Check, JsonCheckException, Result, Runner
from c2c_otel.settings import ConfigurationError, Settings

__all__ = ["HealthCheck"]

_DEFAULT_LEVEL = 1
"""Up to which checks are run where nobody says."""


class HealthCheck:
    """The checks of one application, at ``{base}/health_check``.

    Everywhere: ``level`` is 1 for what the service cannot do without, more for all else; requests say up to which
    level they ask. ``deadline_seconds`` is after how long a check has failed (``C2C_HEALTH_CHECK_TIMEOUT_SECONDS``).
    A name that is taken gets a number behind it. ``cache_seconds`` and ``total_seconds``: instead of the settings.
    """

    def __init__(self, config: Any, *, cache_seconds: float | None = None, total_seconds: float | None = None) -> None:
        """Raises `ConfigurationError` where the application has one already."""
        if getattr(config.registry, "c2c_health_check", None) is not None:
            raise ConfigurationError("HealthCheck", "a second one", "one for each application", "Use the first one.")
        decided = application.of(config.registry)
        self.settings = settings = decided.settings or Settings.load(ini=config.registry.settings)
        prefix = (decided.route_prefix if decided.included else config.route_prefix) or ""
        self.path = f"{prefix and '/' + prefix.strip('/')}{settings.base_path}/health_check"
        self._checks: list[Check] = []
        self._runner = Runner(
            settings.health_check_cache if cache_seconds is None else cache_seconds,
            settings.health_check_total_timeout if total_seconds is None else total_seconds,
        )
        config.registry.c2c_health_check = self
        config.include("c2c_otel_views.health_check.serve")
        if redis_clients.configured(settings):
            self._add(Check(redis.name_of(settings), 2, redis.check(settings), self._deadline(None), True, True))
            if version.get_version(settings.versions_file) is not None:
                self._add(self._version_check("version", 2, None, automatic=True))

    # -- what is checked ----------------------------------------------------------------------------------------------

    def add_db_session_check(
        self,
        session: Any,
        query_cb: Callable[[Any], object] | None = None,
        at_least_one_model: Any = None,
        level: int = 1,
        engine_type: EngineType = EngineType.READ_AND_WRITE,
        *,
        deadline_seconds: float | None = None,
    ) -> None:
        """``db_engine_{name}`` for each engine of a session (or of a sessionmaker, or for an engine): ``query_cb`` is
        called with a session on it, or a row of the model is read, or a connection is made."""
        query = query_cb or (None if at_least_one_model is None else database.at_least_one(at_least_one_model))
        deadline = self._deadline(deadline_seconds)
        for engine in database.engines(session, engine_type):
            call = database.check(engine, query, deadline)
            self._add(Check(f"db_engine_{database.name_of(engine)}", level, call, deadline))

    def add_alembic_check(
        self,
        session: Any,
        alembic_ini_path: str,
        level: int = 2,
        name: str = "alembic",
        version_schema: str | None = None,
        version_table: str | None = None,
        *,
        deadline_seconds: float | None = None,
    ) -> None:
        """``alembic_{path}_{name}``: the databases of a session are at the heads of the migrations, which are the
        result. ``name`` is a section of the ini file."""
        ini, deadline = str(alembic_ini_path), self._deadline(deadline_seconds)
        scripts = alembic_heads.read(ini, name, version_schema, version_table)
        engines = database.engines(session, EngineType.READ_AND_WRITE)
        call = alembic_heads.check(engines, scripts, ini, name, deadline)
        self._add(Check(alembic_heads.name_of(ini, name), level, call, deadline))

    def add_url_check(
        self,
        url: Any,
        params: Any = None,
        headers: Any = None,
        name: str | None = None,
        check_cb: Callable[[Any, Any], Any] | None = None,
        timeout: float = 3,
        level: int = 1,
    ) -> None:
        """A GET is answered without an error within ``timeout`` seconds; the result is that of
        ``check_cb(request, response)``. ``url``, ``params`` and ``headers`` may be functions of the request."""
        call = _url_check(url, params, headers, check_cb, timeout)
        self._add(Check(name or _url_name(url), level, call, timeout + 1.0))  # one more for what is done with it

    def add_redis_check(
        self, name: str | None = None, level: int = 1, *, deadline_seconds: float | None = None
    ) -> None:
        """The Redis of the settings answers. One at level 2 is there by itself; it is replaced. Who has the secret
        sees what Redis says of itself."""
        own = redis.name_of(self.settings)
        call = redis.check(self.settings)
        self._add(Check(name or own, level, call, self._deadline(deadline_seconds), private=True))

    def add_version_check(
        self, name: str = "version", level: int = 2, *, deadline_seconds: float | None = None
    ) -> None:
        """All processes of the service run the same version of the application: ``{"version": ..., "count": ...}``.
        Where Redis is configured and versions.json is there, one is there by itself; it is replaced."""
        self._add(self._version_check(name, level, deadline_seconds))

    def add_custom_check(
        self, name: str, check_cb: Callable[[Any], Any], level: int = 1, *, deadline_seconds: float | None = None
    ) -> None:
        """``check_cb(request)`` returns the result (JSON), or raises; `JsonCheckException` for a result that tells
        why."""
        self._add(Check(name, level, check_cb, self._deadline(deadline_seconds)))

    def _version_check(
        self, name: str, level: int, deadline_seconds: float | None, *, automatic: bool = False
    ) -> Check:
        deadline = self._deadline(deadline_seconds)
        version.follow(self.settings.versions_file)

        def run(request: Any) -> dict[str, Any]:
            found = version.everywhere(deadline * 0.8)  # who does not answer is left out, which takes this long
            if len(found) > 1:
                raise JsonCheckException(f"different versions are running: {', '.join(sorted(found))}", dict(found))
            return {"version": next(iter(found), None), "count": found.total()}

        return Check(name, level, run, deadline, automatic=automatic)

    def _deadline(self, seconds: float | None) -> float:
        return self.settings.health_check_timeout if seconds is None else seconds

    def _add(self, check: Check) -> None:
        check.name = wording.without_passwords(check.name)
        self._checks = [other for other in self._checks if not (other.automatic and other.name == check.name)]
        taken, base, count = {other.name for other in self._checks}, check.name, 1
        while check.name in taken:
            count += 1
            check.name = f"{base}_{count}"
        self._checks.append(check)

    # -- what is asked ------------------------------------------------------------------------------------------------

    @property
    def checks(self) -> tuple[Check, ...]:
        """In the order in which they were added."""
        return tuple(self._checks)

    def select(self, max_level: int | None = None, names: str = "") -> list[Check]:
        """Those of these names, with commas between them (all where there is none), up to a level: 1 where neither is
        given. Raises LookupError, which says what names there are not."""
        if not names.strip(" ,"):
            wanted, limit = self.checks, _DEFAULT_LEVEL if max_level is None else max_level
            return [check for check in wanted if check.level <= limit]
        by_name = {check.name: check for check in self._checks}
        known, unknown = _named(names, by_name)
        if unknown:
            raise LookupError(f"There is no check {', '.join(unknown)}; there are {', '.join(by_name) or 'none'}.")
        return [by_name[name] for name in known if max_level is None or by_name[name].level <= max_level]

    def run(self, request: Any, checks: Iterable[Check], *, once: bool = False) -> list[tuple[Check, Result]]:
        """Results of checks, in their order, after ``total_seconds`` at most. ``once``: a success that was seen in
        this process before will do."""
        return self._runner.run(request, checks, once=once)


def _named(text: str, known: Collection[str]) -> tuple[list[str], list[str]]:
    """The names in a list, and what is none; a name may have commas itself."""
    parts = [part.strip() for part in text.split(",")]
    longest = max((name.count(",") + 1 for name in known), default=1)
    names: dict[str, None] = {}
    unknown: dict[str, None] = {}
    while parts:
        for length in range(min(longest, len(parts)), 0, -1):
            if (name := ",".join(parts[:length])) in known:
                names[name] = None
                del parts[:length]
                break
        else:
            if part := parts.pop(0):
                unknown[part] = None
    return list(names), list(unknown)


_url_check, _url_name = url.check, url.name_of  # `add_url_check` has a parameter of that name
