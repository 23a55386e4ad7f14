"""The page of figures and the README's table: they are what bench.report makes of the results."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TINY_MODEL

from bench import accuracy, charts, report, results, tables
from npgpt import FileError

ROOT = Path(__file__).parents[2]
MACHINE = {
    "cpu": "Intel(R) Xeon(R) Processor", "extensions": "avx2 avx512f avx512bf16 amx-bf16",
    "bf16": "AMX", "threads": 2, "system": "Linux",
    "versions": {"Python": "3.11.7", "numpy": "2.4.6"},
}  # fmt: skip


def run(*seconds):
    return {"seconds": [*seconds], "first": [9.0], "peak": 2_000_000_000}


SYSTEMS = ("NumPy", "PyTorch", "npgpt", "npgpt, bf16x3", "npgpt, bf16", "PyTorch, bf16")
CONTENTS = {
    "step": {
        "B": 4, "T": 64, "rounds": 1, "steps": 3,
        "systems": {
            "npgpt": run(2.0, 1.0, 99.0, 2.0), "npgpt, bf16": run(0.5),
            "PyTorch, eager": run(4.0), "PyTorch, compiled": run(3.0, 2.0, 5.0),
            "PyTorch, bf16, compiled": run(0.75),
        },
        "limit": {"sgemm": [0.9], "adamw": [0.1], "memory": [1e10]},
        "breakdown": {"precision": "bf16", "seconds": {"AdamW": 1.0, "the rest": 3.0}},
    },
    "lengths": {
        "B": 4, "precision": "fp32", "lengths": {"64": run(0.256), "128": run(0.512, 1.024)},
    },
    "sample": {
        "prompt_tokens": 64, "tokens": 32, "limit": [50.0],
        "systems": {
            "npgpt": [40.0, 30.0, 45.0], "npgpt, int8": [100.0], "transformers": [20.0, 25.0, 10.0]
        },
    },
    "products": {
        "B": 4, "T": 64, "products": [["x @ w.T", 5, 7, 9, 2], ["dout.T @ x", 4, 3, 8, 1]],
        "systems": {
            **{name: [[1e-9, 4e-9]] for name in (*SYSTEMS, "PyTorch, bf16 and casts")},
            "npgpt": [[2e-9, 2e-9]],
        },
    },
    "kernels": {
        "B": 4, "T": 64,
        "kernels": [{"name": "gelu forward", "textbook": [0.002, 0.004, 0.003],
                     "kernel": [0.0002], "limit": 0.0001}],
    },
    "accuracy": {
        "B": 4, "T": 64, "parameters": 124_439_808,
        "precisions": {"fp32": {
            "logits": {"largest": 3.8e-6, "l2": 1e-7}, "losses": [0.0, 1e-5],
            "gradients": {
                "wte": {"largest": 1e-7, "l2": 9e-7}, "wpe": {"largest": 2e-7, "l2": 1e-8},
            },
        }},
    },
    "learn": {
        "goal": "1.90", "target": 1.9, "rounds": 2,
        "systems": {
            "npgpt": {"seconds": [20.0, 22.0], "loss": [1.88, 1.9], "steps": [300, 300]},
            "PyTorch, eager": {"seconds": [84.0, 84.0], "loss": [1.89, 1.86], "steps": [18, 19]},
            "PyTorch, compiled": {"seconds": [63.0, 64.0], "loss": [1.89, 1.92], "steps": [9, 9]},
        },
        "recipes": {
            "npgpt": {"B": 24, "optimizer": "muon"},
            "PyTorch, eager": {"B": 12}, "PyTorch, compiled": {"B": 12},
        },
    },
    "trainer": {"B": 4, "T": 64, "bare": [1.0, 2.0, 1.0], "trainer": [1.02, 2.02, 1.03]},
    "prepare": {
        "bytes": 2 * 10**9, "rounds": 1, "limit": 10**9,
        "systems": {
            "npgpt": {"seconds": [100.0], "peak": [2e8]},
            "tiktoken alone": {"seconds": [125.0], "peak": [1e8]},
        },
    },
    "explore": {
        "tokens": 63, "rounds": 2, "seconds": {"picture": [0.6, 0.7], "step": [1.4, 1.5]},
        "peak": 2.5e9, "estimate": 2.2e9, "addition_steps_per_second": 33.0,
    },
    "parallel": {
        "B": 4, "T": 64,
        "ways": {
            "1 rank": {"seconds": [1.0, 1.1], "exposed": [0.0], "copy": [0.0], "bytes": 0},
            "2 ranks": {"seconds": [1.2], "exposed": [0.3], "copy": [0.1], "bytes": 5},
        },
    },
    "parallel_losses": {
        "runs": [{"order": "random", "ranks": 2, "way": "shards", "steps": 180, "skipped": 3,
                  "largest of 50": 1e-7, "largest": 2e-7, "validation": 3e-7}],
        "control": 0.02,
    },
    "parallel_kills": {
        "stated": 10,
        "kills": [{"signal": "SIGKILL", "seconds": 0.2, "same": True, "largest difference": 0.0},
                  {"signal": "SIGSTOP", "seconds": 6.0, "same": False, "largest difference": 1e-6}],
    },
    "parallel_network": {
        "B": 4, "T": 64,
        "rates": {"1gbit": {"seconds": [6.0, 6.2], "exposed": [4.0], "predicted": 5.5,
                            "exchange": 4.1}},
    },
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A result of each program, in files."""
    for program, content in CONTENTS.items():
        results.write_result(program, f"{program}_4x64", MACHINE, content, tmp_path)
    return tmp_path


