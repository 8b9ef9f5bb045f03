"""The tokens of a SQL statement, without white space, comments and literals. Pure.

A statement is read once, from left to right, and no pattern backtracks: time is linear in its length, whatever
it holds. Strings are standard SQL's (``''`` inside), PostgreSQL's ``E''`` and dollar quotes; text in double
quotes or backticks is a name. What is never closed reaches to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Token", "tokens"]


class Token(NamedTuple):
    kind: str  # word, name (quoted), literal, marker, sign, list
    text: str  # as it is written out
    word: str  # in upper case where kind is word, else ''
    gap: bool  # white space or a comment stands before it


# An unterminated string reaches to the end.
_STRING = r"""[eE]'(?:[^'\\]++|''|\\(?:.|\Z))*+(?:'|\Z) | (?:[nNbBxX]|[uU]&)?+'(?:[^']++|'')*+(?:'|\Z)"""
_NUMBER = r"""(?:\d|\.\d)[\w.]*+(?:(?<=[eE])[+-]\d++)?+"""
_TOKEN = re.compile(
    rf"""
      (?P<space> \s++ | --[^\n]*+ )
    | (?P<comment> /\* )
    | (?P<literal> {_STRING} | {_NUMBER} )
    | (?P<dollar> \$(?:[^\W\d]\w*+)?+\$ )
    | (?P<marker> %\([^()'"\s]*+\)[a-z] | %[sbt](?!\w) | (?<![\w\])"?]):\w++ | \$\d++ | \?\d*+ )
    | (?P<name> "(?:[^"]++|"")*+" | `[^`]*+` )
    | (?P<open_name> ["`] )
    | (?P<word> [^\W\d][\w$]*+ )
    | (?P<sign> :: | %% | [^\w\s] )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SPACES = re.compile(r"\s+")
# What neither ends a parenthesis nor begins a quoted name or a comment is passed over in one step.
_DULL = re.compile(
    rf"""(?: [^()'"`$/\-eE]++ | (?<!\w)(?:{_STRING}) | '(?:[^']++|'')*+(?:'|\Z) | [eE]++ )++""", re.X | re.S
)
_IN_LIST = re.compile(r"\s*+\((?=(?:\s*+(SELECT|WITH)\b)?)", re.IGNORECASE)
_NEXT_ROW = re.compile(r"\s*+,\s*+\(")
_NEXT_ITEMS = re.compile(rf"""(?: \s*+,\s*+[+-]?+(?: {_STRING} | {_NUMBER} ) )++""", re.X | re.S)


def _after(text: str, token: re.Match[str]) -> int:
    """The position after a token of which the pattern may have matched only the beginning."""
    position = token.end()
    match token.lastgroup:
        case "comment":  # they nest, as in PostgreSQL
            depth = 1
            for edge in _COMMENT_EDGE.finditer(text, position):
                depth += 1 if edge[0] == "/*" else -1
                if not depth:
                    return edge.end()
            return len(text)
        case "dollar":
            end = text.find(token[0], position)
            return len(text) if end < 0 else end + len(token[0])
        case "open_name":
            return len(text)
    return position


def _after_parenthesis(text: str, position: int) -> int:
    """The position after the parenthesis whose inside begins at ``position``, or the end."""
    depth, size = 1, len(text)
    while position < size:
        if dull := _DULL.match(text, position):
            position = dull.end()
            continue
        token = _TOKEN.match(text, position)
        assert token is not None
        position = _after(text, token)
        if token.lastgroup == "sign":
            depth += {"(": 1, ")": -1}.get(token[0], 0)
            if not depth:
                return position
    return size


def _token(match: re.Match[str], gap: bool, after_dot: bool) -> Token:
    text = match[0]
    match match.lastgroup:
        case "word":  # after a dot it is a column's name, whatever it is
            return Token("word", text, "" if after_dot else text.upper(), gap)
        case "sign" | "marker" as kind:
            return Token(kind, text, "", gap)
        case "name":
            return Token("name", _SPACES.sub(" ", text), "", gap)
    return Token("literal", "?", "", gap)


def tokens(text: str, *, subqueries: bool) -> Iterator[Token]:
    """The tokens that are written out. Lists of values are cut short: ``IN (…)`` (where it is a subquery, only
    if not ``subqueries``), the rows after the first of ``VALUES``, and what follows a literal in brackets."""
    position, size, depth = 0, len(text), 0
    rows_at = -1  # the depth of the VALUES whose rows are being read
    bracket = gap = False
    shown = ""
    while position < size:
        match = _TOKEN.match(text, position)
        assert match is not None  # every character belongs to one of the groups
        position = _after(text, match)
        if match.lastgroup in ("space", "comment"):
            gap = True
            continue
        token = _token(match, gap, shown == ".")
        kind, shown, word, gap = token
        yield token
        gap = False
        if shown == "(":
            depth += 1
        elif shown == ")":
            depth = max(0, depth - 1)
            while depth == rows_at and (row := _NEXT_ROW.match(text, position)):
                position = _after_parenthesis(text, row.end())
        elif word == "VALUES":
            rows_at = depth
        elif word and depth <= rows_at:
            rows_at = -1
        elif bracket and kind == "literal" and (items := _NEXT_ITEMS.match(text, position)):
            position = items.end()
        if word == "IN" and (opening := _IN_LIST.match(text, position)) and not (subqueries and opening[1]):
            position = _after_parenthesis(text, opening.end())
            yield Token("list", "(?)", "", True)
        bracket = shown == "[" or (bracket and shown in "+-")
