"""What is read in a statement before PostgreSQL is asked about it, compared with what PostgreSQL itself reads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_otel.sql_profiling import without_values
from c2c_otel.sql_safety import literal, read
from tests.servers import Postgres


@pytest.mark.parametrize(
    ("statement", "calls"),
    [
        ("SELECT f(1), g (2), h/**/(3), i--\n(4)", {"f", "g", "h", "i"}),
        ('SELECT "F"(1), "a""b" (2), s.T(3)', {"F", 'a"b', "t"}),
        ("SELECT 'f(1)', E'\\'f(1)', $$f(1)$$, $a$ $$ f(1) $a$ -- f(1)\n /* f(1) /* */ f(1) */", set()),
        ("SELECT %(f)s, %(nextval)s::int, $1, %s FROM t", set()),
        ("SELECT a$b(1), é(2), É(3)", {"a$b", "é", "É"}),
        ("SELECT 1 AS x, 5 % (f(2))", {"f"}),
        (f"SELECT {'x' * 70}(1)", {"x" * 63}),
        ("SELECT 1f(2)", {"f"}),
        ("SELECT x'1F', b'1', n'f(1)', 'f'(1)", set()),
    ],
)
def test_calls(statement: str, calls: set[str]) -> None:
    assert read(statement).calls == calls


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("SELECT 1 FROM t FOR UPDATE", "locks"),
        ("select 1 from t for/**/no key update", "locks"),
        ("SELECT 1 FROM t FOR SHARE OF t", "locks"),
        ("SELECT 1 FROM t LIMIT 1for key share", "locks"),
        ("SELECT 1 FROM t LIMIT 1.for update", "locks"),
        ("SELECT substring(a FOR 3) FROM t", ""),
        ("SELECT 'x' AS \"for\", t.for FROM t", ""),
        ("WITH q AS (DELETE FROM t RETURNING *) SELECT 1", "changes mentions"),
        ("WITH q AS MATERIALIZED(insert into t values (1) returning 1) SELECT 1", "changes mentions"),
        ("WITH q AS (UPDATE t SET a = 1 RETURNING *) SELECT 1", "changes mentions"),
        ("WITH q AS (MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE) SELECT 1", "changes mentions"),
        ("WITH q AS (WITH r AS (SELECT 1) DELETE FROM t RETURNING *) SELECT 1", "changes mentions"),
        ("SELECT 1 INTO t", "changes"),
        ('SELECT update, t.delete, "insert" FROM t', "mentions"),
        ('SELECT t.delete, "insert" FROM t', ""),
        ("SELECT 'a\\b'", "unclear"),
        ("SELECT E'a\\b', \"a\\b\"", ""),
    ],
)
def test_what_it_does(statement: str, what: str) -> None:
    reading = read(statement)
    flags = ("locks", "changes", "mentions", "unclear")
    assert {name for name in flags if getattr(reading, name)} == set(what.split())


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("SELECT 1; SELECT 2", "there may be more than one statement"),
        ("SELECT 1;;;SELECT 2", "there may be more than one statement"),
        ("SELECT '\\'; SELECT 2; --'", "there may be more than one statement"),
        ("SELECT E'\\'' ; SELECT 2", "there may be more than one statement"),
        ("SELECT E'a'\n'b\\';DROP TABLE t;--'", "there may be more than one statement"),
        ("SELECT $a$b$a$;SELECT 2", "there may be more than one statement"),
        ("SELECT /* /* */ ; */ 1; SELECT 2", "there may be more than one statement"),
        ("SELECT 'a", "it cannot be read at character 8"),
        ('SELECT "a', "it cannot be read at character 8"),
        ("SELECT U&'\\0041'", "it cannot be read at character 8"),
        ("SELECT $$a", "what begins at character 8 has no end"),
        ("SELECT /* a /* */", "what begins at character 8 has no end"),
    ],
)
def test_what_is_refused(statement: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(statement)


@pytest.mark.parametrize(
    "statement", ["SELECT 1;", "SELECT 1 ; \n;", "SELECT ';'", "SELECT $$;$$ -- ;", "SELECT E'\\';'"]
)
def test_one_statement(statement: str) -> None:
    read(statement)


_PARTS = st.sampled_from(
    [
        "'",
        "''",
        "\\",
        "E'",
        "$$",
        "$a$",
        "--",
        "\n",
        "/*",
        "*/",
        '"',
        ";",
        "f(",
        ")",
        "1",
        " ",
        "U&",
        "%",
        "é",
        "$1",
        ".",
        "x",
    ]
)


@given(st.lists(_PARTS, max_size=25).map("".join))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    try:
        read(f"SELECT {text}")
    except ValueError:
        pass


@given(st.text())
def test_long_and_odd_text_too(text: str) -> None:
    try:
        read(text * 50)
    except ValueError:
        pass


_PIECES = st.sampled_from(
    [
        *(
            "1",
            "'a'",
            "''''",
            "'\\'",
            "'\\''",
            "'a\\\\'",
            "E'\\''",
            "E'\\\\'",
            "E'''\\''",
            "$$;$$",
            "$a$;$$;$a$",
            '"x;"',
        ),
        *("n'\\'", "b'1'", "(1)", "x.y", "a$b$", "1e", "U&'a'", "f('--')", "';'", "E';'", "E'a'\n'b\\''", "'a'\n'b'"),
    ]
)
_BETWEEN = st.sampled_from(
    [", ", "; SELECT ", ";", " -- ' ; \n, ", " /* ' /* */ ; */ , ", " /* */ ; */ SELECT ", " || ", " --\n; SELECT "]
)


def test_no_second_statement_is_ever_missed(postgres: Postgres) -> None:
    """What is read as one statement is one for PostgreSQL, too: it prepares no more than one, and says so."""
    import psycopg

    seen = {"one": 0, "several": 0}
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("SET escape_string_warning = off")

        @settings(max_examples=400, deadline=None)
        @given(st.lists(st.tuples(_PIECES, _BETWEEN), max_size=5), _PIECES)
        def check(parts: list[tuple[str, str]], last: str) -> None:
            statement = "SELECT " + "".join(piece + between for piece, between in parts) + last
            try:
                read(statement)
                refused = False
            except ValueError:
                refused = True
            for setting in ("on", "off"):
                connection.execute(f"SET standard_conforming_strings = {setting}".encode())
                result = connection.pgconn.prepare(b"", statement.encode())
                several = b"multiple commands" in (result.error_message or b"")
                assert not several or refused, (setting, statement)
                seen["several" if several else "one"] += not refused or several

        check()
    assert seen["several"] > 20 < seen["one"]  # both did come


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_literal_is_what_it_was(postgres: Postgres, text: str) -> None:
    assert literal(text).isascii() and "%" not in literal(text)


def test_literals_on_the_server(postgres: Postgres) -> None:
    import psycopg

    with psycopg.connect(postgres.dsn()) as connection:
        for text in ("", "it's", 'a"b', "\\u0041", "100%s", "é€😀", "a\nb", ":x ?"):
            for setting in ("on", "off"):
                connection.execute(f"SET standard_conforming_strings = {setting}".encode())
                assert connection.execute(f"SELECT {literal(text)}".encode()).fetchone() == (text,)


# -- what goes into a span --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "shown"),
    [
        ("Seq Scan on t2  (cost=0.00..8.17 rows=1 width=36)", None),
        ("  Filter: (name = 'it''s; 5'::text)", "  Filter: (name = ?::text)"),
        ("  Index Cond: ((id = 42) AND (w > '-1.5'::numeric))", "  Index Cond: ((id = ?) AND (w > ?::numeric))"),
        ("  Rows Removed by Filter: 42", None),
        ("  Filter: (hashed SubPlan 1)", None),
        ("  Filter: (a = $0)", None),
        ("  Filter: (t1.a2 = 3)", "  Filter: (t1.a2 = ?)"),
        ("  Filter: (a = 'one\ntwo 2')", "  Filter: (a = ?)"),
        ("  Output: 7, a1", "  Output: ?, a1"),
        ("  Buffers: shared hit=3", None),
        ("Execution Time: 0.5 ms", None),
        ("  Filter: (name = 'cut in the mid", "  Filter: (name = ?"),
    ],
)
def test_without_values(plan: str, shown: str | None) -> None:
    assert without_values(plan) == (plan if shown is None else shown)