def test_the_page_and_the_readme_are_those_of_the_results():
    found = results.read_results()
    assert (ROOT / "doc" / "figures.md").read_text(encoding="utf-8") == report.page(found)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.fill(readme, found) == readme


def test_the_pictures_are_those_of_the_results():
    found = results.read_results()
    steps = {report.picture(path): r for path, r in found.items() if r["program"] == "step"}
    pictures = {f"figures/{path.name}" for path in ROOT.glob("doc/figures/*")}
    assert pictures == set(steps)
    for name, result in steps.items():
        assert charts.digest(result).encode() in (ROOT / "doc" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("program", "way"),
    [
        ("step", ("systems", "npgpt", "seconds", 1)),
        ("step", ("systems", "PyTorch, eager", "peak")),
        ("step", ("limit", "sgemm", 0)),
        ("step", ("breakdown", "seconds", "AdamW")),
        ("step", ("machine", "threads")),
        ("lengths", ("lengths", "128", "seconds", 0)),
        ("sample", ("systems", "transformers", 0)),
        ("products", ("systems", "NumPy", 0, 0)),
        ("kernels", ("kernels", 0, "kernel", 0)),
        ("accuracy", ("precisions", "fp32", "losses", 1)),
        ("trainer", ("bare", 0)),
        ("prepare", ("systems", "npgpt", "seconds", 0)),
        ("prepare", ("bytes",)),
        ("explore", ("seconds", "step", 0)),
        ("explore", ("peak",)),
        ("learn", ("systems", "npgpt", "seconds", 0)),
        ("learn", ("systems", "PyTorch, eager", "loss", 1)),
        ("learn", ("recipes", "npgpt", "B")),
        ("parallel", ("ways", "2 ranks", "exposed", 0)),
        ("parallel_losses", ("control",)),
        ("parallel_kills", ("kills", 1, "seconds")),
        ("parallel_network", ("rates", "1gbit", "predicted")),
    ],
)
def test_a_changed_number_in_a_result_changes_the_page(program, way, written):
    before = report.page(results.read_results(written))
    path = written / "intel-amx" / f"{program}_4x64.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    inner = content
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] *= 1.5
    path.write_text(json.dumps(content), encoding="utf-8")
    assert report.page(results.read_results(written)) != before


def test_a_changed_number_in_the_readme_is_undone(written):
    found = results.read_results(written)
    readme = f"# A\n\n{report.START}\nold\n{report.END}\n\nB\n"
    right = report.fill(readme, found)
    assert right.startswith("# A\n") and right.endswith("\n\nB\n") and "old" not in right
    assert report.fill(right.replace("2.00", "1.00"), found) == right


def test_every_table_says_where_when_and_at_which_commit(written):
    page = report.page(results.read_results(written))
    tables_in_page = page.split("\n### ")[1:]
    assert len(tables_in_page) == len(CONTENTS)
    for section in tables_in_page:
        assert "Intel(R) Xeon(R) Processor (bf16 hardware: AMX), 2 threads" in section
        assert "Python 3.11.7, numpy 2.4.6; commit " in section
        assert re.search(r"\d{4}-\d\d-\d\d\.", section)


