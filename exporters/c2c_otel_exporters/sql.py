"""A SQL statement -> its simplified text, its operation and summary, and its text without data. Remembered.

The simplified text is the name of a statsd timer and a key of stats.json: few distinct values, no data. White
space becomes one space and comments none; ``SELECT … FROM`` -> ``SELECT FROM``; ``INSERT INTO t (…`` ->
``INSERT INTO t``; ``SET … WHERE`` -> ``SET WHERE``; ``IN (…)`` -> ``IN (?)``; literals and bind markers -> ``?``.
Each is looked for inside its own parentheses, so that subqueries and ``WITH`` keep their shape.

>>> simplify("SELECT id, name FROM hello WHERE id IN (1, 2) AND name = 'me' LIMIT %(n)s")
'SELECT FROM hello WHERE id IN (?) AND name = ? LIMIT ?'
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .sql_tokens import Token, tokens

__all__ = ["MAX_QUERY", "MAX_SUMMARY", "MAX_TEXT", "Statement", "describe", "simplify"]

MAX_QUERY = 1000
"""Characters of a simplified statement; as a tag it still fits into one statsd line."""
MAX_TEXT = 4000
"""Characters of `Statement.text`."""
MAX_SUMMARY = 255
"""Characters of a summary, by OpenTelemetry's convention for ``db.query.summary``."""

_NAMED = re.compile(
    r"""\A(\s*(?: SAVEPOINT | RELEASE(?:\s+SAVEPOINT)? | ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO(?:\s+SAVEPOINT)?
        | DECLARE | CLOSE | (?:FETCH|MOVE)(?:\s+[\w-]+){0,2}\s+(?:FROM|IN) ))\s+(?!SAVEPOINT\b)(?:"[^"]*"|\w+)""",
    re.IGNORECASE | re.VERBOSE,
)
_CAST = (
    re.compile(  # what SQLAlchemy adds for psycopg 3 and asyncpg: a statement has one name whichever driver sends it
        r"\?::\w+(?: (?:WITH(?:OUT)? TIME ZONE|PRECISION|VARYING)\b)?(?:\([^)]*\))?(?:\[\])*", re.IGNORECASE
    )
)
_MAX_READ = 1_000_000  # the rest of a longer statement is left out
_MAX_READ_TEXT = 10_000  # enough for MAX_TEXT, and for the tables in the summary
_MAX_OPERATION = 20
_MAX_REMEMBERED = 1000
_MAX_REMEMBERED_LENGTH = 10_000


class Statement(NamedTuple):
    """What is known of a statement: ``query`` is simplified; ``operation`` is ``SELECT``; ``summary`` has the
    operations and their tables (``INSERT a SELECT b``); ``text`` is complete but for literals and comments, and
    keeps bind markers as they are."""

    query: str
    operation: str
    summary: str
    text: str


_remembered: dict[str, Statement] = {}


def describe(statement: str) -> Statement:
    """What is known of a statement. Never raises; the last thousand that are not very long are remembered."""
    known = _remembered.get(statement)
    if known is None:
        known = _describe(_unnamed(statement))
        if len(statement) <= _MAX_REMEMBERED_LENGTH:
            _remember(statement, known)
    return known


def _unnamed(statement: str) -> str:
    """Savepoints and cursors are numbered by those who make them: their names are data too."""
    return _NAMED.sub(r"\1 ?", statement, count=1)


def _remember(statement: str, known: Statement) -> None:
    # No lock, which a fork could inherit closed: each step on a dict is atomic, and losing an entry is harmless.
    while len(_remembered) >= _MAX_REMEMBERED:
        try:
            _remembered.pop(next(iter(_remembered)), None)
        except (RuntimeError, StopIteration):  # another thread was faster
            break
    _remembered[statement] = known


def _describe(statement: str) -> Statement:
    beginning = statement[:_MAX_READ_TEXT]
    reader = _SummaryReader()
    text: list[str] = []
    for token in tokens(beginning, subqueries=True):
        reader.read(token)
        text.append(f" {token.text}" if token.gap and text else token.text)
    return Statement(
        query=simplify(statement),
        operation=reader.operation,
        summary=reader.summary(),
        text="".join(text)[:MAX_TEXT].strip(),
    )


