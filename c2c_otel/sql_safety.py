"""What must be known of a SELECT before PostgreSQL is asked about it: whether it is one, and what it calls.

Strict where `c2c_otel_exporters.sql_tokens` is lenient: `read` refuses what it cannot tell for sure, because
``EXPLAIN`` put before two statements would explain the first and run the second.

>>> sorted(read("SELECT f(a.b), count(*) FROM t AS a (b)").calls)
['a', 'count', 'f']
>>> read("SELECT 1; DELETE FROM t")
Traceback (most recent call last):
    ...
ValueError: there may be more than one statement
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["Reading", "literal", "read", "side_effects"]

_TOKEN = re.compile(
    r"""
      (?P<space> \s++ | --[^\n\r]*+ )
    | (?P<comment> /\* )
    | (?P<odd> [uU]&['"] )
    | (?P<escaped> [eE]'(?:[^'\\]++|''|\\.)*+' )
    | (?P<text> [nNbBxX]?+'(?:[^']++|'')*+' )
    | (?P<dollar> \$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*+)?+\$ )
    | (?P<marker> %\([^()'"\s]*+\)s | \$\d++ )
    | (?P<name> "(?:[^"]++|"")++" )
    | (?P<word> [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+ )
    | (?P<number> \d++(?:\.\d*+)?+(?:[eE][+-]?+\d++)?+ )
    | (?P<sign> [^'"\w] )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_LOCKS = frozenset({"UPDATE", "NO", "SHARE", "KEY"})
_CHANGES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_MAX_IDENTIFIER = 63  # bytes: NAMEDATALEN - 1


class _Token(NamedTuple):
    kind: str
    text: str
    word: str  # in upper case, where it is a word


class Reading(NamedTuple):
    """``calls``: every name that a parenthesis follows; types, aliases and keywords are among them. ``fields``: names
    after a dot, which may be calls, too (``row.function``). ``changes``: a data-modifying WITH, or INTO. ``locks``: FOR
    UPDATE and its kin. ``mentions``: a word is there that might mean one of the two. ``unclear``: where a string ends
    depends on a setting of the session."""

    calls: frozenset[str]
    fields: frozenset[str]
    changes: bool
    locks: bool
    mentions: bool
    unclear: bool


def read(statement: str) -> Reading:
    """Read one statement. Raises ValueError, with what a person can read, for more than one and for what is unclear."""
    found = list(_tokens(statement))
    while found and found[-1].text == ";":
        found.pop()
    if any(token.text == ";" for token in found):
        raise ValueError("there may be more than one statement")
    unclear = any(token.kind == "text" and "\\" in token.text for token in found)  # standard_conforming_strings
    if unclear and ";" in statement.rstrip("; \t\r\n"):
        raise ValueError("there may be more than one statement")
    calls: set[str] = set()
    fields: set[str] = set()
    changes = locks = mentions = False
    for before, token, after in zip([_NONE, *found], found, [*found[1:], _NONE], strict=False):
        if token.kind not in ("word", "name"):
            continue
        if after.text == "(":
            calls.update(_identifiers(token))
        elif before.text == ".":
            fields.update(_identifiers(token))
        if before.text == ".":
            continue
        locks = locks or (token.word == "FOR" and after.word in _LOCKS)
        changes = changes or token.word == "INTO"
        if token.word in _CHANGES and before.word not in ("FOR", "KEY"):
            mentions = True
            changes = changes or (before.text in ("(", ")") and after.kind in ("word", "name"))
    return Reading(frozenset(calls), frozenset(fields), changes, locks, mentions, unclear)


_NONE = _Token("", "", "")


def _tokens(text: str) -> Iterator[_Token]:
    position, size = 0, len(text)
    while position < size:
        match = _TOKEN.match(text, position)
        kind = match.lastgroup if match is not None else None
        if match is None or kind == "odd":
            raise ValueError(f"it cannot be read at character {position + 1}")
        position = _after(text, match)
        if kind not in ("space", "comment"):
            assert kind is not None  # each alternative is a group
            yield _Token(kind, match[0], match[0].upper() if kind == "word" else "")


def _after(text: str, token: re.Match[str]) -> int:
    """The position after a token of which the pattern has matched the beginning."""
    if token.lastgroup == "dollar":
        end = text.find(token[0], token.end())
        if end >= 0:
            return end + len(token[0])
    elif token.lastgroup == "comment":
        depth = 1
        for edge in _COMMENT_EDGE.finditer(text, token.end()):
            depth += 1 if edge[0] == "/*" else -1
            if not depth:
                return edge.end()
    else:
        return token.end()
    raise ValueError(f"what begins at character {token.start() + 1} has no end")


def _identifiers(token: _Token) -> Iterator[str]:
    """What the server may take the name for: it folds the case of what is not quoted, and cuts what is long."""
    if token.kind == "name":
        yield _cut(token.text[1:-1].replace('""', '"'))
        return
    folded = "".join(c.lower() if c.isascii() else c for c in token.text)
    yield _cut(folded)
    if not token.text.isascii():
        yield _cut(token.text.lower())


def _cut(name: str) -> str:
    return name.encode("utf-8", "surrogatepass")[:_MAX_IDENTIFIER].decode("utf-8", "ignore")


def literal(text: str) -> str:
    r"""A string constant of PostgreSQL that no setting and no driver's placeholder reads in another way.

    >>> literal("it's 100%")
    "E'it\\u0027s\\u0020100\\u0025'"
    """
    return "E'" + "".join(c if c.isascii() and (c.isalnum() or c == "_") else _escaped(c) for c in text) + "'"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# -- what the server knows --------------------------------------------------------------------------------------------

Query = Callable[[str], list[Any]]
"""Runs a query without parameters; gives its rows."""

_RELATIONS = """
SELECT c.oid::regclass::text, c.relkind::text,
  CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END,
  CASE WHEN c.relrowsecurity THEN (
    SELECT pg_catalog.string_agg(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ' , ')
    FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid
  ) END
FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.oid IN (
  SELECT l.relation FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
)
"""
"""What a transaction has locked by having its statement planned: every table, and every view on the way to it."""

_FUNCTIONS = """
SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
WHERE (
  p.proname IN ({calls})
  OR p.proname IN ({fields}) AND p.pronargs = 1 AND EXISTS (
    SELECT 1 FROM pg_catalog.pg_type t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p')
  )
) AND (
  p.provolatile = 'v' OR EXISTS (
    SELECT 1 FROM pg_catalog.pg_proc s WHERE s.provolatile = 'v' AND s.oid IN (
      a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
      a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn
    )
  )
) ORDER BY 1
"""
"""A name that is not in pg_proc is no function's: the server has planned the statement, so each call is known to it."""

_OPERATORS = """
SELECT 'the operator ' || o.oprname FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE p.provolatile = 'v' AND pg_catalog.strpos({text}, o.oprname) > 0
UNION ALL
SELECT 'the cast to ' || c.casttarget::regtype::text
FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc WHERE p.provolatile = 'v'
"""
"""None of those that PostgreSQL brings is volatile; where the database has a cast that is, any statement may use it."""


def side_effects(statement: str, query: Query) -> str | None:
    """Why this statement must not be run a second time, or None. ``query`` runs in the transaction in which it has been
    planned. Raises ValueError as `read`, and what ``query`` raises."""
    texts = [statement]
    for name, kind, view, policies in query(_RELATIONS):
        if kind == "f":
            return f"{name} is a foreign table"
        texts += [text for text in (view, policies) if text]
    readings = [read(text) for text in texts]
    if any(reading.locks for reading in readings):
        return "it locks rows"
    if any(reading.unclear for reading in readings):
        return "there are backslashes in its strings"
    if any(reading.changes or reading.mentions for reading in readings):
        return "it may change data"
    calls = frozenset[str]().union(*(reading.calls for reading in readings))
    fields = frozenset[str]().union(*(reading.fields for reading in readings))
    volatile = [f"{row[0]}()" for row in query(_FUNCTIONS.format(calls=_list(calls), fields=_list(fields)))]
    if not volatile:
        volatile = [str(row[0]) for row in query(_OPERATORS.format(text=literal(_signs(texts))))]
    return f"volatile: {', '.join(volatile[:5])}" if volatile else None


def _list(names: Iterable[str]) -> str:
    return ", ".join(literal(name) for name in sorted(names)) or "NULL"


def _signs(texts: Iterable[str]) -> str:
    """The characters of which operators are made."""
    return " ".join(re.sub(r"[^-+*/<>=~!@#%^&|`?]+", " ", text) for text in texts)
