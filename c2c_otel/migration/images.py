"""The predecessor's images and ours."""

from __future__ import annotations

import re

from c2c_otel import __version__
from c2c_otel.migration import names

__all__ = ["IMAGE", "NOT_ROOT", "image"]

IMAGE = "c2c-otel"
"""As ``docker build --tag`` is told in docs/image.md."""

NOT_ROOT = "the image runs as user 10001: may it write where the application writes?"

_OLD_IMAGE = re.compile(
    rf"(?<![\w./-])(?:[\w.-]+(?::\d+)?/)?(?:camptocamp/)?{names.OLD}"
    r"(?::(?P<tag>[\w.${}:?-]+))?(?:@sha256:[0-9a-f]+)?(?![\w/-])"
)


def image(text: str, new_image: str = IMAGE) -> tuple[str, bool]:
    """The text with our image in the place of the predecessor's; whether there is one whose tag is a variable, which
    stays."""
    unsure = False

    def new(match: re.Match[str]) -> str:
        nonlocal unsure
        tag = match["tag"] or ""
        if "$" in tag:
            unsure = True
            return match[0]
        return f"{new_image}:{__version__}{'-light' if 'light' in tag else ''}"

    return _OLD_IMAGE.sub(new, text), unsure
