"""What the page can ask for, by name: what is done, and the words for it while it is done."""

import inspect
from typing import Any

from npgpt.errors import ArgumentError
from npgpt.explore.session import Session
from npgpt.explore.worker import Worker

QUESTIONS = {  # of a Session, answered by its method of that name
    "progress": "",
    "picture": "computing the forward pass",
    "position": "computing what each block would say",
    "block": "computing what the block adds",
    "find_token": "",
    "backward": "computing the backward pass",
    "numbers": "looking numbers up",
    "explain": "computing a number again",
    "code": "",
    "check": "checking the gradients by central differences",
}
COMMANDS = ("describe", "open", "learn", "undo", "stop")


class Api:
    """A session that can be changed for another one, and the worker that computes."""

    def __init__(self, session: Session, worker: Worker, given: bool):
        """given: whether the model was named on the command line, and is an offer to go back to."""
        self.session, self.worker = session, worker
        self._given = session if given else None

    def answer(self, name: str, arguments: dict[str, Any]):
        """The future of an answer; ArgumentError where there is no such question."""
        if name in COMMANDS:
            work, doing = getattr(self, f"_{name}"), ""
        elif name in QUESTIONS:
            work, doing = getattr(self.session, name), QUESTIONS[name]
        else:
            raise ArgumentError(f"there is no question {name!r:.40}")
        return self.worker.ask(doing, lambda: called(name, work, arguments))

    def _open(self, model, text=""):
        if model == "given" and self._given is not None:
            session = self._given
        else:
            session = Session.named(model, text)
        self.worker.end_course()
        self.session = session
        return self._describe()

    def _describe(self):
        return {**self.session.describe(), "given": self._given and self._given.source.name}

    def _learn(self, steps, lr, text=None):
        course = self.session.learning.steps(steps, lr, text)
        self.worker.start("training", course, steps)
        return {}

    def _undo(self):
        self.worker.end_course()
        learning = self.session.learning
        course = learning.undo()
        if learning.actions[-1].before is not None:
            for _ in course:
                pass
        else:
            steps = sum(action.steps for action in learning.actions[:-1])
            self.worker.start("repeating the steps before", course, steps)
        return {}

    def _stop(self):
        self.worker.end_course()
        return {}


def called(name, work, arguments):
    """work(**arguments), where arguments that it does not take are an ArgumentError."""
    try:
        inspect.signature(work).bind(**arguments)
    except TypeError as error:
        raise ArgumentError(f"{name}: {error}") from error
    return work(**arguments)
