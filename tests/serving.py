"""A server of the page in a thread, and requests to it."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

from npgpt.explore.api import Api
from npgpt.explore.server import HOST, listen, make_server
from npgpt.explore.session import Session
from npgpt.explore.worker import Worker


class Served:
    """A running server: its port, and the Api behind it."""

    def __init__(self, api, port):
        self.api, self.port = api, port
        self.address = f"http://{HOST}:{port}/"

    def request(self, method, path, body=None, headers=()):
        """Status, headers and text of an answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def ask(self, question, /, **arguments):
        """Status and parsed answer of a question."""
        kind = {"Content-Type": "application/json"}
        status, _, text = self.request("POST", f"/api/{question}", json.dumps(arguments), kind)
        return status, json.loads(text)

    def wait(self):
        """Until no training runs."""
        deadline = time.monotonic() + 120
        while self.ask("status")[1]["running"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextmanager
def served(session=None):
    """A server of a Session, by default of the bundled tiny model."""
    worker = Worker()
    listener = listen(0)
    port = listener.getsockname()[1]
    api = Api(session or Session.named("tiny"), worker, given=session is not None)
    server = make_server(api, port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Served(api, port)
    finally:
        server.should_exit = True
        thread.join()
        worker.close()
