"""``gunicorn acceptance_tests.app.wsgi:application``: production.ini, read through the c2c:// loader."""

from __future__ import annotations

import os
from pathlib import Path

import plaster

_DEFAULTS = {
    "DEMO_INCLUDE": "true",
    "DEMO_REDIS_URL": "",
    "DEMO_CALL_URL": "",
    "SQLALCHEMY_URL": "sqlite:///demo.sqlite",
    "SQLALCHEMY_URL_SLAVE": "",
    "LOG_TYPE": "console",
    "LOG_LEVEL": "INFO",
    "OTHER_LOG_LEVEL": "WARNING",
    "SQL_LOG_LEVEL": "WARNING",
    "GUNICORN_LOG_LEVEL": "INFO",
    "LOG_HOST": "127.0.0.1",
    "LOG_PORT": "514",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

_loader = plaster.get_loader(f"c2c://{Path(__file__).with_name('production.ini')}", protocols=["wsgi"])
_loader.setup_logging()
application = _loader.get_wsgi_app("main")
