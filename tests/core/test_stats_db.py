"""c2c-otel-stats-db against a real PostgreSQL: what is measured, what reaches statsd, a Pushgateway and a collector,
what is lost when something fails."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from c2c_otel.commands import stats_db
from c2c_otel.commands.progress import Progress
from c2c_otel.statistics_run import Run
from c2c_otel.table_statistics import MeasureError, Reader, Table, Value, database_url
from tests.servers import OtlpReceiver, Postgres, Pushgateway, Statsd, UdpSink

NAME = "stats_db_test"

TABLES = """
    CREATE TABLE many (id serial PRIMARY KEY, text text);
    INSERT INTO many (text) SELECT repeat('x', 50) FROM generate_series(1, 1000);
    CREATE TABLE empty (id int);
    CREATE TABLE never (id int) WITH (autovacuum_enabled = off);
    INSERT INTO never SELECT generate_series(1, 7);
    CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
    CREATE TABLE part_2_1 PARTITION OF part_2 FOR VALUES FROM (10) TO (20);
    INSERT INTO part SELECT generate_series(1, 15);
    CREATE TABLE heir () INHERITS (empty);
    INSERT INTO heir VALUES (1), (2);
    CREATE VIEW seen AS SELECT * FROM many;
    CREATE MATERIALIZED VIEW kept AS SELECT * FROM many;
    CREATE SCHEMA "O dd";
    CREATE TABLE "O dd"."T.""é" (id int);
    INSERT INTO "O dd"."T.""é" VALUES (1);
    CREATE SCHEMA other;
    CREATE TABLE other.elsewhere (id int);
    ANALYZE many;
    CREATE ROLE blind LOGIN;
    REVOKE ALL ON never FROM blind;
