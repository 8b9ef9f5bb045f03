"""The classes of an SQLAlchemy model as a graph, in the language of Graphviz: for ``dot``, and for Doxygen's
``\\dotfile``.

    c2c-otel-models-graph myapp.models | dot -Tsvg > models.svg

A box for each mapped class: its name, the columns of its own (``[null]`` where they may be null), its relations
(``name -> Class``). An arrow with an empty head goes from a class to the one it inherits from, a dashed one along a
relation. Classes are in alphabetical order, so that the text can be kept and compared.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty

__all__ = ["ModelError", "generate_model_graph", "model_graph"]

_BASE = "Base"


class ModelError(ValueError):
    """A module that has no such base, or classes that SQLAlchemy cannot configure."""


def generate_model_graph(module: ModuleType) -> None:
    """Print the graph of the classes derived from ``Base``, or from what the first argument of the program names.

    For a script of the application's: more arguments end it with its usage and exit code 1, as does what
    `model_graph` raises.
    """
    program, *arguments = sys.argv or ["models_graph"]
    if len(arguments) > 1:
        sys.exit(f"usage: {program} [BASE]")
    try:
        text = model_graph(module, *arguments)
    except ModelError as error:
        sys.exit(f"{program}: {error}")
    sys.stdout.write(text)


def model_graph(module: ModuleType, base: str | None = None) -> str:
    """A ``digraph`` of all mapped classes derived from ``module``'s ``base``, in whichever module they are, and of
    that itself where it is one.

    Without a ``base`` it is ``Base``, or else the only declarative base that the module knows. Raises `ModelError`.
    """
    import sqlalchemy.exc

    ancestor = _ancestor(module, base)
    registry = ancestor.registry
    try:
        registry.configure()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ModelError(f"{module.__name__} cannot be configured: {error}") from error
    mappers = [mapper for mapper in registry.mappers if issubclass(mapper.class_, ancestor)]
    return _Graph(mappers).text()


def _ancestor(module: ModuleType, name: str | None) -> Any:  # a declarative class: it has a registry
    found = getattr(module, name or _BASE, None)
    if isinstance(found, type) and hasattr(found, "registry"):
        return found
    bases = _declarative_bases(module)
    if name is None and len(bases) == 1:
        return bases.popitem()[1]
    known = f"it has {', '.join(sorted(bases))}" if bases else "it has none"
    raise ModelError(f"{module.__name__} has no declarative class {name or _BASE}; expected a base of models, {known}")


def _declarative_bases(module: ModuleType) -> dict[str, Any]:
    """Those from which mapped classes are derived, and which are derived from no other; each by one name."""
    found: dict[Any, str] = {
        value: name
        for name, value in vars(module).items()
        if isinstance(value, type) and hasattr(value, "registry") and "__mapper__" not in vars(value)
    }
    return {
        name: value
        for value, name in found.items()
        if any(issubclass(mapper.class_, value) for mapper in value.registry.mappers)
        and not any(other is not value and issubclass(value, other) for other in found)
    }


class _Graph:
    def __init__(self, mappers: Iterable[Mapper[Any]]) -> None:
        self._mappers = {mapper.class_: mapper for mapper in sorted(mappers, key=_sort_key)}
        count = Counter(class_.__name__ for class_ in self._mappers)
        self._names = {
            class_: class_.__name__ if count[class_.__name__] == 1 else f"{class_.__module__}.{class_.__qualname__}"
            for class_ in self._mappers
        }

    def text(self) -> str:
        lines = ["digraph {", "  rankdir=BT;", "  node [shape=box];"]
        for class_, mapper in self._mappers.items():
            lines.append(f"  {_quoted(self._names[class_])} [label={self._label(mapper)}];")
        for class_, mapper in self._mappers.items():
            lines += self._edges(class_, mapper)
        return "\n".join([*lines, "}", ""])

    def _label(self, mapper: Mapper[Any]) -> str:
        title = _escaped(self._names[mapper.class_])
        rows = [*_columns(mapper), *(self._relation(relation) for relation in _relations(mapper))]
        return f'"{title}\\n\\n' + "".join(f"{_escaped(row)}\\l" for row in rows) + '"'

    def _relation(self, relation: RelationshipProperty[Any]) -> str:
        target = relation.mapper.class_
        return f"{relation.key} -> {self._names.get(target, target.__name__)}{'[]' if relation.uselist else ''}"

    def _edges(self, class_: type, mapper: Mapper[Any]) -> Iterator[str]:
        name = _quoted(self._names[class_])
        for parent in self._parents(class_):
            yield f"  {name} -> {_quoted(self._names[parent])} [arrowhead=empty];"
        for relation in _relations(mapper):
            target = relation.mapper.class_
            if target in self._names:
                label = _quoted(relation.key)
                yield f"  {name} -> {_quoted(self._names[target])} [style=dashed, arrowhead=vee, label={label}];"

    def _parents(self, class_: type) -> Iterator[type]:
        """The nearest mapped ancestors: past mixins and abstract classes."""
        seen = set()
        for base in class_.__bases__:
            for parent in (base,) if base in self._mappers else self._parents(base):
                if parent not in seen:
                    seen.add(parent)
                    yield parent


def _sort_key(mapper: Mapper[Any]) -> tuple[str, str]:
    return mapper.class_.__qualname__, mapper.class_.__module__


def _columns(mapper: Mapper[Any]) -> Iterator[str]:
    """Attributes of the class's own that are columns, in the order of the class, by the names of the attributes."""
    for attribute in mapper.column_attrs:
        if (column := _own_column(mapper, attribute)) is not None:
            yield attribute.key + (" [null]" if getattr(column, "nullable", False) else "")


def _own_column(mapper: Mapper[Any], attribute: ColumnProperty[Any]) -> Any:
    """The column that the class adds to what it inherits; None where it adds none. A joined table's key is one."""
    parent = mapper.inherits
    if parent is None or mapper.concrete:
        return attribute.columns[0]
    inherited = parent.attrs[attribute.key].columns if attribute.key in parent.attrs else ()
    return next((column for column in attribute.columns if not any(column is old for old in inherited)), None)


def _relations(mapper: Mapper[Any]) -> list[RelationshipProperty[Any]]:
    """Those that the class itself declares; what a parent has is drawn there."""
    parent = mapper.inherits
    inherited = () if parent is None or mapper.concrete else parent.relationships
    keys = {relation.key for relation in inherited}
    return [relation for relation in mapper.relationships if relation.key not in keys]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