def test_a_speed_up_is_the_others_time_by_npgpts(written):
    page = report.page(results.read_results(written))
    for row in (
        "| system | seconds | tokens/s | peak memory, GB | npgpt's speed-up |",
        "| npgpt | 2.00 (1.75 to 26.2) | 128 | 2.00 |  |",
        "| npgpt, bf16 | 0.500 | 512 | 2.00 |  |",
        "| PyTorch, compiled | 3.00 | 85 | 2.00 | 1.50 |",
        "| PyTorch, bf16, compiled | 0.750 | 341 | 2.00 | 1.50 |",
        "| NumPy's products + AdamW | 1.00 |  |  | 0.50 |",
        "| 128 | 0.768 | 1.50 | 2.00 |",
        "| npgpt, int8 | 100 |  |",
        "| transformers | 20.0 | 2.00 |",
        "| x @ w.T: (5, 7) @ (7, 9) | 630 | 630 | 315 | 630 | 630 | 630 | 630 |",
        "| all of a step | 1.00 | 1.00 | 1.00 | 1.00 |",
        "| gelu forward | 3.00 | 0.200 | 15.0 | 0.100 |",
        "| fp32 | 3.8e-06 | 1.0e-07 | 2.0e-07 | 9.0e-07 | 0.0e+00 | 1.0e-05 |",
        "| the trainer's step | 1.03 | +2.0 % |",
        "| tiktoken alone | 125 | 8.00 | 0.10 |",
        "| PyTorch, eager | 84.0 | 1.875 (1.860 to 1.890) | 18 | 4.00 |",
        "| PyTorch, compiled | 63.5 | 1.905 (1.890 to 1.920) | 9 |  |",
        "- PyTorch, eager; PyTorch, compiled: B 12.",
    ):
        assert row in page.splitlines(), row
    summary = "\n".join(report.summary(results.read_results(written)))
    assert "| a training step | intel-amx, fp32 | intel-amx, bf16 |" in summary
    assert "| GPT-2 124M, B=4, T=64 | 2.00 s (1.50) | 0.500 s (1.50) |" in summary


def test_each_machine_has_columns_of_its_own(written):
    other = {**MACHINE, "cpu": "AMD EPYC", "extensions": "avx2", "threads": 8}
    content = {**CONTENTS["step"], "T": 1024}
    results.write_result("step", "step_4x1024", other, content, written)
    summary = report.summary(results.read_results(written))
    assert summary[0].endswith(
        "| amd-avx2, fp32 | amd-avx2, bf16 | intel-amx, fp32 | intel-amx, bf16 |"
    )
    assert summary[2].endswith(", T=1024 | 2.00 s (1.50) | 0.500 s (1.50) |  |  |")
    assert summary[3].endswith(", T=64 |  |  | 2.00 s (1.50) | 0.500 s (1.50) |")
    assert "amd-avx2: AMD EPYC (bf16 hardware: AMX), 8 threads; intel-amx: " in summary[-1]
    content = {**CONTENTS["step"], "T": 16}
    results.write_result("step", "step_4x16", {**other, "threads": 16}, content, written)
    summary = report.summary(results.read_results(written))
    assert "amd-avx2: AMD EPYC (bf16 hardware: AMX), 8 or 16 threads;" in summary[-1]


def test_a_result_of_another_model_says_so(tmp_path):
    for model in ("GPT-2 124M", "L4_C256 (4 layers)"):
        content = {**CONTENTS["step"], "model": model}
        content["systems"] = {**content["systems"], "PyTorch, medium": run(0.6)}
        results.write_result("step", f"step_{model[:2]}", MACHINE, content, tmp_path)
    found = results.read_results(tmp_path)
    for name in ("GPT-2 124M", "L4_C256 (4 layers)"):
        assert f"### Training step of {name}, B=4, T=64, on intel-amx" in report.page(found)
        row = f"{name}, B=4, T=64 | 2.00 s (1.50) | 0.500 s (1.20) |"
        assert row in "\n".join(report.summary(found))
    assert "| PyTorch, medium | 0.600 | 427 | 2.00 | 1.20 |" in report.page(found)


def test_products_by_blas_are_said_beside_the_machine():
    result = {"machine": {**MACHINE, "products": "blas"}, "commit": "a", "date": "b"}
    assert ", Linux, npgpt's products by NumPy's BLAS; Python" in tables.measured(result)
    for machine in (MACHINE, {**MACHINE, "products": "kernel"}):
        assert "BLAS" not in tables.measured({**result, "machine": machine})


def test_one_slow_measurement_of_many_does_not_widen_what_is_shown():
    assert tables.spread([1.0, 1.2, 1.1, 1.3, 99.0]) == "1.20 (1.10 to 1.30)"
    assert tables.spread([1.0, 99.0, 1.1]) == "1.10"


@pytest.mark.parametrize(
    ("system", "own"),
    [
        ("PyTorch, eager", "npgpt"),
        ("NumPy's products + AdamW", "npgpt"),
        ("PyTorch, bf16, compiled", "npgpt, bf16"),
        ("npgpt, bf16x3", "npgpt, bf16x3"),
        ("transformers, bf16", "npgpt, bf16"),
        ("PyTorch, bf16 and casts", "npgpt, bf16"),
    ],
)
def test_a_system_is_compared_with_npgpt_in_its_precision(system, own):
    assert tables.own_name(system) == own