"""
COUNTS = {
    ("O dd", 'T."é'): 1,
    ("public", "empty"): 2,  # its heir's
    ("public", "heir"): 2,
    ("public", "many"): 1000,
    ("public", "never"): 7,
    ("public", "part"): 15,
    ("public", "part_1"): 9,
    ("public", "part_2"): 6,
    ("public", "part_2_1"): 6,
}


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[Postgres]:
    """A database of our own on the shared server."""
    postgres.execute(f"CREATE DATABASE {NAME}")
    try:
        with psycopg.connect(postgres.dsn(dbname=NAME), autocommit=True) as connection:
            connection.execute(TABLES)
        yield postgres
    finally:
        postgres.execute(f"DROP DATABASE {NAME} (FORCE)")
        postgres.execute("DROP ROLE IF EXISTS blind")


@pytest.fixture
def dsn(database: Postgres) -> str:
    return database.dsn(dbname=NAME)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment has a say."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_METRICS_EXPORTER", "LOG_TYPE", "LOG_LEVEL", "STATSD_USE_TAGS"):
        monkeypatch.delenv(name, raising=False)


def in_database(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, dict[str, float]]:
    """What is printed without a target: kind -> ``schema.table[.index.what]``, or the name of an extra -> value."""
    assert stats_db.main([*arguments]) == status
    out = capsys.readouterr().out
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(out):
        for sample in family.samples:
            labels = sample.labels
            order = ("schema", "table", "index", "fork", "action", "metric")
            key = ".".join(labels[name] for name in order if name in labels)
            found.setdefault(family.name.removeprefix("database_table_"), {})[key] = sample.value
    return found


def counts(found: dict[str, dict[str, float]]) -> dict[str, float]:
    return {key: value for key, value in found["count"].items() if not key.startswith("x.")}


# -- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [[], ["--exact"]])
def test_rows(dsn: str, capsys: pytest.CaptureFixture[str], exact: list[str]) -> None:
    found = printed(capsys, "--db", dsn, "--schema", "O dd", *exact)
    assert counts(found) == {".".join(path): rows for path, rows in COUNTS.items()}


def test_estimates_are_the_last_ones(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    """1000 rows were analysed; the one that came since is only seen by counting."""
    in_database(dsn, "INSERT INTO many (text) VALUES ('new')")
    try:
        assert counts(printed(capsys, "--db", dsn))["public.many"] == 1000
        assert counts(printed(capsys, "--db", dsn, "--exact"))["public.many"] == 1001
    finally:
        in_database(dsn, "DELETE FROM many WHERE text = 'new'")


def test_without_exact_no_table_that_was_analysed_is_read(database: Postgres, dsn: str) -> None:
    before = len(database.log())
    assert stats_db.main(["--db", dsn]) == 0
    statements = database.log()[before:]
    assert 'FROM ONLY "public"."never"' in statements
    assert "many" not in "".join(re.findall(r'count\(\*\) FROM (?:ONLY )?("\S+)', statements))
    assert 'ONLY "public"."empty"' not in statements  # no page, no row


def test_a_truncated_table_has_no_rows(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    in_database(dsn, "CREATE TABLE gone (id int); INSERT INTO gone VALUES (1); ANALYZE gone; TRUNCATE gone")
    try:
        assert counts(printed(capsys, "--db", dsn))["public.gone"] == 0
    finally:
        in_database(dsn, "DROP TABLE gone")


def test_sizes_and_indexes(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT pg_table_size('many'), pg_relation_size('many_pkey'), pg_relation_size('many_pkey', 'fsm'),"
            " pg_table_size('part_1') + pg_table_size('part_2_1')"
        ).fetchone()
    assert row is not None
    found = printed(capsys, "--db", dsn)
    assert found["size"]["public.many"] == row[0] > 0
    assert found["size"]["public.part"] == row[3] > 0
    assert found["size"]["public.empty"] == 0  # its own: the heir's are the heir's
    assert found["index_size"]["public.many.many_pkey.main"] == row[1] > 0
    assert found["index_size"]["public.many.many_pkey.fsm"] == row[2] == 0
    assert {key for key in found["index_usage"] if ".many." in key} == {
        f"public.many.many_pkey.{what}" for what in ("scan", "read", "fetch")
    }


def test_usage_of_an_index(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    in_database(dsn, "CREATE TABLE used (id int PRIMARY KEY); INSERT INTO used SELECT generate_series(1, 5)")
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off")
            for _ in range(2):
                connection.execute("SELECT * FROM used WHERE id BETWEEN 2 AND 4").fetchall()
        # the server writes statistics down when a session ends
        usage: dict[str, float] = {}
        for _ in range(50):
            usage = printed(capsys, "--db", dsn)["index_usage"]
            if usage["public.used.used_pkey.scan"] >= 2:
                break
        assert [usage[f"public.used.used_pkey.{what}"] for what in ("scan", "read", "fetch")] == [2, 6, 6]
    finally:
        in_database(dsn, "DROP TABLE used")


def test_schemas(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "--db", dsn, "--schema", "other", "--schema", "other", "--schema", "public")
    assert "other.elsewhere" in found["count"]
    assert "public.many" in found["count"]
    assert not any(key.startswith("O dd") for key in found["count"])


def test_views_are_no_tables(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "--db", dsn)
    assert not any("seen" in key or "kept" in key for kind in found.values() for key in kind)


def test_extra(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT 'x.' || left(text, 1), count(*) * 0.5 FROM many WHERE text LIKE 'x%' OR text = ':b' GROUP BY 1"
    found = printed(capsys, "--db", dsn, "--extra", statement, "--extra", "SELECT 'x.none', 0 UNION SELECT 'x.y', 2.5")
    assert {key: value for key, value in found["count"].items() if key.startswith("x.")} == {
        "x.x": 500,
        "x.none": 0,
        "x.y": 2.5,
    }


# -- what fails -------------------------------------------------------------------------------------------------------


def test_a_failing_table_loses_only_itself(
    dsn: str, udp_sink: UdpSink, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A role that may not read ``never``, which has to be counted: its size is there nevertheless."""
    blind = dsn.replace("postgres@", "blind@")
    assert stats_db.main(["--db", blind, "--statsd-address", udp_sink.address]) == 1
    lines = udp_sink.wait_for(lambda lines: any(line.startswith("c2c.size.public.part_2_1:") for line in lines))
    counted = {name for schema, name in COUNTS if schema == "public"} - {"many"}  # all others were never analysed
    assert sorted(line for line in lines if "error" in line) == sorted(f"c2c.error.public.{n}:1|c" for n in counted)
    assert "c2c.count.public.many:1000|g" in lines
    assert not any(line.startswith("c2c.count.public.never:") for line in lines)
    assert any(line.startswith("c2c.size.public.never:8192|g") for line in lines)
    assert "rows of public.never: permission denied for table never" in caplog.messages


