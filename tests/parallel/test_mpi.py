"""Two ranks that mpiexec starts: a run, a rank that is killed or stopped, what is missing."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.formats.run_checkpoint import checkpoint_folder, checkpoint_steps, load_checkpoint
from npgpt.wording import command as npgpt_command
from npgpt.wording import install_extra

MPIEXEC = next(
    (
        str(path)
        for path in (Path(sys.executable).with_name("mpiexec"), shutil.which("mpiexec"))
        if path and Path(path).exists()
    ),
    None,
)
has_mpi = find_spec("mpi4py") is not None and MPIEXEC is not None


def needs_mpi(test):
    """A slow test, skipped where there is no MPI."""
    why = "needs mpi4py and an mpiexec: pip install -e '.[mpi]'"
    return pytest.mark.slow(pytest.mark.skipif(not has_mpi, reason=why)(test))


TIMEOUT = 4  # seconds after which a silent rank is lost
LONGEST = 240  # seconds of a run, after which it hangs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with tokens, for runs whose kernels are compiled."""
    folder = tmp_path_factory.mktemp("mpi")
    letters = np.random.default_rng(7).integers(97, 123, 4000)
    letters[::10] = 256
    for name in ("train", "val"):
        write_tokens(folder / f"{name}.bin", letters)
        write_tokenizer(folder / f"{name}.bin", {"name": "bytes"})
    return folder


def command(*words, ranks=2):
    """The command that starts ranks of `npgpt`."""
    return [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "npgpt", *map(str, words)]


def training(folder, name, **changes):
    settings = {
        "train": folder / "train.bin", "val": folder / "val.bin", "run": folder / name,
        "n_layer": 2, "n_head": 2, "n_embd": 16, "B": 2, "T": 16, "lr": 1e-2, "clip": 0.5,
        "steps": 10, "val_every": 5, "checkpoint_every": 5, "order": "documents", **changes,
    }  # fmt: skip
    return ["train", *(f"--{key.replace('_', '-')}={value}" for key, value in settings.items())]


def start(words, start_new_session=False, **env):
    """Start a command, as Open MPI allows it to root and on few cores."""
    allowed = {
        f"{name}_ALLOW_RUN_AS_ROOT{also}": "1"
        for name in ("OMPI", "PRTE")
        for also in ("", "_CONFIRM")
    }
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=start_new_session,
        env={**os.environ, "PYTHONPATH": str(ROOT), **allowed, **env},
    )  # fmt: skip


def finish(process):
    """Its exit status and what it has printed."""
    try:
        out, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return np.array([line.get("loss", line.get("val_loss")) for line in lines])


@needs_mpi
def test_two_ranks_train_as_one_and_rank_0_speaks_for_both(folder):
    status, out, err = finish(start(command(*training(folder, "two"))))
    assert status == 0, err
    assert out.count("done: 10 steps") == 1 and "2 ranks: 2 sequences of an update" in out
    one = [sys.executable, "-m", "npgpt", *map(str, training(folder, "one", B=4))]
    assert finish(start(one))[0] == 0
    np.testing.assert_allclose(losses(folder / "two"), losses(folder / "one"), rtol=0, atol=1e-5)
    words = ["eval", "--model", folder / "one", "--tokens", folder / "val.bin"]
    _, alone, _ = finish(start([sys.executable, "-m", "npgpt", *map(str, words)]))
    status, shared, err = finish(start(command(*words)))
    assert status == 0, err
    without_speed = [re.sub(r"(?m)^tokens/s .*\n", "", text) for text in (shared, alone)]
    assert without_speed[0] == without_speed[1] != shared and "bits/byte" in shared


@needs_mpi
def test_two_ranks_train_as_one_with_dropout_and_muon(folder):
    options = {"optimizer": "muon", "dropout": 0.2, "steps": 5}
    words = [*training(folder, "two_muon", **options), "--no-shard-optimizer"]
    status, _, err = finish(start(command(*words)))
    assert status == 0, err
    one = [sys.executable, "-m", "npgpt", *map(str, training(folder, "one_muon", B=4, **options))]
    assert finish(start(one))[0] == 0
    found, expected = losses(folder / "two_muon"), losses(folder / "one_muon")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    plain = losses(folder / "two")[: len(found)]
    assert np.abs(found - plain).max() > 1e-2
    status, _, err = finish(start(command(*training(folder, "refused", **options))))
    assert status == 2 and err.count("error:") == 1 and "give --no-shard-optimizer" in err
    assert not (folder / "refused").exists()


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_lost_is_named_and_the_run_goes_on_from_its_checkpoint(folder, number):
    run = folder / number.name
    words = training(folder, number.name, steps=1_000_000, val_every=0)
    process = start(command(*words), NPGPT_RANK_TIMEOUT=str(TIMEOUT))
    begin = time.monotonic()
    while not (run.exists() and checkpoint_steps(run)) and time.monotonic() - begin < LONGEST:
        time.sleep(0.05)
    rank_1 = next(pid for pid in ranks_of(run) if pid != holder(run))
    os.kill(rank_1, number)
    begin = time.monotonic()
    status, _, err = finish(process)
    assert status != 0 and time.monotonic() - begin < TIMEOUT + 8
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, err
    assert told[0].startswith(f"error: rank 1 (process {rank_1} on ")
    reason = "was killed by SIGKILL" if number == signal.SIGKILL else "has not answered for 4 s"
    assert reason in told[0]
    assert ranks_of(run) == []
    last = checkpoint_steps(run)[-1]
    load_checkpoint(checkpoint_folder(run, last), ("m", "v"))
    resume = ["train", "--resume", str(run), f"--steps={last + 2}"]
    status, out, err = finish(start([sys.executable, "-m", "npgpt", *resume]))
    assert status == 0 and f"done: {last + 2:,} steps" in out, err


