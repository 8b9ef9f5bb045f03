"""``make docs``: the parts of the texts that are made from the code. ``python tests/provision/docs.py``

A test compares them; the settings table stands in README.md too, between its two marks.
"""

from __future__ import annotations

import re
from pathlib import Path

from c2c_otel import cli

__all__ = ["ROOT", "readme_with_table"]

ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"(<!-- settings -->\n).*?(\n<!-- /settings -->)", re.DOTALL)


def readme_with_table(readme: str) -> str:
    """README.md with the table of settings as it is now. Raises ValueError where the marks are missing."""
    made, count = _MARKED.subn(lambda match: f"{match[1]}{cli.settings_table()}{match[2]}", readme)
    if count != 1:
        raise ValueError("README.md has no <!-- settings --> … <!-- /settings -->")
    return made


if __name__ == "__main__":
    (ROOT / "docs/settings.md").write_text(f"{cli.settings_page()}\n")
    readme = ROOT / "README.md"
    readme.write_text(readme_with_table(readme.read_text()))
