"""What the doctor has found, one sentence each."""

from __future__ import annotations

from typing import NamedTuple

from c2c_otel.settings import ConfigurationError

__all__ = ["NOTE", "OK", "PROBLEM", "Finding", "note", "ok", "problem", "unusable"]

OK, NOTE, PROBLEM = "ok", "note", "problem"


class Finding(NamedTuple):
    """``level``: `OK`, `NOTE` (worth knowing) or `PROBLEM` (something is wrong). ``subject`` is one word, for programs;
    ``remedy`` is what to do, empty where there is nothing to be done."""

    level: str
    subject: str
    message: str
    remedy: str = ""


def ok(subject: str, message: str) -> Finding:
    """It was looked at, and is well."""
    return Finding(OK, subject, message)


def note(subject: str, message: str, remedy: str = "") -> Finding:
    """It may be as it is meant to be."""
    return Finding(NOTE, subject, message, remedy)


def problem(subject: str, message: str, remedy: str) -> Finding:
    """It is wrong."""
    return Finding(PROBLEM, subject, message, remedy)


def unusable(subject: str, error: ConfigurationError) -> Finding:
    """A setting, or an ini file: what its error ends with is then the reason."""
    if subject == "ini":
        return problem(subject, str(error), "Correct the file, or set the variable that it refers to.")
    message = str(error).removesuffix(error.remedy).strip()
    return problem(subject, message, error.remedy)