def ranks_of(run):
    """The processes that train in a folder, without mpiexec and the ranks' supervisors."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environ = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_rank = any(word.startswith(b"NPGPT_SUPERVISED=") for word in environ)
        if is_rank and f"--run={run}".encode() in words:
            found.append(int(path.name))
    return found


def holder(run):
    """The process that is rank 0: it has the run's lock open."""
    lock = (run / "lock").resolve()
    for pid in ranks_of(run):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            if handle.resolve() == lock:
                return pid
    return None


def as_rank_1(words, **env):
    """Start a process as rank 1 of 2, in vain: there is no mpiexec."""
    return start([sys.executable, "-m", "npgpt", *words], PMI_RANK="1", PMI_SIZE="2", **env)


@pytest.mark.skipif(os.name != "posix", reason="needs what mpiexec sets")
def test_without_mpi4py_one_sentence_tells_what_is_missing(folder, tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('none')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    what = f"2 ranks were started, but they need the package mpi4py: {install_extra('mpi')}\n"
    words = training(folder, "no")
    rank_0 = start(
        [sys.executable, "-m", "npgpt", *words], PMI_RANK="0", PMI_SIZE="2", PYTHONPATH=path
    )
    assert finish(rank_0) == (2, "", f"error: {what}")
    # mpiexec would have ended it by now, had all ranks had this error
    rank_1 = as_rank_1(words, PYTHONPATH=path)
    assert finish(rank_1) == (2, "", f"error: rank 1 on {socket.gethostname()}: {what}")
    assert not (folder / "no").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs what mpiexec sets")
def test_what_only_another_ranks_host_lacks_is_told(tmp_path):
    settings = tmp_path / "none.toml"
    status, out, err = finish(as_rank_1(["train", "--config", str(settings)]))
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"error: rank 1 on {socket.gethostname()}: {settings}: ")


@pytest.mark.skipif(os.name != "posix", reason="needs Unix's timers")
def test_a_rank_does_not_wait_for_ever_for_others_to_start(folder, tmp_path):
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("class rc: pass\n")
    (package / "MPI.py").write_text("import time\ntime.sleep(60)\n")
    code = (
        "import sys; from npgpt.parallel import mpi; from npgpt.train_gpt2 import main;"
        f"mpi.JOINING = 0.5; sys.exit(main({[*map(str, training(folder, 'no')[1:])]!r}))"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = [sys.executable, "-c", code]
    status, _, err = finish(start(words, PMI_RANK="0", PMI_SIZE="2", PYTHONPATH=path))
    assert status == 128 + signal.SIGALRM
    assert re.fullmatch(r"error: rank 0 \(.*\) has waited in vain for all others to start\n", err)


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_the_run_of_all_ranks(folder, number):
    version = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout
    if "HYDRA" not in version:
        pytest.skip("of the MPIs, MPICH's mpiexec passes signals on; Open MPI's ends the ranks")
    run = folder / f"stopped_{number.name}"
    words = training(folder, run.name, steps=1_000_000, val_every=0)
    process = start(command(*words), start_new_session=True)
    begin = time.monotonic()
    while not (run.exists() and checkpoint_steps(run)) and time.monotonic() - begin < LONGEST:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does
    status, out, err = finish(process)
    assert ranks_of(run) == []
    step = checkpoint_steps(run)[-1]
    again = f"mpiexec -n 2 {npgpt_command('train', '--resume', run)}"
    assert f"stopped after step {step}; continue with: {again}\n" in out
    load_checkpoint(checkpoint_folder(run, step), ("m", "v"))


def test_nothing_of_mpi_is_imported_by_a_process_alone(folder):
    code = (
        "import sys; from npgpt.train_gpt2 import main;"
        f"assert main({training(folder, 'alone', steps=1)[1:]!r}) == 0;"
        "assert not [name for name in sys.modules if 'mpi' in name.split('.')[0]]"
    )
    status, _, err = finish(start([sys.executable, "-c", code]))
    assert status == 0, err
