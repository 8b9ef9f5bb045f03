"""Simplified statements: the contract's examples, no data in them, and no text that breaks or delays them."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel_exporters import sql
from c2c_otel_exporters.sql import MAX_QUERY, MAX_SUMMARY, MAX_TEXT, describe, simplify

CONTRACT = [
    # The predecessor left "c=2" alone; here a literal is "?".
    ("SELECT a, b FROM xxx WHERE b IN (1, 2, 3) AND c=2", "SELECT FROM xxx WHERE b IN (?) AND c=?"),
    ("SELECT hello.id AS hello_id \nFROM hello \n LIMIT %(param_1)s", "SELECT FROM hello LIMIT ?"),
    ("INSERT INTO hello (value) VALUES (%(value)s) RETURNING hello.id", "INSERT INTO hello"),
    (
        "UPDATE hello SET value=%(value)s, x=1 WHERE hello.id = %(hello_id)s",
        "UPDATE hello SET WHERE hello.id = ?",
    ),
    (
        "SELECT a FROM xxx WHERE b IN (1, ')', 2) AND d IN ((1, 'x'), (2, 'it''s'))",
        "SELECT FROM xxx WHERE b IN (?) AND d IN (?)",
    ),
    ("DELETE FROM hello WHERE id = 42 AND name = 'secret'", "DELETE FROM hello WHERE id = ? AND name = ?"),
    ("WITH q AS (SELECT 1) SELECT * FROM q", "WITH q AS (SELECT ?) SELECT FROM q"),
]


@pytest.mark.parametrize(("statement", "simplified"), CONTRACT)
def test_the_examples_of_the_contract(statement: str, simplified: str) -> None:
    assert simplify(statement) == simplified


@pytest.mark.parametrize(
    ("statement", "simplified"),
    [
        ("", ""),
        ("  \n COMMIT \t", "COMMIT"),
        ("select a, b\nfrom x where c in (1,2) limit 3", "select from x where c IN (?) limit ?".replace("IN", "in")),
        # subqueries keep their shape
        ("SELECT (SELECT max(a) FROM b), c FROM d", "SELECT FROM d"),
        ("SELECT a FROM (SELECT b FROM c WHERE d = 1) e", "SELECT FROM (SELECT FROM c WHERE d = ?) e"),
        ("SELECT EXTRACT(year FROM a) FROM b", "SELECT FROM b"),
        ("SELECT a IS DISTINCT FROM b FROM c", "SELECT FROM c"),
        ("SELECT a FROM b WHERE c IN (SELECT d FROM e WHERE f = 1)", "SELECT FROM b WHERE c IN (?)"),
        ("SELECT a FROM b UNION SELECT c FROM d", "SELECT FROM b UNION SELECT FROM d"),
        ("UPDATE a SET b=(SELECT c FROM d WHERE e=1) WHERE f=2", "UPDATE a SET WHERE f=?"),
        ("UPDATE a SET b=1, c='x'", "UPDATE a SET b=?, c=?"),
        # inserts
        ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES"),
        ("INSERT INTO t(a) VALUES (1)", "INSERT INTO t"),
        ("INSERT INTO t DEFAULT VALUES", "INSERT INTO t DEFAULT VALUES"),
        ("INSERT INTO t SELECT a, b FROM u WHERE c IN (1)", "INSERT INTO t SELECT FROM u WHERE c IN (?)"),
        (
            "WITH n AS (INSERT INTO t (a) VALUES (1) RETURNING id) SELECT id FROM n",
            "WITH n AS (INSERT INTO t) SELECT FROM n",
        ),
        # literals
        ("SELECT a FROM b WHERE c = E'it\\'s' AND d = 'it''s'", "SELECT FROM b WHERE c = ? AND d = ?"),
        ("CALL f($$a 'b' c$$, $x$ $$ $x$, 1.5e-3, .5, 0xFF, -1)", "CALL f(?, ?, ?, ?, ?, -?)"),
        ("CALL f(N'a', b'01', X'FF', U&'d', e'\\\\')", "CALL f(?, ?, ?, ?, ?)"),
        ("DELETE FROM a WHERE b = DATE'2020-01-01' AND c = 'open", "DELETE FROM a WHERE b = DATE? AND c = ?"),
        ("DELETE FROM a WHERE b = $$open", "DELETE FROM a WHERE b = ?"),
        ('DELETE FROM a WHERE b = "open', "DELETE FROM a WHERE b = ?"),
        ("DELETE FROM a WHERE b && ARRAY[1, 2, -3, 'x']", "DELETE FROM a WHERE b && ARRAY[?]"),
        # markers
        ("CALL f(%(a)s, %s, :b, $1, ?, ?2)", "CALL f(?, ?, ?, ?, ?, ?)"),
        ("DELETE FROM a WHERE b::int = c[1:2] AND d %% 2 = 0", "DELETE FROM a WHERE b::int = c[?:?] AND d %% ? = ?"),
        # names with digits
        (
            'DELETE FROM table1 WHERE t1.c2 = "quoted 1 id" AND x$1 = `b 2`',
            'DELETE FROM table1 WHERE t1.c2 = "quoted 1 id" AND x$1 = `b 2`',
        ),
        # a keyword that is a column
        ("DELETE FROM a WHERE a.set = 1 AND a.from = 2 AND a.in = (3)", None),
        # comments
        ("/* a /* b */ 'c */ SELECT a -- FROM z\n FROM b/*c*/WHERE d=1 --", "SELECT FROM b WHERE d=?"),
        ("DELETE FROM a /* open 'secret'", "DELETE FROM a"),
        ("SELECT a; SELECT b FROM c", "SELECT a; SELECT FROM c"),
    ],
)
def test_other_statements(statement: str, simplified: str | None) -> None:
    if simplified is None:
        simplified = re.sub(r"\d", "?", statement)
    assert simplify(statement) == simplified


def test_the_number_of_rows_and_values_does_not_show() -> None:
    def insert(rows: int) -> str:
        return "INSERT INTO t (a, b) VALUES " + ", ".join(f"(%(a__{i})s, '{i}')" for i in range(rows))

    def update(rows: int) -> str:
        values = ", ".join(f"({i}, f('x{i}'), (%s))" for i in range(rows))
        return f"UPDATE t SET a = v.a FROM (VALUES {values}) AS v (id, a) WHERE t.id = v.id"

    def rows_of(rows: int) -> str:
        return "SELECT a FROM (VALUES " + ",".join(f"({i}, ')')" for i in range(rows)) + ") v WHERE v.b = 3"

    assert simplify(insert(5000)) == simplify(insert(1)) == "INSERT INTO t"
    assert simplify(update(5000)) == simplify(update(1)) == "UPDATE t SET WHERE t.id = v.id"
    assert simplify(rows_of(5000)) == simplify(rows_of(1)) == "SELECT FROM (VALUES (?, ?)) v WHERE v.b = ?"
    assert describe(rows_of(100)).text == "SELECT a FROM (VALUES (?, ?)) v WHERE v.b = ?"


@pytest.mark.parametrize(
    ("statement", "operation", "summary"),
    [
        ("select * from hello", "SELECT", "SELECT hello"),
        ("SELECT a FROM s.t1 x, t2 JOIN \"t 3\" ON x.a = 1, t4 WHERE b = 'z'", "SELECT", 'SELECT s.t1 t2 "t 3" t4'),
        ("INSERT INTO a SELECT b FROM c", "INSERT", "INSERT a SELECT c"),
        ("UPDATE ONLY a SET b = 1", "UPDATE", "UPDATE a"),
        ("DELETE FROM a WHERE b IN (SELECT c FROM d)", "DELETE", "DELETE a SELECT d"),
        ("WITH q AS (SELECT 1 FROM p) UPDATE a SET b = 1", "UPDATE", "SELECT p UPDATE a"),
        ("SELECT a FROM b FOR UPDATE", "SELECT", "SELECT b"),
        ("SELECT EXTRACT(year FROM c) FROM b", "SELECT", "SELECT b"),
        ("(SELECT a FROM b) UNION (SELECT c FROM d)", "SELECT", "SELECT b SELECT d"),
        ("CREATE TABLE IF NOT EXISTS foo (a int)", "CREATE", "CREATE foo"),
        ("BEGIN", "BEGIN", "BEGIN"),
        ("", "", ""),
        ("'secret'", "", ""),
    ],
)
def test_operation_and_summary(statement: str, operation: str, summary: str) -> None:
    known = describe(statement)
    assert (known.operation, known.summary) == (operation, summary)


def test_a_long_summary_ends_with_a_whole_word() -> None:
    summary = describe("SELECT a FROM " + ", ".join(f"table_number_{i}" for i in range(100))).summary
    assert len(summary) <= MAX_SUMMARY
    assert re.fullmatch(r"SELECT( table_number_\d+)+", summary)
    assert describe("SELECT a FROM " + "t" * 300).summary == "SELECT"


def test_the_text_has_markers_and_no_literals() -> None:
    known = describe(
        "SELECT a -- why\n FROM b WHERE c = %(c)s AND d IN (1, 2) AND e IN (SELECT f FROM g WHERE h = 'i')"
    )
    assert known.text == "SELECT a FROM b WHERE c = %(c)s AND d IN (?) AND e IN (SELECT f FROM g WHERE h = ?)"


def test_results_are_bounded() -> None:
    statement = "DELETE FROM a WHERE " + " OR ".join(f"column_{i} = {i}" for i in range(10_000))
    known = describe(statement)
    assert len(known.query) <= MAX_QUERY
    assert len(known.text) <= MAX_TEXT
    assert known.query.startswith("DELETE FROM a WHERE column_0 = ?")


def test_statements_are_remembered_up_to_a_bound() -> None:
    sql._remembered.clear()
    assert describe("SELECT a FROM b") is describe("SELECT " + "a FROM b")
    for i in range(2 * sql._MAX_REMEMBERED):
        describe(f"SELECT a FROM b{i}")
    assert len(sql._remembered) == sql._MAX_REMEMBERED
    describe("SELECT a FROM b WHERE c = '" + "x" * sql._MAX_REMEMBERED_LENGTH + "'")
    assert max(map(len, sql._remembered)) < sql._MAX_REMEMBERED_LENGTH


def test_remembering_is_thread_safe() -> None:
    sql._remembered.clear()
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for i in range(1500):
                name = f"t{number}_{i}"
                if describe(f"SELECT a FROM {name}").summary != f"SELECT {name}":
                    wrong.append(name)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(sql._remembered) <= sql._MAX_REMEMBERED + 4


EVIL = [
    "(SELECT ",
    "'",
    "E'\\",
    "$a$ $b$ ",
    "%(",
    "/*",
    "SELECT 1,",
    "(",
    ")",
    "(INSERT INTO t ",
    " SET a",
    "[1,E'a\\' ",
    '"',
    "`",
    "- ",
    " IN (",
    "VALUES (1),(",
    "e",
    ":",
    ":a",
    "$",
    "?",
    "1e",
    ", 'a'",
    "[1,'a",
]


@pytest.mark.timeout(60)  # quadratic time would be hours
@pytest.mark.parametrize("piece", EVIL)
def test_a_megabyte_of_anything_is_read_once(piece: str) -> None:
    known = describe(piece * (1_000_000 // len(piece)))
    assert len(known.query) <= MAX_QUERY


# A statement that is made of known tokens: what is data in it starts with SECRET or 987.
SECRETS = st.sampled_from(
    [
        "'SECRET'",
        "'SECRET '' SECRET'",
        "'SECRET -- '",
        "'/* SECRET'",
        "'(SECRET'",
        "E'SECRET \\' SECRET'",
        "$$SECRET$$",
        "$q$SECRET $$ ' SECRET$q$",
        "N'SECRET'",
        "987",
        "987.987",
        ".987e-987",
        "0x987",
        "/* SECRET */",
        "/* SECRET /* ' */ SECRET */",
        "-- SECRET '\n",
    ]
)
WORDS = st.sampled_from(
    [
        "SELECT",
        "FROM",
        "INSERT INTO t",
        "UPDATE t",
        "SET",
        "WHERE",
        "IN",
        "VALUES",
        "WITH q AS",
        "(",
        ")",
        "[",
        "]",
        ",",
        "=",
        ".",
        "-",
        ";",
        "a1",
        "ne",
        '"x 1"',
        "%(p1)s",
        "%s",
        "::",
        ":p",
        "$1",
        "*",
    ]
)


@given(st.lists(SECRETS | WORDS, max_size=40))
def test_no_literal_survives(pieces: list[str]) -> None:
    known = describe(" ".join(pieces))
    for text in known:
        assert "SECRET" not in text
        assert "987" not in text


@given(st.lists(WORDS, max_size=40))
def test_what_is_simplified_is_simple(pieces: list[str]) -> None:
    once = simplify(" ".join(pieces))
    assert simplify(once) == once


@given(st.text() | st.text(alphabet="'\"`$()[]/*-?%:sEe1aIN \\\n", max_size=200))
def test_any_text_is_accepted(text: str) -> None:
    known = describe(text)
    assert "\n" not in known.query
    assert len(known.query) <= MAX_QUERY
    assert known.operation == known.operation.upper()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SAVEPOINT sa_savepoint_12", "SAVEPOINT ?"),
        ("RELEASE SAVEPOINT sa_savepoint_1", "RELEASE SAVEPOINT ?"),
        ("RELEASE sa_savepoint_1", "RELEASE ?"),
        ("ROLLBACK TO SAVEPOINT sa_savepoint_1", "ROLLBACK TO SAVEPOINT ?"),
        ("rollback to sp1", "rollback to ?"),
        ('DECLARE "c_7f_1" CURSOR WITHOUT HOLD FOR SELECT a FROM t', "DECLARE ? CURSOR WITHOUT HOLD FOR SELECT FROM t"),
        ('FETCH FORWARD 5 FROM "c_7f_1"', "FETCH FORWARD ? FROM ?"),
        ('CLOSE "c_7f_1"', "CLOSE ?"),
        ("ROLLBACK", "ROLLBACK"),
        ("CLOSE", "CLOSE"),
    ],
)
def test_numbered_savepoints_and_cursors_are_data(statement: str, expected: str) -> None:
    assert sql.simplify(statement) == expected
    assert sql.describe(statement).query == expected
    assert not re.search(r"_\d", sql.describe(statement).text)


@pytest.mark.parametrize(
    "cast",
    [
        "INTEGER",
        "VARCHAR",
        "VARCHAR(20)",
        "NUMERIC(10, 2)",
        "TIMESTAMP WITHOUT TIME ZONE",
        "DOUBLE PRECISION",
        "INTEGER[]",
    ],
)
def test_a_driver_that_casts_its_markers_gives_the_same_name(cast: str) -> None:
    statement = "SELECT a FROM t WHERE x = %(x)s{} LIMIT %(n)s{}"
    expected = simplify(statement.format("", ""))
    assert expected == "SELECT FROM t WHERE x = ? LIMIT ?"
    assert simplify(statement.format(f"::{cast}", f"::{cast}")) == expected
