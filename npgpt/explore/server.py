"""The server of the page: on the loopback alone, for pages of its own origin alone.

A request must name this server in Host and, where a browser says where it comes from, in Origin;
its body is JSON of bounded size. Everything is computed by the worker, so that the server always
answers.
"""

import asyncio
import json
import socket
from importlib.resources import files

from npgpt.errors import ArgumentError, NpgptError
from npgpt.explore.api import Api
from npgpt.explore.wire import to_json
from npgpt.wording import install_extra

HOST = "127.0.0.1"
LARGEST_REQUEST = 4_000_000  # bytes
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page_files():
    """The files of the page: name -> content."""
    folder = files("npgpt.explore") / "page"
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if any(path.name.endswith(ending) for ending in TYPES)
    }


def libraries():
    """The packages starlette, uvicorn and threadpoolctl, which are an extra."""
    try:
        import starlette.applications
        import threadpoolctl
        import uvicorn
    except ImportError as error:
        raise ArgumentError(
            f"the page needs starlette, uvicorn and threadpoolctl: {install_extra('explore')}"
        ) from error
    return starlette, uvicorn, threadpoolctl


def listen(port):
    """A socket on the loopback; port 0: any that is free."""
    if not 0 <= port < 65536:
        raise ArgumentError(f"--port must be from 0 to 65535, not {port}")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # a browser that is early waits
    except OSError as error:
        listener.close()
        raise ArgumentError(
            f"--port {port} cannot be used ({error.strerror}): take another one, or 0 for any"
        ) from error
    return listener


def make_app(api: Api, port: int):
    """The ASGI application of a server on this port."""
    libraries()
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    content = page_files()
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    origins = {f"http://{host}" for host in hosts}

    def say(status, text, kind="application/json"):
        return Response(text, status, HEADERS, kind)

    def refuse(status, sentence):
        return say(status, to_json({"error": sentence}))

    def stranger(request):
        """Why a request is refused, or None."""
        if request.headers.get("host") not in hosts:
            return f"the header Host must be one of {', '.join(sorted(hosts))}"
        if request.headers.get("origin", f"http://{HOST}:{port}") not in origins:
            return "the header Origin must be that of this page"
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "requests of other pages are refused"
        return None

    async def page(request):
        if reason := stranger(request):
            return refuse(403, reason)
        name = request.path_params.get("name", "index.html")
        if name not in content:
            return refuse(404, "there is no such file")
        kind = TYPES[name[name.rindex(".") :]]
        return say(200, content[name], kind)

    async def status(request):
        if reason := stranger(request):
            return refuse(403, reason)
        return say(200, to_json(api.worker.status()))

    async def ask(request):
        if reason := stranger(request):
            return refuse(403, reason)
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            return refuse(415, "a question must be application/json")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_REQUEST:
                return refuse(413, f"a request can have {LARGEST_REQUEST:,} bytes: send less")
        try:
            arguments = json.loads(body)
        except (ValueError, RecursionError):
            return refuse(400, "the request must be JSON")
        if not isinstance(arguments, dict):
            return refuse(400, "the request must be a JSON object")
        try:
            answer = api.answer(request.path_params["name"], arguments)
            text = await asyncio.wrap_future(answer)
        except (NpgptError, MemoryError) as error:
            what = "there is not enough memory: " if isinstance(error, MemoryError) else ""
            return refuse(422, f"{what}{error}")
        return say(200, to_json(text))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/{name}", page),
            Route("/api/status", status, methods=["POST"]),
            Route("/api/{name}", ask, methods=["POST"]),
        ]
    )


def make_server(api: Api, port: int):
    """The uvicorn Server of the page on this port; its run(sockets=[...]) serves."""
    _, uvicorn, _ = libraries()
    config = uvicorn.Config(
        make_app(api, port), loop="asyncio", http="h11", ws="none", lifespan="off",
        log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)
