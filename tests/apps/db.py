"""A Pyramid application that says which server its statements have reached, and calls of it in this process.

Servers are told apart by what is in their table ``server`` (SQLite) or by ``pg_is_in_recovery()`` (PostgreSQL).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import orm

from c2c_otel import db

POSTGRES = "SELECT CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE 'primary' END"
SQLITE = "SELECT name FROM server"


class Base(orm.DeclarativeBase):
    pass


class Hello(Base):
    __tablename__ = "db_hello"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[str]


def sqlite_servers(directory: Path) -> dict[str, str]:
    """Two databases, each with its name in it; the settings that name them."""
    settings = {}
    for prefix, name in (("sqlalchemy", "primary"), ("sqlalchemy_slave", "replica")):
        url = f"sqlite:///{directory / name}.sqlite"
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(sa.text("CREATE TABLE server (name TEXT)"))
            connection.execute(sa.text("INSERT INTO server VALUES (:name)"), {"name": name})
        engine.dispose()
        settings[f"{prefix}.url"] = url
    return settings


class Application:
    """``with Application(settings) as app: app.get("/where").text``; what else is given goes to `setup_session`.

    | path | what it does |
    |---|---|
    | /where | names the server |
    | /write | adds a row, in a flush |
    | /execute | adds a row, by a statement |
    | /late | adds a row when the transaction is committed |
    | /primary, /replica | names the server, as chosen by the code after a first look |
    | /block | the same in a block, then outside of it |
    | /error | names the server in the log and fails |
    | /nested | a subrequest through the tweens: POST /where; then names its own server |
    | /inner | a subrequest without tweens; then names its own server |
    | /stream | names the server while the body is sent |
    """

    def __init__(
        self, settings: dict[str, Any], *, include: bool = True, options: dict[str, Any] | None = None, **arguments: Any
    ) -> None:
        self.config = Configurator(settings=settings, **(options or {}))
        if include:
            self.config.include("c2c_otel")
        self.query = sa.text(POSTGRES if settings["sqlalchemy.url"].startswith("postgres") else SQLITE)
        arguments.setdefault("slave_prefix", "sqlalchemy_slave")
        self.session, self.rw, self.ro = db.setup_session(self.config, "sqlalchemy", **arguments)
        self.seen: list[str] = []
        for name in dir(type(self)):
            if name.startswith("view_"):
                self.config.add_route(name, f"/{name.removeprefix('view_')}")
                self.config.add_view(getattr(self, name), route_name=name)
        self.wsgi = self.config.make_wsgi_app()

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.session.dispose()

    def call(self, method: str, path: str, **environ: Any) -> Any:
        """The response. `webob` reads and closes its body."""
        request = Request.blank(path, method=method, environ=environ or None)
        return request.get_response(self.wsgi)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str) -> Any:
        return self.call("POST", path)

    def where(self) -> str:
        self.seen.append(str(self.session.scalar(self.query)))
        return self.seen[-1]

    def count(self) -> int:
        """Rows on the primary."""
        with self.rw.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(Hello)) or 0)

    # -- views ----------------------------------------------------------------------------------------------------

    def view_where(self, request: Any) -> Any:
        return Response(self.where())

    def view_write(self, request: Any) -> Any:
        self.session.add(Hello(value="written"))
        self.session.flush()
        return Response(self.where())

    def view_execute(self, request: Any) -> Any:
        self.session.execute(sa.insert(Hello).values(value="executed"))
        return Response(self.where())

    def view_late(self, request: Any) -> Any:
        self.session.add(Hello(value="late"))
        return Response("answered")

    def view_primary(self, request: Any) -> Any:
        before = self.where()
        db.use_primary(request)
        return Response(f"{before} {self.where()}")

    def view_replica(self, request: Any) -> Any:
        before = self.where()
        db.use_replica(request)
        return Response(f"{before} {self.where()}")

    def view_block(self, request: Any) -> Any:
        with db.primary():
            inside = self.where()
            with db.replica():
                deeper = self.where()
        return Response(f"{inside} {deeper} {self.where()}")

    def view_error(self, request: Any) -> Any:
        self.where()
        raise ZeroDivisionError

    def view_nested(self, request: Any) -> Any:
        before = self.where()
        inner = request.invoke_subrequest(Request.blank("/where", method="POST"), use_tweens=True).text
        return Response(f"{before} {inner} {self.where()}")

    def view_inner(self, request: Any) -> Any:
        before = self.where()
        inner = request.invoke_subrequest(Request.blank("/where", method="POST")).text
        return Response(f"{before} {inner} {self.where()}")

    def view_stream(self, request: Any) -> Any:
        self.where()
        return Response(app_iter=(self.where().encode() for _ in range(2)))