def test_a_locked_table_is_not_waited_for_for_ever(
    dsn: str, udp_sink: UdpSink, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE never IN ACCESS EXCLUSIVE MODE")
        arguments = ["--db", dsn, "--statsd-address", udp_sink.address, "--timeout", "0.1", "--exact"]
        assert stats_db.main(arguments) == 1
    lines = udp_sink.wait_for(lambda lines: any(line.startswith("c2c.size.public.part_2_1:") for line in lines))
    assert "c2c.error.public.never:1|c" in lines
    assert "c2c.count.public.many:1000|g" in lines
    assert "rows of public.never: canceling statement due to statement timeout" in caplog.messages


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("SELECT nonsense", 'column "nonsense" does not exist'),
        ("SELECT 'a', 1, 2", "expected a query with two columns, a name and a number"),
        ("SELECT 'a', NULL", "the value of 'a' is None; expected a number"),
        ("SELECT 'a', 'b'", "the value of 'a' is 'b'; expected a number"),
        ("DELETE FROM many RETURNING text, id", "cannot execute DELETE in a read-only transaction"),
        ("SELECT 'a', nextval('many_id_seq')", "cannot execute nextval() in a read-only transaction"),
        ("SET LOCAL work_mem = '1MB'", "expected a query with two columns, a name and a number"),
        ("SELECT 'a', pg_sleep(10)", "canceling statement due to statement timeout"),
        ("SELECT 'a', 1 FROM pg_terminate_backend(pg_backend_pid())", "terminat"),
    ],
)
def test_a_failing_extra_loses_only_itself(
    dsn: str, udp_sink: UdpSink, caplog: pytest.LogCaptureFixture, statement: str, why: str
) -> None:
    arguments = ["--db", dsn, "--statsd-address", udp_sink.address, "--timeout", "0.5"]
    good = ["--extra", "SELECT 'good', 1"]
    assert stats_db.main([*arguments, *good, "--extra", statement, "--extra", "SELECT 'last', 1"]) == 1
    lines = udp_sink.wait_for(lambda lines: "c2c.count.last:1|g" in lines)
    assert "c2c.count.good:1|g" in lines
    assert [line for line in lines if "error" in line] == ["c2c.error.extra.2:1|c"]
    assert any(message.startswith(f"--extra {statement}: ") and why in message for message in caplog.messages)
    assert caplog.messages[-1].endswith("1 failures")


def test_a_schema_that_is_not_there(dsn: str, udp_sink: UdpSink, caplog: pytest.LogCaptureFixture) -> None:
    assert stats_db.main(["--db", dsn, "--schema", "typo", "--statsd-address", udp_sink.address]) == 1
    assert "c2c.error.typo:1|c" in udp_sink.wait_for(lambda lines: "c2c.error.typo:1|c" in lines)
    assert "schema typo: there is none of that name" in caplog.messages


def test_a_database_without_public_is_none_to_complain_about(database: Postgres) -> None:
    database.execute("CREATE DATABASE stats_db_bare")
    try:
        dsn = database.dsn(dbname="stats_db_bare")
        in_database(dsn, "DROP SCHEMA public")
        assert stats_db.main(["--db", dsn]) == 0
        assert stats_db.main(["--db", dsn, "--schema", "public"]) == 1
    finally:
        database.execute("DROP DATABASE stats_db_bare (FORCE)")