class _Frame:
    """What is open inside one pair of parentheses. ``select`` and ``set``: how much of the output ends with the
    word that waits for its FROM or WHERE, or -1. ``into``: the next parenthesis ends what is shown of an INSERT."""

    __slots__ = ("inserts", "into", "select", "set")

    def __init__(self) -> None:
        self.select = self.set = -1
        self.inserts = self.into = False

    def waits_in(self, size: int) -> bool:
        return 0 <= self.select <= size or 0 <= self.set <= size

    def read(self, word: str, before: str, out: list[str]) -> bool:
        """Take note of a word; drop the output that it closes, and say whether it did."""
        cut = -1
        if word == "FROM" and before != "DISTINCT":
            cut, self.select = self.select, -1
        elif word == "WHERE":
            cut, self.set = self.set, -1
        elif word == "SELECT":
            self.select, self.into = len(out) + 1, False
        elif word == "SET":
            self.set = len(out) + 1
        elif word in ("INSERT", "REPLACE"):
            self.inserts = True
        elif word == "INTO":
            self.into = self.inserts
        if cut >= 0:
            del out[cut:]
        return cut >= 0


def simplify(statement: str) -> str:
    """The statement without its data and its lists, at most `MAX_QUERY` characters; see above. Never raises."""
    statement = _unnamed(statement)
    out: list[str] = []
    frames = [_Frame()]
    hidden = 0  # as long as there are more frames than this, nothing is shown; 0: everything is
    before = ""
    for kind, text, word, gap in tokens(statement[:_MAX_READ], subqueries=False):
        if text == "(":
            if frames[-1].into and not hidden:
                hidden = len(frames) - 1
                if not hidden:
                    break
            frames.append(_Frame())
        elif text == ")" and len(frames) > 1:
            frames.pop()
            if len(frames) == hidden:
                hidden = 0
        if hidden:
            continue
        cut = frames[-1].read(word, before, out)
        if text == ";":
            frames[-1] = _Frame()
        shown = "?" if kind == "marker" else text
        out.append(f" {shown}" if out and (gap or cut) else shown)
        before = word
        if len(out) % MAX_QUERY == 0 and not any(frame.waits_in(MAX_QUERY) for frame in frames):
            break
    return _CAST.sub("?", "".join(out)[:MAX_QUERY]).strip()


_OPERATIONS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})
_NOT_AFTER = frozenset({"FOR", "ON", "DO", "KEY", "OR", "BEFORE", "AFTER"})  # FOR UPDATE, ON DELETE, DO UPDATE
_BEFORE_TABLE = frozenset({"INTO", "JOIN", "TABLE", "UPDATE"})
_BETWEEN = frozenset({"IF", "NOT", "EXISTS", "ONLY", "LATERAL", "TABLE"})
_AFTER_TABLES = frozenset({"WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "UNION", "SET", "VALUES", "RETURNING"})


class _Level:
    """What a summary needs to know of one pair of parentheses."""

    __slots__ = ("lists", "reads")

    def __init__(self) -> None:
        self.reads = False  # a FROM names tables
        self.lists = False  # a comma stands before one more of them


class _SummaryReader:
    """Collects operations, each followed by its tables, from the tokens of a statement."""

    def __init__(self) -> None:
        self.operation = ""
        self._found: list[str] = []
        self._levels = [_Level()]
        self._expected = False  # a table comes next
        self._naming = False  # the last token belongs to a table's name
        self._before = ""

    def summary(self) -> str:
        """Cut between words, as the convention wants it."""
        size = -1
        for count, word in enumerate(self._found):
            size += 1 + len(word)
            if size > MAX_SUMMARY:
                return " ".join(self._found[:count])
        return " ".join(self._found)

    def read(self, token: Token) -> None:
        kind, text, word, _ = token
        if self._naming and (text == "." or self._found[-1].endswith(".")) and kind != "literal":
            self._found[-1] += text
        elif self._expected and kind in ("word", "name") and word not in _OPERATIONS | _BETWEEN:
            self._found.append(text)
            self._expected, self._naming = False, True
        else:
            self._naming = False
            if word:
                self._read_word(word)
            else:
                self._read_sign(text)
        self._before = word

    def _read_sign(self, text: str) -> None:
        if text == "(":
            self._levels.append(_Level())
            self._expected = False
        elif text == ")" and len(self._levels) > 1:
            self._levels.pop()
        elif text == ",":
            self._expected = self._levels[-1].lists
        elif text == ";":
            self._levels[-1] = _Level()

    def _read_word(self, word: str) -> None:
        level = self._levels[-1]
        is_operation = word in _OPERATIONS and self._before not in _NOT_AFTER
        if is_operation or (not self.operation and word != "WITH"):
            self._found.append(word[:_MAX_OPERATION])
            level.lists = False
            level.reads = level.reads or word in ("SELECT", "DELETE")
        if not self.operation or (self.operation == "WITH" and is_operation and len(self._levels) == 1):
            self.operation = word[:_MAX_OPERATION]
        if word == "FROM" and level.reads and self._before != "DISTINCT":
            self._expected = level.lists = True
            level.reads = False
        elif word in _AFTER_TABLES:
            self._expected = level.lists = False
        elif word not in _BETWEEN or word == "TABLE":
            self._expected = word in _BEFORE_TABLE and self._before not in _NOT_AFTER
