"""One run over the tables of a database: what can be measured is sent, what cannot is counted and said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from c2c_otel.statistics_targets import Target
from c2c_otel.table_statistics import MeasureError, Reader, Table, UnreachableError, Value

__all__ = ["Run"]

_ALWAYS = "public"

_logger = logging.getLogger(__name__)


class _Progress(Protocol):
    def begin(self, total: int) -> None: ...

    def step(self, what: str) -> None: ...

    def clear(self) -> None: ...


class Run:
    """`measure`, then `commit`. ``failures``: what could not be measured, or did not arrive."""

    def __init__(self, reader: Reader, targets: Sequence[Target], progress: _Progress) -> None:
        self._reader = reader
        self._targets = targets
        self._progress = progress
        self._found = False
        self.tables = self.values = self.failures = 0

    def measure(self, schemas: Sequence[str], extras: Sequence[str]) -> None:
        """``public`` is always measured; that it is not there is no failure, that another one is not there is one."""
        try:
            tables, missing = self._reader.tables([_ALWAYS, *schemas])
            self._found = True
            for schema in sorted(missing & set(schemas)):
                self._failed((schema,), f"schema {schema}", "there is none of that name")
            self._progress.begin(len(tables) + len(extras))
            for table in tables:
                self._progress.step(".".join(table.path))
                self._table(table)
            for position, statement in enumerate(extras, 1):
                self._progress.step(statement)
                self._extra(position, statement)
        except UnreachableError as error:
            self._failed(("connection",), "the database", error)
        except MeasureError as error:
            self._failed(("tables",), "the list of tables", error)

    def _table(self, table: Table) -> None:
        """Each question for itself: who may not count the rows may still see the size."""
        self.tables += 1
        questions = {"rows": self._reader.count, "size": self._reader.size, "indexes": self._reader.indexes}
        for what, ask in questions.items():
            try:
                self._add(ask(table))
            except UnreachableError:
                raise
            except MeasureError as error:
                if self._is_gone(table):
                    _logger.info("%s has been dropped meanwhile", ".".join(table.path))
                    return
                self._failed(table.path, f"{what} of {'.'.join(table.path)}", error)

    def _is_gone(self, table: Table) -> bool:
        try:
            return not self._reader.exists(table)
        except UnreachableError:
            raise
        except MeasureError:
            return False

    def _extra(self, position: int, statement: str) -> None:
        try:
            self._add(self._reader.query(statement))
        except UnreachableError:
            raise
        except MeasureError as error:
            self._failed(("extra", str(position)), f"--extra {statement}", error)

    def _add(self, values: Sequence[Value]) -> None:
        for value in values:
            self.values += 1
            _logger.debug("%s.%s -> %s", value.kind, ".".join(value.path), value.value)
            for target in self._targets:
                target.add(value)

    def _failed(self, path: Sequence[str], what: str, why: object) -> None:
        self.failures += 1
        self._progress.clear()
        _logger.error("%s: %s", what, why)
        for target in self._targets:
            target.failed(path)

    def commit(self) -> None:
        """Send; one target that is away does not keep the others from it."""
        self._progress.clear()
        for target in self._targets:
            try:
                target.commit(self._found)
            except OSError as error:
                self.failures += 1
                _logger.error("%s", error)
        level = logging.WARNING if self.failures else logging.INFO
        _logger.log(level, "%s tables, %s values, %s failures", self.tables, self.values, self.failures)
