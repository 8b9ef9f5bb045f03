"""Where requests spend their time: pyinstrument's samples of each request, while an operator has asked for them.

    enable(seconds=300, min_seconds=0.5)
    disable()

``switch`` is what each request looks at, ``recording`` follows one, ``tree`` holds what was seen of it, ``sessions``
keeps them, ``everybody`` asks all workers. Nothing of pyinstrument is imported before it is switched on.
"""

from __future__ import annotations

from c2c_otel.profiler.switch import Mode, disable, enable, init, missing, mode

__all__ = ["Mode", "disable", "enable", "init", "missing", "mode"]