def test_a_database_that_is_away(
    pushgateway: Pushgateway, dsn: str, udp_sink: UdpSink, caplog: pytest.LogCaptureFixture
) -> None:
    """What was pushed before stays: nothing is known that would take its place."""
    pushgateway.clear()
    push = ["--prometheus-url", pushgateway.url]
    assert stats_db.main(["--db", dsn, *push]) == 0
    before = pushgateway.scrape()
    assert 'database_table_count{instance="",job="db_counts",schema="public",table="many"} 1000' in before
    away = ["--db", "postgresql://x:secret@127.0.0.1:1/x", "--statsd-address", udp_sink.address]
    assert stats_db.main([*away, *push]) == 1
    assert pushgateway.scrape() == before
    assert udp_sink.wait_for(1) == ["c2c.error.connection:1|c"]
    assert any("refused" in message for message in caplog.messages)
    assert "secret" not in caplog.text


class Vanishing(Reader):
    """Each table is dropped between the list and the question."""

    def tables(self, schemas: object) -> tuple[list[Table], set[str]]:
        return [Table("public", "never", 1), Table("public", "other", 2)], set()


@pytest.mark.parametrize("exact", [True, False])
def test_a_table_that_is_dropped_meanwhile_is_no_failure(dsn: str, exact: bool) -> None:
    reader = Vanishing(database_url(dsn), exact=exact)
    with contextlib.closing(reader):
        run = Run(reader, [], Progress(None))
        run.measure([], [])
    assert (run.tables, run.failures) == (2, 0)


def test_the_database_goes_away_in_between(dsn: str) -> None:
    class Ending(Reader):
        def count(self, table: Table) -> list[Value]:
            raise MeasureError("broken")

        def exists(self, table: Table) -> bool:
            self._engine = Reader(database_url("postgresql://x@127.0.0.1:1/x"))._engine
            with self._transaction():
                return True

    reader = Ending(database_url(dsn))
    first = reader._engine
    try:
        run = Run(reader, [], Progress(None))
        run.measure([], ["SELECT 'a', 1"])
        assert (run.tables, run.values, run.failures) == (1, 0, 1)
    finally:
        first.dispose()


def test_targets_that_are_away(dsn: str, caplog: pytest.LogCaptureFixture, udp_sink: UdpSink) -> None:
    arguments = ["--db", dsn, "--prometheus-url", "http://127.0.0.1:1", "--statsd-address", udp_sink.address]
    assert stats_db.main(arguments) == 1
    assert any("PUT http://127.0.0.1:1/metrics/job/db_counts" in message for message in caplog.messages)
    assert "c2c.count.public.many:1000|g" in udp_sink.wait_for(lambda lines: "c2c.count.public.many:1000|g" in lines)


# -- where it goes ----------------------------------------------------------------------------------------------------


def test_statsd(dsn: str, statsd: Statsd) -> None:
    statsd.clear()
    arguments = ["--db", dsn, "--statsd_address", statsd.address, "--statsd_prefix", "shop", "--schema", "O dd"]
    assert stats_db.main(arguments) == 0
    totals = statsd.wait_for(lambda totals: "shop.index_usage.public.part_2_1.part_2_1_pkey.fetch" in totals.gauges)
    assert statsd.bad_lines() == 0
    gauges = {name: value for name, value in totals.gauges.items() if name.startswith("shop.")}
    assert gauges["shop.count.public.many"] == 1000
    assert gauges["shop.count.O_dd.T___"] == 1
    assert gauges["shop.size.public.empty"] == 0
    assert gauges["shop.index_size.public.many.many_pkey.main"] > 0
    assert {f"shop.index_usage.public.many.many_pkey.{what}" for what in ("scan", "read", "fetch")} <= set(gauges)


