# ruff: noqa: N802 - libcst calls methods by the names of its nodes
"""Python files: imports, dotted uses, and names in texts. Formatting and comments stay (libcst)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import libcst as cst
from libcst import matchers
from libcst.metadata import MetadataWrapper, PositionProvider, QualifiedNameProvider, QualifiedNameSource

from c2c_otel.migration import dependencies, names
from c2c_otel.migration.change import Note, Rewritten, Unparsable

__all__ = ["rewrite"]


def rewrite(text: str, *, is_setup: bool = False) -> Rewritten:
    """Raises `Unparsable`. ``is_setup``: the file is a setup.py, whose texts may be requirements."""
    if names.OLD not in text and not names.may_be_gone(text):
        return Rewritten(text)
    try:
        module = cst.parse_module(text)
        changed = MetadataWrapper(module).visit(_Rename(is_setup)).code if names.OLD in text else text
        found = _Look()
        MetadataWrapper(cst.parse_module(changed)).visit(found)
    except cst.ParserSyntaxError as error:
        raise Unparsable(f"line {error.raw_line}: {error.message}") from None
    return Rewritten(changed, tuple(sorted(set(found.notes))))


def _dotted(node: cst.CSTNode) -> str | None:
    """``a.b.c`` of a chain of attributes of a name."""
    parts: list[str] = []
    while isinstance(node, cst.Attribute):
        parts.append(node.attr.value)
        node = node.value
    if not isinstance(node, cst.Name):
        return None
    return ".".join([node.value, *reversed(parts)])


def _node(name: str) -> Any:
    """The expression of a dotted name."""
    return cst.parse_expression(name)


class _Rename(cst.CSTTransformer):
    """Everything that has another place; what is gone altogether keeps its name."""

    METADATA_DEPENDENCIES = (QualifiedNameProvider,)

    def __init__(self, is_setup: bool) -> None:
        super().__init__()
        self._is_setup = is_setup
        self._includes = 0
        self._names: set[cst.CSTNode] = set()
        self._sessions: list[cst.Call] = []

    # -- imports --

    def visit_SimpleStatementLine(self, node: cst.SimpleStatementLine) -> None:
        self._session(node)

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.Import:
        """``import c2cwsgiutils.stats``, whatever is beside it."""
        aliases = []
        for alias in updated_node.names:
            old = _dotted(alias.name) or ""
            new = names.moved(old)
            aliases.append(alias if new is None or old == new else alias.with_changes(name=_node(new)))
        return updated_node.with_changes(names=aliases)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> Any:
        """A ``from c2cwsgiutils import`` may become several; so does ``db.init``."""
        if (session := self._session(original_node)) is not None:
            target, call = session
            return cst.FlattenSentinel([updated_node, _request_method(target, call)])
        lines: list[cst.SimpleStatementLine] = []
        body: list[cst.BaseSmallStatement] = []
        for statement in updated_node.body:
            made = self._from(statement) if isinstance(statement, cst.ImportFrom) else [statement]
            if len(updated_node.body) == 1 and len(made) > 1:
                first = updated_node.with_changes(
                    body=[made[0]], trailing_whitespace=cst.TrailingWhitespace(newline=cst.Newline())
                )
                lines = [first, *(cst.SimpleStatementLine([one]) for one in made[1:])]
                lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
                return cst.FlattenSentinel(lines)
            if len(made) > 1:
                made = [
                    one.with_changes(semicolon=cst.Semicolon(cst.SimpleWhitespace(""), cst.SimpleWhitespace(" ")))
                    for one in made[:-1]
                ] + [made[-1].with_changes(semicolon=statement.semicolon)]
            body.extend(made)
        return updated_node.with_changes(body=body)

    def _session(self, node: cst.SimpleStatementLine) -> tuple[str, cst.Call] | None:
        """Of ``session = c2cwsgiutils.db.init(config, ...)``: the name on its left, and the call."""
        if len(node.body) != 1 or not matchers.matches(node.body[0], _ASSIGNED_CALL):
            return None
        assigned: Any = node.body[0]
        call: Any = assigned.value
        if not self._is_db_init(call) or not matchers.matches(call.args[0], matchers.Arg(matchers.Name())):
            return None
        self._sessions.append(call)
        return assigned.targets[0].target.value, call

    def _is_db_init(self, node: cst.Call) -> bool:
        found: Any = self.get_metadata(QualifiedNameProvider, node.func, ())
        return isinstance(node.func, cst.Attribute) and any(
            name.name == f"{names.OLD}.db.init" and name.source is QualifiedNameSource.IMPORT for name in found
        )

    def _from(self, node: cst.ImportFrom) -> Sequence[Any]:
        """One statement for each module that the names are now in."""
        module = _dotted(node.module) if node.module is not None and not node.relative else None
        if module is None or module.split(".")[0] != names.OLD:
            return [node]
        if isinstance(node.names, cst.ImportStar):
            new = names.moved(module)
            return [node if new is None else node.with_changes(module=_node(new))]
        places: dict[str, list[cst.ImportAlias]] = {}
        for alias in node.names:
            name = _dotted(alias.name) or ""
            new = names.moved(f"{module}.{name}")
            if new is None:
                places.setdefault(module, []).append(alias)
                continue
            parent, _, last = new.rpartition(".")
            places.setdefault(parent or new, []).append(_renamed(alias, name, last, bool(parent)))
        if len(places) == 1:
            (place,) = places
            return [node.with_changes(module=_node(place), names=places[place])]
        made = []
        for place, aliases in places.items():
            last_one = aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            plain = [
                alias.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
                for alias in aliases[:-1]
            ]
            made.append(cst.ImportFrom(_node(place), [*plain, last_one]))
        return made

    # -- uses --

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        return (_dotted(node) or "").split(".")[0] != names.OLD

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        """``c2cwsgiutils.stats.timer`` after ``import c2cwsgiutils.stats``."""
        old = _dotted(original_node)
        if old is None or old.split(".")[0] != names.OLD or not self._is_imported(original_node):
            return updated_node
        if self._includes and old in names.PARTS and old.removesuffix(".includeme") != f"{names.OLD}.pyramid":
            return cst.SimpleString(f'"{names.NEW}"')
        new = names.moved(old)
        return updated_node if new is None else self._like(original_node, old, new)

    def _like(self, node: cst.Attribute, old: str, new: str) -> Any:
        """Only the front part is exchanged, so that a chain over several lines keeps its shape."""
        tail: list[cst.Attribute] = []
        head: cst.BaseExpression = node
        while (
            isinstance(head, cst.Attribute)
            and "." in new
            and old.rpartition(".")[2] == new.rpartition(".")[2]
            and "." in old
        ):
            tail.append(head)
            old, new = old.rpartition(".")[0], new.rpartition(".")[0]
            head = head.value
        made: Any = _node(new)
        for attribute in reversed(tail):
            made = attribute.with_changes(value=made)
        return made.with_changes(lpar=node.lpar, rpar=node.rpar) if node.lpar else made

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        """The package itself, such as in ``vars(c2cwsgiutils)``."""
        if original_node.value == names.OLD and self._is_imported(original_node):
            return updated_node.with_changes(value=names.NEW)
        return updated_node

    def _is_imported(self, node: cst.CSTNode) -> bool:
        found = self.get_metadata(QualifiedNameProvider, node, ())
        return any(name.source is QualifiedNameSource.IMPORT and name.name.split(".")[0] == names.OLD for name in found)

    # -- texts --

    def visit_Call(self, node: cst.Call) -> None:
        self._includes += _is_include(node)
        if node.args and matchers.matches(node, _NAMES_A_PACKAGE):
            self._names.add(node.args[0].value)

    def visit_DictElement(self, node: cst.DictElement) -> None:
        """``"loggers": {"c2cwsgiutils": {...}}``."""
        if isinstance(node.value, cst.Dict):
            self._names.add(node.key)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        self._includes -= _is_include(original_node)
        if original_node in self._sessions:
            function = cst.ensure_type(updated_node.func, cst.Attribute).with_changes(attr=cst.Name("setup_session"))
            return cst.Subscript(
                updated_node.with_changes(func=function), [cst.SubscriptElement(cst.Index(cst.Integer("0")))]
            )
        return updated_node

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        """The name of a logger, of a class in a dictionary for `logging`, of what Pyramid includes; a command."""
        if "b" in updated_node.prefix.lower() or names.OLD not in updated_node.value:
            return updated_node
        quote = updated_node.quote
        opening = updated_node.prefix + quote
        inner = updated_node.value[len(opening) : -len(quote)]
        if inner == names.OLD and not (self._includes or self._is_setup or original_node in self._names):
            return updated_node  # a project of Compose, the name of a measurement
        new = self._text(inner)
        return updated_node if new == inner else updated_node.with_changes(value=f"{opening}{new}{quote}")

    def leave_FormattedStringText(
        self, original_node: cst.FormattedStringText, updated_node: cst.FormattedStringText
    ) -> cst.FormattedStringText:
        """Only commands: of a name the other half may be computed."""
        return updated_node.with_changes(value=names.command(updated_node.value))

    def _text(self, text: str) -> str:
        if self._is_setup and dependencies.is_requirement(text):
            return dependencies.requirement(text)
        name, colon, rest = text.partition(":")
        if names.DOTTED.fullmatch(name) and (not colon or rest.isidentifier()):
            if self._includes and text in names.PARTS:
                return names.NEW
            new = names.text_moved(name)
            return text if new is None else f"{new}{colon}{rest}"
        return names.command(text)


def _renamed(alias: cst.ImportAlias, old: str, new: str, has_parent: bool) -> cst.ImportAlias:
    """The alias binds the same name as before."""
    if old == new or not has_parent:
        return alias
    asname = alias.asname or cst.AsName(cst.Name(old))
    return alias.with_changes(name=cst.Name(new), asname=None if _dotted(asname.name) == new else asname)


def _is_include(node: cst.Call) -> bool:
    return matchers.matches(node.func, matchers.Attribute(attr=matchers.Name("include")))


_LAST = matchers.Name("getLogger") | matchers.Name("import_module") | matchers.Name("__import__")
_NAMES_A_PACKAGE = matchers.Call(func=_LAST | matchers.Attribute(attr=_LAST))
"""What is called with the name of a package, or of its logger."""

_ASSIGNED_CALL = matchers.Assign(
    targets=[matchers.AssignTarget(matchers.Name())],
    value=matchers.Call(func=matchers.Attribute(), args=[matchers.AtLeastN(n=1)]),
)


def _request_method(target: str, call: cst.Call) -> cst.BaseStatement:
    """What ``db.init`` has done beside: ``request.dbsession``."""
    config = cst.ensure_type(call.args[0].value, cst.Name).value
    code = f'{config}.add_request_method(lambda request: {target}(), "dbsession", reify=True)'
    return cst.parse_statement(code)


_MENTION = re.compile(rf"(?<![\w-]){names.OLD}(?![\w-])")


class _Look(cst.CSTVisitor):
    """What is left for a person, in the rewritten text."""

    METADATA_DEPENDENCIES = (QualifiedNameProvider, PositionProvider)

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Note] = []

    def visit_Import(self, node: cst.Import) -> bool:
        self._names(node, [_dotted(alias.name) or "" for alias in node.names])
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        module = _dotted(node.module) if node.module is not None and not node.relative else None
        if module is not None and not isinstance(node.names, cst.ImportStar):
            self._names(node, [f"{module}.{_dotted(alias.name)}" for alias in node.names])
        return False

    def visit_Attribute(self, node: cst.Attribute) -> None:
        """What was imported by its module: ``stats.init_backends``; or whose import has another name now."""
        name = _dotted(node) or ""
        if name.startswith(f"{names.OLD}.") and not self.get_metadata(QualifiedNameProvider, node, ()):
            self._names(node, [name])
        else:
            self._names(node, self._imported(node))

    def visit_FormattedStringText(self, node: cst.FormattedStringText) -> None:
        if _MENTION.search(node.value):
            self.notes.append(Note(self._line(node), f"the text {node.value!r} names {names.OLD}", "Names"))

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        if "\n" not in node.value and _MENTION.search(node.value) and "b" not in node.prefix.lower():
            line = self._line(node)
            self.notes.append(Note(line, f"the text {node.value} names {names.OLD}", "Names"))

    def _imported(self, node: cst.CSTNode) -> list[str]:
        found: Any = self.get_metadata(QualifiedNameProvider, node, ())
        return [name.name for name in found if name.source is QualifiedNameSource.IMPORT]

    def _line(self, node: cst.CSTNode) -> int:
        position: Any = self.get_metadata(PositionProvider, node)
        return int(position.start.line)

    def _names(self, node: cst.CSTNode, found: Iterable[str]) -> None:
        for name in found:
            if name.split(".")[0] not in (names.OLD, names.NEW):
                continue
            gone = names.gone(name)
            if gone is not None:
                self.notes.append(Note(self._line(node), f"{name} is gone: {gone.instead}", gone.section))
