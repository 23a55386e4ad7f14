"""Open a page in the browser where one watches a GPT-2 think and learn, and changes it.

Without WHERE it begins with a new model, which learns to add before your eyes in a minute. The page
is served on this machine alone, and loads nothing from elsewhere. With --export it is written as
one file with the numbers of a text, for any web host or none.
"""

import sys
import webbrowser
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.errors import ArgumentError
from npgpt.explore.api import Api
from npgpt.explore.export import write_page
from npgpt.explore.server import HOST, libraries, listen, make_server
from npgpt.explore.session import Session
from npgpt.explore.worker import Worker

PORT = 8124


def use_one_blas_thread():
    """Let NumPy's products use one thread: beside the kernels' threads, more of them are slower."""
    *_, threadpoolctl = libraries()
    threadpoolctl.threadpool_limits(1, user_api="blas")


def serve(api, listener, browser):
    """Serve the page until Ctrl-C; with browser, open it there."""
    use_one_blas_thread()
    port = listener.getsockname()[1]
    address = f"http://{HOST}:{port}/"
    print(f"{address} (Ctrl-C ends it)")
    if browser:
        webbrowser.open(address)
    make_server(api, port).run(sockets=[listener])


def make_parser(prog):
    parser = Parser(prog=prog, description=__doc__)
    where = "a published name (gpt2, ...), a model file or folder, or a run's folder"
    parser.add_argument("where", nargs="?", metavar="WHERE", help=where)
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"0: any; default: {PORT}"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    parser.add_argument("--text", metavar="T", help="of the exported page")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the page there, once")
    return parser


@program
def main(argv=None, prog=None):
    """Serve the page until Ctrl-C, or write it."""
    args = make_parser(prog).parse_args(argv)
    if args.export is not None:
        if args.where is None:
            raise ArgumentError("--export needs WHERE, the model that the page shows")
        session = Session.of_model(args.where)
        text = session.source.prompt if args.text is None else args.text
        print(f"written: {write_page(session, text, args.export)}")
        return 0
    if args.text is not None:
        raise ArgumentError("--text needs --export: on the served page, the text is typed")
    libraries()
    with listen(args.port) as listener:
        session = Session.named("addition") if args.where is None else Session.of_model(args.where)
        serve(Api(session, Worker(), args.where is not None), listener, not args.no_browser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
