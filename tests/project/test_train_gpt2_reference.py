"""scripts/train_gpt2.py, the PyTorch reference, and npgpt against what it writes."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, run_here

from npgpt import GPT2, layers, read_checkpoint, read_debug_state, write_checkpoint
from npgpt.formats.debug_state import write_debug_state
from npgpt.test_gpt2 import main

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "scripts" / "train_gpt2.py"
ODD = "--n-layer 3 --n-head 3 --n-embd 21 --vocab-size 133 --block-size 11 -B 3 -T 7".split()


def reference(folder, *args, status=0):
    return run_here(SCRIPT, "--out", folder, "--name", "m", *args, status=status)


def test_without_pytorch_it_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError(name='torch')")
    command = [sys.executable, "-c", f"exec(open({str(SCRIPT)!r}).read())"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: torch is missing: {sys.executable} -m pip install torch\n"


@pytest.mark.reference
class TestWithPyTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="needs the extra `reference`")

    @pytest.mark.parametrize("version", [1, 3, 5])
    @pytest.mark.parametrize("init", [[], ["--spread", "0.3", "--weight-decay", "0.1"]])
    def test_npgpt_agrees_in_every_version(self, version, init, tmp_path, capsys):
        out = reference(tmp_path, *ODD, *init, "--version", str(version), "--lr", "1e-3")
        assert "16 tokens: [" in out
        tight = ["logits=1e-4", "loss=1e-5", "grads=1e-5", "losses=1e-4"]
        assert main(["--model", str(tmp_path / "m.bin"), "--tolerance", *tight]) == 0
        out = capsys.readouterr().out
        assert sum(line.startswith("step") and "  OK" in line for line in out.splitlines()) == 10

    @pytest.mark.parametrize("size", ["--n-embd 1 --n-head 1", "--vocab-size 1", "-T 1", "-B 1"])
    def test_npgpt_agrees_at_the_smallest_sizes(self, size, tmp_path):
        reference(tmp_path, *ODD, *size.split())
        assert main(["--model", str(tmp_path / "m.bin")]) == 0

    @pytest.mark.parametrize("version", [1, 3, 5])
    def test_npgpt_writes_what_it_writes_byte_for_byte(self, version, tmp_path):
        reference(tmp_path, *ODD, "--version", str(version))
        model, state = tmp_path / "m.bin", tmp_path / "m_debug_state.bin"
        params = read_checkpoint(model)
        write_checkpoint(tmp_path / "copy.bin", params, version)
        assert (tmp_path / "copy.bin").read_bytes() == model.read_bytes()
        write_debug_state(
            tmp_path / "copy.bin", read_debug_state(state, params), 1 if version == 1 else 2
        )
        assert (tmp_path / "copy.bin").read_bytes() == state.read_bytes()

    def test_it_takes_tokens_from_a_file(self, tmp_path):
        from npgpt.data.token_files import write_tokens

        tokens = np.arange(22) * 6
        for format in ("llmc", "int32"):
            write_tokens(tmp_path / "t.bin", tokens, format)
            reference(tmp_path, *ODD, "--tokens", str(tmp_path / "t.bin"))
            state = read_debug_state(
                tmp_path / "m_debug_state.bin", read_checkpoint(tmp_path / "m.bin")
            )
            np.testing.assert_array_equal(state.x.reshape(-1), tokens[:-1])
            np.testing.assert_array_equal(state.y.reshape(-1), tokens[1:])

    def test_transformers_weights_give_transformers_logits_and_gradients(self, torch, tmp_path):
        transformers = pytest.importorskip("transformers", reason="needs the extra `reference`")
        config = transformers.GPT2Config(
            vocab_size=133, n_positions=11, n_embd=24, n_layer=2, n_head=3,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, initializer_range=0.3,
        )  # fmt: skip
        torch.manual_seed(1)
        theirs = transformers.GPT2LMHeadModel(config)
        theirs.save_pretrained(tmp_path / "folder")
        weights = ["--model", str(tmp_path / "folder"), "-B", "2"]
        said = reference(tmp_path, *weights, "-T", "12", status=2)
        assert said.endswith("error: T 12 must be at most the block_size, 11\n")
        reference(tmp_path, *weights, "-T", "9")
        assert main(["--model", str(tmp_path / "m.bin")]) == 0

        model = GPT2.from_checkpoint(tmp_path / "m.bin")
        state = read_debug_state(tmp_path / "m_debug_state.bin", model.params)
        x, y = (torch.from_numpy(ids.astype(np.int64)) for ids in (state.x, state.y))
        logits = theirs(x).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
        np.testing.assert_allclose(
            model.forward(state.x), logits.detach().numpy(), rtol=1e-4, atol=1e-4
        )
        model.forward_backward(state.x, state.y)
        of_theirs = theirs.transformer.h[1].mlp.c_fc.weight.grad.T.numpy()  # Conv1D is (in, out)
        np.testing.assert_allclose(model.grads.fcw[1], of_theirs, rtol=1e-3, atol=1e-6)

    def test_ignored_targets_are_pytorchs(self, torch, rng):
        x, wte = rng.standard_normal((2, 5, 4)), rng.standard_normal((6, 4))
        targets = np.array([[0, -1, 5, 2, -1], [-1, 1, 1, -1, 3]])
        tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(wte, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(
            (tx @ tw.T).flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=-1
        )
        expected.backward()
        loss, cache = layers.crossentropy_forward(x, wte, targets)
        dx, dwte = layers.crossentropy_backward(1.0, cache)
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
        np.testing.assert_allclose(dx, tx.grad, atol=1e-12)
        np.testing.assert_allclose(dwte, tw.grad, atol=1e-12)

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["-T", "12"], "T 12 must be at most the block_size, 11"),
            (["--lr", "nan"], "lr must be a finite number from 0, not nan"),
            (["--spread", "-1"], "spread must be a finite number from 0, not -1.0"),
            (["--seed", "-1"], "seed must be from 0 to"),
            (["--tokens", "odd"], "odd: not a token file"),
            (["--tokens", "beyond"], "tokens must be from 0 to 132, but run from -5 to 1"),
            (["-B", "0"], "B must be at least 1, not 0"),
            (["--n-head", "2"], "n_embd 21 must be divisible by n_head 2"),
            (["--tokens", "none.bin"], "none.bin: No such file or directory"),
            (["--tokens", str(SCRIPT.parent)], "Is a directory"),
            (["--model", "/none"], "/none: cannot be had"),
        ],
    )
    def test_bad_usage_is_one_sentence(self, args, message, tmp_path, monkeypatch):
        pytest.importorskip("transformers", reason="needs the extra `reference`")
        files = tmp_path / "files"
        files.mkdir()
        (files / "odd").write_bytes(b"odd")
        (files / "beyond").write_bytes(np.array([-5] + [1] * 21, "<i4").tobytes())
        monkeypatch.chdir(files)
        said = reference(tmp_path / "out", *ODD, *args, status=2)
        assert said.startswith("error: ") and message in said and said.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.reference
@pytest.mark.full_size
def test_gpt2_124M_agrees(tmp_path):
    """The real size: each element of the gradients within 1e-5, and the peak memory."""
    pytest.importorskip("torch", reason="needs the extra `reference`")
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--name", "m", "-B", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    code = (
        "import resource, sys; from npgpt.test_gpt2 import main; status = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    tolerances = ["logits=5e-5", "loss=1e-5", "grads=1e-5", "losses=1e-4"]
    args = ["--model", str(tmp_path / "m.bin"), "--tolerance", *tolerances]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    gradients = [line.split() for line in lines if line.startswith("d")]
    assert len(gradients) == 16
    assert all(float(absolute) <= 1e-5 for _, absolute, *_ in gradients)
    assert sum(line.startswith("step") and "  OK" in line for line in lines) == 10
    assert int(lines[-1]) / 1024**2 < 3.5  # GiB; ru_maxrss is in KiB
