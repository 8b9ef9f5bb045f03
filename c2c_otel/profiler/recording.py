"""One request, from the call of the application to the end of its body, with pyinstrument looking at its thread.

pyinstrument's sampler belongs to a thread, and looks only while code of the application runs: not between the steps of
a streaming body. Below the sampler everything here is ours, so that a long request needs no more memory than its tree.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from pyinstrument.stack_sampler import active_profiler_context_var, get_stack_sampler

from c2c_otel import current_request
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.profiler import modules, switch
from c2c_otel.profiler.sessions import kept
from c2c_otel.profiler.switch import Mode
from c2c_otel.profiler.tree import Tree
from c2c_otel_exporters import guard, masking

__all__ = ["Recorder", "Recording"]

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_thread = threading.local()
"""``recording``: whose code this thread runs. What an application calls on its way is a part of its own request."""


class Recorder:
    """Follows requests, on any number of threads at once, as ``mode`` says."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode

    def answer(self, application: Wsgi, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The application's answer. Whatever it raises comes through."""
        recording = self._begin(environ)
        if recording is None:
            return application(environ, start_response)
        try:
            body = recording.run(application, environ, start_response)
        except BaseException as error:
            recording.finish(error)
            raise
        return recording.wrap(body)

    def _begin(self, environ: Environ) -> Recording | None:
        try:
            if time.time() >= self.mode.until:
                switch.expired(self)
                return None
            if getattr(_thread, "recording", None) is not None:
                return None
            if self.mode.path and not wsgi_attributes.url_path(environ).startswith(self.mode.path):
                return None
            if not _can_sample():
                return None
            return Recording(self.mode, environ)
        except Exception:
            guard.failed("profiler.begin")
            return None


def _can_sample() -> bool:
    """Not where greenlets share a thread: one's samples would be another's. Not beside another profiler."""
    greenlet: Any = sys.modules.get("greenlet")
    if greenlet is not None and greenlet.getcurrent().parent is not None:
        guard.warn_once("profiler.greenlet", "The profiler does not work in greenlets: use gthread or sync workers.")
        return False
    if sys.getprofile() is not None and not get_stack_sampler().subscribers:
        guard.warn_once("profiler.other", "Another profiler (sys.setprofile) is active: its requests are left out.")
        return False
    return True


class Recording:
    """One request. Its code runs in `run`, on one thread at a time."""

    def __init__(self, mode: Mode, environ: Environ) -> None:
        self._mode = mode
        self._environ = environ
        self._request = current_request.get()
        self._tree = Tree()
        self._depth = 0
        self._started = time.time()
        self._begun = time.perf_counter()
        self._finished = False

    # -- sampling -----------------------------------------------------------------------------------------------------

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)``, looked at."""
        if self._finished or getattr(_thread, "recording", None) is not None:
            return function(*args)
        self._start(sys._getframe())
        try:
            return function(*args)
        finally:
            self._stop()

    def _start(self, frame: FrameType | None) -> None:
        try:
            depth = 1  # pyinstrument puts the thread above all frames
            while frame is not None:
                depth += 1
                frame = frame.f_back
            self._depth = depth
            sampler = get_stack_sampler()
            sampler.has_warned_about_timing_overhead = True  # else it prints to stderr
            _thread.recording = self
            # looked for at each call: to find it takes less time than to find out that it is nowhere, which means None
            active_profiler_context_var.set(active_profiler_context_var.get())
            sampler.subscribe(self._sample, desired_interval=self._mode.interval, use_async_context=False)
        except Exception:
            _thread.recording = None
            guard.failed("profiler.start")

    def _stop(self) -> None:
        if getattr(_thread, "recording", None) is not self:
            return
        try:
            get_stack_sampler().unsubscribe(self._sample)
        except Exception:
            guard.failed("profiler.stop")
        finally:
            _thread.recording = None

    def _sample(self, stack: list[str], seconds: float, _async_state: object) -> None:
        """Called where application code calls or returns: nothing may be raised there."""
        try:
            depth = self._depth
            if len(stack) >= depth and stack[depth - 1].startswith(_RUN):
                if len(stack) > depth and not stack[depth].startswith(_OURS):
                    self._tree.add(stack[depth:], seconds)
            else:  # a greenlet of the application's: its stack is its own
                self._tree.add(stack[1:], seconds)
        except Exception:
            guard.failed("profiler.sample")

    # -- the end ------------------------------------------------------------------------------------------------------

    def wrap(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """The body to hand on. A list stays a list, the server's file wrapper stays that: no code of the application
        runs while they are sent, so that all is known."""
        try:
            wrapper = self._environ.get("wsgi.file_wrapper")
            if (
                body.__class__ is list
                or body.__class__ is tuple
                or (isinstance(wrapper, type) and isinstance(body, wrapper))
            ):
                self.finish()
                return body
            return _SizedBody(body, self) if hasattr(body, "__len__") else _Body(body, self)
        except Exception:
            guard.failed("profiler.body")
            return body

    def finish(self, error: BaseException | None = None) -> None:
        """Keep what was seen. Only the first call does anything."""
        if self._finished:
            return
        self._finished = True
        try:
            seconds = time.perf_counter() - self._begun
            if seconds >= self._mode.min_seconds:
                self._tree.name_frames(modules.module_of)
                kept.add(self._head(seconds, error), self._tree)
        except Exception:
            guard.failed("profiler.finish")

    def _head(self, seconds: float, error: BaseException | None) -> dict[str, Any]:
        request, self._request = self._request, None
        span = request.span.get_span_context() if request is not None else None
        return {
            "id": uuid.uuid4().hex[:16],
            "method": wsgi_attributes.known_method(self._environ["REQUEST_METHOD"]),
            "path": masking.mask(_text(wsgi_attributes.url_path(self._environ))),
            "route": request.route_name if request is not None else None,
            "pattern": request.route_pattern if request is not None else None,
            "status": request.status if request is not None else None,
            "error": None if error is None else type(error).__qualname__,
            "started": round(self._started, 3),
            "seconds": round(seconds, 6),
            "samples": self._tree.samples,
            "sampled": round(self._tree.total(), 6),
            "interval": self._mode.interval,
            "thread": _text(threading.current_thread().name),
            "request_id": request.request_id if request is not None else "",
            "trace_id": f"{span.trace_id:032x}" if span is not None and span.is_valid else "",
        }


_FILE = Recording.run.__code__.co_filename
_RUN = f"run\x00{_FILE}\x00"
"""How the frame of `Recording.run` begins in a sample."""
_OURS = (f"_start\x00{_FILE}\x00", f"_stop\x00{_FILE}\x00")
"""How those begin that `Recording.run` calls for itself."""


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()[:300]


class _Body:
    """Each of its steps is looked at; the end of the last one, or its closing, is the end of the request."""

    __slots__ = ("_body", "_recording", "_step")

    def __init__(self, body: Any, recording: Recording) -> None:
        self._body = body
        self._recording = recording
        self._step: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        if self._step is None:
            self._step = self._called(iter, self._body).__next__
        return self

    def __next__(self) -> bytes:
        if self._step is None:
            raise TypeError("next() before iter()")
        chunk: bytes = self._called(self._step)
        return chunk

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._called(close)
        finally:
            self._recording.finish()

    def _called(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._recording.run(function, *args)
        except StopIteration:
            self._recording.finish()
            raise
        except BaseException as error:
            self._recording.finish(error)
            raise


class _SizedBody(_Body):
    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)