def test_the_readmes_table_takes_steps_without_pytorch_or_bf16(tmp_path):
    content = {**CONTENTS["step"], "systems": {"npgpt": run(2.0)}}
    results.write_result("step", "step_4x64", MACHINE, content, tmp_path)
    summary = report.summary(results.read_results(tmp_path))
    assert summary[0].endswith(", fp32 |")
    assert summary[2].endswith("B=4, T=64 | 2.00 s |")


@pytest.mark.parametrize("program", CONTENTS)
def test_the_page_takes_whatever_there_is(program, tmp_path):
    results.write_result(program, program, MACHINE, CONTENTS[program], tmp_path)
    assert report.page(results.read_results(tmp_path)).count("\n## ") == 2  # and how to measure


def test_without_results_the_page_says_so_and_how_to_make_them(tmp_path):
    page = report.page(results.read_results(tmp_path))
    assert "No results yet." in page and "python -m bench.step" in page
    assert "doc/figures.md" in report.summary({})[0]


def test_the_chart_is_a_picture_of_its_result(written, tmp_path):
    pytest.importorskip("matplotlib")
    result = results.read_result(written / "intel-amx" / "step_4x64.json")
    charts.draw(tmp_path / "a.png", result)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG") and charts.digest(result).encode() in content
    result["systems"]["npgpt"]["seconds"][0] += 1
    assert charts.digest(result).encode() not in content


@pytest.mark.parametrize("missing", results.REQUIRED)
def test_a_result_that_does_not_say_where_it_is_from_is_refused(missing, written):
    path = written / "intel-amx" / "step_4x64.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[missing]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FileError, match=f"^{path}: not a result: it has no {missing}$"):
        results.read_results(written)


@pytest.mark.parametrize("text", ["[]", "not JSON", ""])
def test_what_is_no_result_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match="not a result"):
        results.read_result(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("cpu", "extensions", "name"),
    [
        ("Intel(R) Xeon(R) Processor", "avx2 avx512f avx512bf16 amx-bf16", "intel-amx"),
        ("AMD EPYC", "avx2 avx512f avx512bf16", "amd-avx512bf16"),
        ("Intel(R) Core(TM) i7", "avx2", "intel-avx2"),
        ("arm", "", "arm"),
        ("", "", "unknown"),
    ],
)
def test_a_machines_folder_says_its_kind(cpu, extensions, name):
    assert results.slug({"cpu": cpu, "extensions": extensions}) == name


def test_a_commit_is_dirty_where_more_than_results_differs(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git")

    def git(*arguments):
        names = ["-c", "user.name=A", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *names, *arguments], check=True, capture_output=True)

    assert results.commit(tmp_path) == "unknown"
    git("init")
    assert results.commit(tmp_path) == "unknown"  # no commit yet
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "One")
    name = results.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]+", name)
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "a.json").write_text("{}")
    assert results.commit(tmp_path) == name
    (tmp_path / "a.py").write_text("2")
    assert results.commit(tmp_path) == f"{name}-dirty"


PRIVATE = r"\b(busy hour|calm|npgpt's / |/ it\b|units for|factors?|rooms? of|version before)"


def test_the_page_has_the_fields_words(written):
    assert not re.findall(PRIVATE, report.page(results.read_results(written)))
    assert not re.findall(PRIVATE, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert re.findall(PRIVATE, "in a busy hour, npgpt's / its, on units for bf16")


def test_the_accuracy_of_the_tiny_pair_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "available", lambda: ["fp32"])
    assert accuracy.main(["--model", str(TINY_MODEL), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*/accuracy_tiny.json")
    (found,) = results.read_result(path)["precisions"].values()
    assert 0 < found["logits"]["largest"] < 1e-4 and max(found["losses"]) < 1e-4
    assert len(found["gradients"]) == 16
    assert all(0 < gradient["l2"] < 1e-4 for gradient in found["gradients"].values())
    assert "70,608 parameters" in capsys.readouterr().out


def test_a_wrong_gradient_shows_in_the_accuracy(params, state):
    import npgpt
    from npgpt.formats.reference_losses import ReferenceLosses

    state.grads.wpe[0, 0] += 1
    model = npgpt.GPT2(params.config, params=params)
    found = accuracy.compare(model, state, ReferenceLosses([float(state.loss)], 1e-4, 0.0, ""))
    assert found["gradients"]["wpe"]["largest"] > 0.9
    assert found["gradients"]["wte"]["largest"] < 1e-4


def test_every_program_has_a_section_a_title_and_a_table():
    assert set(report.SECTIONS) == set(tables.BODIES) == set(tables.TITLES) == set(CONTENTS)
