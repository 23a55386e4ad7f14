"""The command `npgpt`, also `python -m npgpt`: one subcommand per program."""

import argparse
import difflib
import importlib
import sys

import npgpt
from npgpt.cli import Parser, program

PROGRAMS = {
    "test": ("npgpt.test_gpt2", "check a model against PyTorch's logits, gradients and losses"),
    "gradcheck": ("npgpt.gradcheck", "check every backward pass by central differences"),
    "prepare shakespeare": ("npgpt.prepro_tinyshakespeare", "make token files of tinyshakespeare"),
    "prepare stories": ("npgpt.prepro_tinystories", "make token files of TinyStories"),
    "prepare text": ("npgpt.prepro_text", "make token files of your own texts"),
    "prepare addition": ("npgpt.prepro_addition", "make token files of sums, with no download"),
    "trace": ("npgpt.trace_gpt2", "write every tensor of a forward and backward pass"),
    "diff": ("npgpt.diff_traces", "find the first wrong tensor of a GPT-2, and why it is wrong"),
    "reference": (
        "npgpt.write_reference",
        "write a model, a debug state and losses to check against",
    ),
    "train": ("npgpt.train_gpt2", "train a model, or resume a run"),
    "sample": ("npgpt.sample", "generate text with a model"),
    "explore": ("npgpt.explore_gpt2", "watch a model think and learn, on a page in the browser"),
    "eval": ("npgpt.evaluate", "measure a model's loss, HellaSwag accuracy or exact match"),
    "plan": ("npgpt.plan", "predict what training takes on many machines"),
    "plot": ("npgpt.plot", "compare the losses of runs"),
    "convert": ("npgpt.convert", "convert models between llm.c and Hugging Face"),
    "download": ("npgpt.download", "download published models and the reference files"),
}


@program
def main(argv=None, prog=None):
    """Run the program that the first words name, with the rest as its arguments."""
    argv = sys.argv[1:] if argv is None else argv
    for name, (module, _) in PROGRAMS.items():
        words = name.split()
        if argv[: len(words)] == words:
            return importlib.import_module(module).main(argv[len(words) :], f"npgpt {name}")
    listing = "\n".join(f"  {name:<20} {what}" for name, (_, what) in PROGRAMS.items())
    parser = Parser(
        prog="npgpt",
        usage="npgpt PROGRAM [OPTION ...]",
        description=npgpt.__doc__,
        epilog=f"programs (npgpt PROGRAM --help for its options):\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"npgpt {npgpt.__version__}")
    parser.add_argument("program", help=argparse.SUPPRESS, nargs=argparse.REMAINDER)
    given = parser.parse_args(argv).program
    if not given:
        parser.print_help(sys.stderr)
        return 2
    near = difflib.get_close_matches(" ".join(given[:2]), PROGRAMS, 1) or difflib.get_close_matches(
        given[0], PROGRAMS, 1
    )
    hint = f"did you mean npgpt {near[0]}?" if near else f"it is one of {', '.join(PROGRAMS)}"
    if given[0] == "prepare":
        others = ", ".join(name for name in PROGRAMS if name.startswith("prepare "))
        hint = f"for a text of yours it is npgpt prepare text FILE; there are {others}"
    parser.error(f"there is no program {' '.join(given)}: {hint}")


if __name__ == "__main__":
    sys.exit(main())
