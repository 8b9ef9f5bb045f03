"""``gunicorn c2c_otel.wsgi_app:application``: the application of ``C2CWSGIUTILS_CONFIG``.

It is made when the name is first looked up, so that importing the module does nothing. Servers that look into a module
without asking it (uWSGI, mod_wsgi) call `c2c_otel.wsgi.create_application` in a module of their own.
"""

from __future__ import annotations

from typing import Any

__all__ = ["application"]  # noqa: F822 - made by __getattr__


def __getattr__(name: str) -> Any:
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from c2c_otel.wsgi import create_application

    try:
        made = create_application()
    except AttributeError as error:  # a server would say that this module has no application
        raise RuntimeError(f"The application cannot be made: {error}") from error
    globals()["application"] = made
    return made
