"""One thread that computes, a request at a time, and goes on with a training in between.

All passes run here: neither the server nor the page ever waits for one, and the kernels are used
by one thread.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any


class Worker:
    """The thread, and what it is doing, in words."""

    def __init__(self):
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._course: Iterator[None] | None = None
        self._what, self._of, self._taken, self._since = "", None, 0, 0.0
        self._doing, self._failed, self._stopped = "", "", False
        self._thread = threading.Thread(target=self._run, name="explore", daemon=True)
        self._thread.start()

    def ask(self, doing: str, work: Callable[[], Any]) -> "Future[Any]":
        """Have work done; doing says what it is while it is done."""
        future: Future[Any] = Future()
        self._requests.put((doing, work, future))
        return future

    def start(self, what: str, course: Iterator[None], of: int | None) -> None:
        """Take the steps of a course, `of` of them if that is known, between requests.

        To be called by work that the worker does. Another course that is running ends.
        """
        self.end_course()
        self._course, self._what, self._of = course, what, of
        self._taken, self._since, self._failed = 0, time.monotonic(), ""

    def end_course(self) -> None:
        """End the course that is running; to be called by work that the worker does."""
        if self._course is not None:
            self._course.close()  # type: ignore[attr-defined]
            self._course = None

    def status(self) -> dict[str, Any]:
        """What the worker is doing, at once."""
        running = self._course is not None
        seconds = time.monotonic() - self._since
        return {
            "running": running,
            "taken": self._taken if running else 0,
            "of": self._of if running else None,
            "speed": self._taken / seconds if running and self._taken and seconds else None,
            "doing": self._words(),
            "failed": self._failed,
        }

    def close(self) -> None:
        """End the thread, after what it is doing."""
        self._stopped = True
        self.ask("", lambda: None)
        self._thread.join()

    def _words(self):
        if self._course is None:
            return self._doing
        if self._taken == 0:
            return f"{self._what}: the first step; kernels may be compiled, once, in half a minute"
        of = f" of {self._of:,}" if self._of else ""
        return f"{self._what}: step {self._taken:,}{of}"

    def _run(self):
        while not self._stopped:
            if self._course is not None and self._requests.empty():
                self._step()
                continue
            doing, work, future = self._requests.get()
            self._doing = doing
            try:
                future.set_result(work())
            except BaseException as error:  # it is raised where the result is waited for
                future.set_exception(error)
            self._doing = ""

    def _step(self):
        try:
            next(self._course)
            self._taken += 1
            if self._taken == self._of:
                self.end_course()
        except StopIteration:
            self._course = None
        except Exception as error:  # it has no one who waits for it: the status says it
            self._course = None
            self._failed = f"the training has ended: {type(error).__name__}: {error}"