def test_statsd_with_tags(dsn: str, udp_sink: UdpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATSD_USE_TAGS", "1")
    monkeypatch.setenv("STATSD_TAG_ENV", "prod")
    extra = "SELECT 'a.b', 3"
    assert stats_db.main(["--db", dsn, "--statsd-address", udp_sink.address, "--extra", extra]) == 0
    lines = udp_sink.wait_for(lambda lines: any("metric:" in line for line in lines))
    assert "c2c.count:1000|g|#env:prod,schema:public,table:many" in lines
    assert "c2c.count:3|g|#env:prod,metric:a.b" in lines
    assert "c2c.index_size:0|g|#env:prod,fork:fsm,index:many_pkey,schema:public,table:many" in lines
    assert any(line.startswith("c2c.index_usage:") and "action:scan," in line for line in lines)


def test_pushgateway(
    dsn: str, pushgateway: Pushgateway, monkeypatch: pytest.MonkeyPatch, promtool: Callable[[str], tuple[int, str]]
) -> None:
    pushgateway.clear()
    monkeypatch.setenv("STATSD_TAG_ENV", "prod")
    monkeypatch.setenv("STATSD_TAG_1ST", "x")
    arguments = ["--db", dsn, "--prometheus_url", pushgateway.url, "--prometheus_instance", "shop/1"]
    assert stats_db.main([*arguments, "--schema", "O dd", "--extra", "SELECT 'a.b', 3"]) == 0
    (group,) = pushgateway.groups()
    assert group["labels"] == {"job": "db_counts", "instance": "shop/1"}
    scraped = pushgateway.scrape()
    own = 'env="prod",instance="shop/1",job="db_counts"'
    assert f'database_table_count{{{own},schema="public",table="many",tag_1st="x"}} 1000\n' in scraped
    assert f'database_table_count{{{own},schema="O dd",table="T.\\"é",tag_1st="x"}} 1\n' in scraped
    assert f'database_table_count{{{own},metric="a.b",tag_1st="x"}} 3\n' in scraped
    assert f'database_table_size{{{own},schema="public",table="empty",tag_1st="x"}} 0\n' in scraped
    kinds = set(re.findall(r"^# TYPE (\S+) gauge$", scraped, re.MULTILINE))
    assert kinds == {f"database_table_{kind}" for kind in ("count", "size", "index_size", "index_usage")}
    code, said = promtool(scraped)
    assert code == 3 and "_count" in said  # the names are the documented ones, that is all it has to say
    assert all("no help text" in line or '"_count" suffix' in line for line in said.splitlines()), said


def by_variables(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    return []


def by_option(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    return ["--otlp", receiver.url]


@pytest.mark.parametrize("way", [by_variables, by_option])
def test_otlp(
    dsn: str,
    otlp_receiver: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[OtlpReceiver, pytest.MonkeyPatch], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert stats_db.main(["--db", dsn, *way(otlp_receiver, monkeypatch), "--extra", "SELECT 'a.b', 2.5"]) == 0
    assert not otlp_receiver.errors
    assert capsys.readouterr().out == ""
    points = {
        (point["name"], *(point["attributes"].get(name) for name in ("schema", "table", "metric"))): point
        for point in otlp_receiver.metrics
    }
    many = points["database.table.count", "public", "many", None]
    assert many["value"] == 1000
    assert many["attributes"]["db.namespace"] == NAME
    assert many["attributes"]["server.address"] == "127.0.0.1"
    assert many["resource"]["service.name"] == "c2c-otel-stats-db"
    assert points["database.table.count", None, None, "a.b"]["value"] == 2.5
    assert points["database.table.size", "public", "empty", None]["value"] == 0
    assert {name for name, *_ in points} == {
        f"database.table.{kind}" for kind in ("count", "size", "index_size", "index_usage")
    }


def test_a_collector_that_is_away(dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    assert stats_db.main(["--db", dsn, "--otlp", "http://127.0.0.1:1"]) == 1
    assert "the OpenTelemetry collector did not take what was measured" in caplog.messages


def test_on_a_replica(database: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    database.wait_for_replica()
    found = printed(capsys, "--db", database.dsn("replica", NAME), "--schema", "O dd")
    assert counts(found) == {".".join(path): rows for path, rows in COUNTS.items()}


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: --db"),
        (["--db", "sqlite://"], "expected a URL of PostgreSQL, not of sqlite"),
        (["--db", "secret"], "expected a URL such as postgresql://user@host/name"),
        (["--db", "postgresql://x", "--prometheus-url", "pushgateway"], "--prometheus-url: expected a URL that starts"),
        (["--db", "postgresql://x", "--statsd-address", "x"], "'x'; expected host:port"),
        (["--db", "postgresql://x", "--statsd-address", ""], "expected host:port"),
        (["--db", "postgresql://x", "--timeout", "-1"], "expected a number of seconds"),
        (["--db", "postgresql://x", "--timeout", "nan"], "expected a number of seconds"),
        (["--db", "postgresql://x", "--verbosity", "LOUD"], "expected a level such as DEBUG"),
        (["--db", "postgresql://x", "--exa"], "unrecognized arguments: --exa"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        stats_db.main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert "secret" not in err


def test_a_setting_that_cannot_be_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert stats_db.main(["--db", "postgresql://x", "--otlp", "collector:4318"]) == 2
    assert "collector:4318" in capsys.readouterr().err
    monkeypatch.setenv("STATSD_USE_TAGS", "perhaps")
    assert stats_db.main(["--db", "postgresql://x"]) == 2
    assert "STATSD_USE_TAGS" in capsys.readouterr().err


def test_verbosity(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    assert stats_db.main(["--db", dsn, "--verbosity", "debug"]) == 0
    assert "count.public.many -> 1000" in caplog.messages
    caplog.clear()
    assert stats_db.main(["--db", dsn, "--verbosity", "WARNING"]) == 0
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://x/y", "postgresql+psycopg"),
        ("postgres://x/y", "postgresql+psycopg"),
        ("postgresql+psycopg2://x/y", "postgresql+psycopg2"),
    ],
)
def test_driver(url: str, driver: str) -> None:
    assert database_url(url).drivername == driver


def test_the_other_driver(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = dsn.replace("postgresql://", "postgresql+psycopg2://")
    extra = "SELECT 'x.y', count(*) FROM many WHERE text LIKE 'x%'"
    assert printed(capsys, "--db", url, "--extra", extra)["count"]["x.y"] == 1000


def test_the_page_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stats_db.main(["--help"])
    options = set(re.findall(r"--[a-z-]+(?= |,)", capsys.readouterr().out)) - {"--help"}
    page = (Path(__file__).resolve().parents[2] / "docs/commands.md").read_text()
    section = page.partition("## c2c-otel-stats-db")[2].partition("\n## ")[0]
    assert len(options) == 11
    assert {option for option in options if f"`{option}`" not in section} == set()


# -- progress ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    now = iter(range(1, 100))
    monkeypatch.setattr("c2c_otel.commands.progress.time", SimpleNamespace(monotonic=lambda: float(next(now))))
    terminal = Terminal()
    with Progress(terminal) as bar:
        bar.begin(4)
        bar.step("public.a\x1b[2J\n")
        bar.step("public.b")
        bar.step("public." + "c" * 100)
        bar.clear()
        bar.step("public.d")
    pictures = terminal.getvalue().split("\r\x1b[K")
    assert pictures[1] == "[" + "." * 30 + "] 0/4 public.a?[2J?"
    assert pictures[2] == "[" + "#" * 7 + "." * 23 + "] 1/4 public.b"
    assert len(pictures[3]) == 59
    assert pictures[4] == ""
    assert pictures[5] == "[" + "#" * 22 + "." * 8 + "] 3/4 public.d"
    assert pictures[6] == ""  # nothing stays


def test_progress_is_not_drawn_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2c_otel.commands.progress.time", SimpleNamespace(monotonic=lambda: 1.0))
    terminal = Terminal()
    bar = Progress(terminal)
    bar.begin(1000)
    for _ in range(1000):
        bar.step("x")
    assert terminal.getvalue().count("\r") == 1


def test_progress_into_a_file() -> None:
    file = io.StringIO()
    with Progress(file) as bar:
        bar.begin(1)
        bar.step("x")
        bar.clear()
    assert file.getvalue() == ""
