"""The products in bf16, against those of the rounded operands in float64."""

import contextlib

import numba
import numpy as np
import pytest
from helpers import computing_in

import npgpt
from npgpt.core.precision import at_least_bf16x3, current_bf16_terms
from npgpt.errors import ArgumentError
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.products import amx, avx512_bf16
from npgpt.kernels.products.gemm import SCRATCH_SIZE
from npgpt.kernels.products.gemm_bf16 import EDGE_SIZE, KC, gemm_bf16_for
from npgpt.kernels.products.gemv import GEMV_MAX_ROWS
from npgpt.kernels.products.pack_bf16 import NR, PANEL_TILES, TILE_PAIRS, TILE_ROWS, pack
from npgpt.kernels.products.product import SHARED_PACK_MIN_ROWS, product
from npgpt.kernels.products.shared_pack_bf16 import NC, product_shared_pack
from npgpt.model.decoder import Decoder

pytestmark = pytest.mark.slow

needs_bf16 = pytest.mark.usefixtures("hardware")
NO_INIT = np.empty((0, 0), np.float32)
SPLIT_ERROR = 2e-5  # of bf16x3, root mean square, as a part of the result's own spread


@pytest.fixture(params=[False, True])
def shared_pack(request, monkeypatch):
    """Each thread packs b for itself, or all share it, however many rows there are."""
    monkeypatch.setattr(
        "npgpt.kernels.products.product.SHARED_PACK_MIN_ROWS", 0 if request.param else 1 << 40
    )
    return request.param


def test_what_the_cpu_has_is_what_multiplies(hardware, request):
    name = gemm_bf16_for(1).py_func.__name__
    assert name.endswith("_avx512") == ("avx512" in request.node.name)


def rounded(x):
    """x to the nearest bf16, of two the even one."""
    bits = x.view(np.uint32).astype(np.uint64)
    even = bits >> 16 & 1
    return (bits + 0x7FFF + even >> 16 << 16).astype(np.uint32).view(np.float32)


def operands(rng, layout, M, K, N):
    x = rng.standard_normal((M, K), np.float32)
    y = rng.standard_normal((K, N), np.float32)
    x = np.asfortranarray(x) if "X" in layout else x
    y = np.asfortranarray(y) if "Y" in layout else y
    return x, y


@needs_bf16
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("layout", ["xy", "Xy", "xY", "XY"])  # a capital letter: transposed
@pytest.mark.parametrize(
    "M, K, N",
    [(1, 1, 1), (32, 32, 32), (33, 50, 70), (300, 1000, 100), (16, 3, 2000), (20, 40, NC + 50)],
)
def test_a_product_is_that_of_the_rounded_operands(M, K, N, layout, add, shared_pack, rng):
    x, y = operands(rng, layout, M, K, N)
    out = np.full((M, N + 3), 7.0, np.float32)
    with computing_in("bf16"):
        product(x, y, out[:, :N], add=add)
    expected = rounded(x.copy()).astype(float) @ rounded(y.copy()).astype(float) + 7 * add
    np.testing.assert_allclose(out[:, :N], expected, rtol=1e-5, atol=1e-5 * np.sqrt(K))
    assert (out[:, N:] == 7).all()


@needs_bf16
def test_a_shared_pack_is_for_many_rows_a_thread(monkeypatch):
    rows, most = [], SHARED_PACK_MIN_ROWS * numba.get_num_threads()
    monkeypatch.setattr(
        "npgpt.kernels.products.product.product_shared_pack", lambda x, *others: rows.append(len(x))
    )
    for name in ("fp32", "bf16"):
        for M in (most, most + 1):
            x, y = np.ones((M, 3), np.float32), np.ones((3, 5), np.float32)
            with computing_in(name):
                product(x, y, np.empty((M, 5), np.float32))
    assert rows == [most + 1]


@needs_bf16
@pytest.mark.parametrize("K", [0, 70, KC + 5])  # of 0, 1 and 2 blocks
def test_a_bias_is_in_every_row(K, shared_pack, rng):
    x, y = operands(rng, "xY", 19, K, 100)
    b, plain, out = rng.standard_normal(100, np.float32), *np.empty((2, 19, 100), np.float32)
    with computing_in("bf16"):
        product(x, y, plain)
        product(x, y, out, b=b)
    np.testing.assert_allclose(out, plain + b, rtol=1e-5, atol=1e-5)


@needs_bf16
def test_nothing_is_added_to_what_is_there(shared_pack):
    out = np.full((19, 100), 7, np.float32)
    with computing_in("bf16"):
        product(np.empty((19, 0), "f4"), np.empty((0, 100), "f4"), out, add=True)
    assert (out == 7).all()


def test_a_product_stays_within_its_workspace(coarse, shared_pack, rng):
    """With one panel more than fit into one, two, ... blocks, and with just as many."""
    split = coarse == "bf16x3"
    K, guard = KC // (1 + split), 1000
    workspace = (
        SCRATCH_SIZE - EDGE_SIZE - (0 if shared_pack else NR * KC // 2)
    )  # pairs, of blocks of a
    fitting = workspace // (KC * TILE_ROWS // 2)
    for panels in (fitting, fitting + 1, 2 * fitting, 2 * fitting + 1, 3 * fitting + 1):
        a, b = operands(rng, "xy", TILE_ROWS * panels - 3, K, 50)
        scratch, c = empty((SCRATCH_SIZE + guard,), np.float32), np.empty((len(a), 50), np.float32)
        scratch[-guard:] = 7
        if shared_pack:
            product_shared_pack(a, b, c, NO_INIT, scratch[None, :-guard], 1 + split)
        else:
            gemm_bf16_for(1 + split)(a, b, c, NO_INIT, scratch[:-guard])
        assert (scratch[-guard:] == 7).all(), panels
        expected = a.astype(float) @ b if split else rounded(a).astype(float) @ rounded(b)
        np.testing.assert_allclose(c, expected, rtol=1e-3, atol=5e-3)


def test_a_shared_pack_stays_within_its_workspace(coarse, monkeypatch, rng):
    """As wide as they can be, and two of them."""
    n_terms = 1 + (coarse == "bf16x3")
    guard, workspaces = 1000, []

    def guarded(shape, dtype):
        workspaces.append(np.full(shape[0] + guard, 7, dtype))
        return workspaces[-1][:-guard]

    monkeypatch.setattr("npgpt.kernels.products.shared_pack_bf16.empty", guarded)
    a, b = operands(rng, "xY", 20, KC // n_terms + 1, NC + 1)
    c, scratch = np.empty((20, NC + 1), np.float32), empty((2, SCRATCH_SIZE), np.float32)
    product_shared_pack(a, b, c, NO_INIT, scratch, n_terms)
    assert len(workspaces) == 1 and (workspaces[0][-guard:] == 7).all()
    assert (workspaces[0][:-guard] != 7).any()
    np.testing.assert_allclose(c, a.astype(float) @ b, rtol=3e-2, atol=0.5)


@needs_bf16
@pytest.mark.parametrize("M, K, N", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (17, 5, 49)])
def test_a_thread_may_have_nothing_to_do(M, K, N):
    c, scratch = np.full((M, N), 7, np.float32), empty((SCRATCH_SIZE,), np.float32)
    a, b = np.ones((M, K), "f4"), np.ones((K, N), "f4")
    gemm_bf16_for(1)(a, b, c, NO_INIT, scratch)
    assert (c == K).all()
    c[:] = 7
    product_shared_pack(a, b, c, NO_INIT, empty((5, SCRATCH_SIZE), np.float32), 1)
    assert (c == K).all()


@needs_bf16
def test_operands_need_not_be_dense(rng):
    x, y = rng.standard_normal((40, 140), np.float32), rng.standard_normal((140, 100), np.float32)
    x, y, out = x[:, ::2], y[::2, ::2], np.empty((40, 50), np.float32)
    with computing_in("bf16"):
        product(x, y, out)
    expected = rounded(x.copy()).astype(float) @ rounded(y.copy())
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", ["xy", "Xy", "xY", "XY"])
@pytest.mark.parametrize("M, K, N", [(33, 50, 70), (300, 3072, 100)])
@pytest.mark.parametrize("hardware", ["amx"], indirect=True)
@needs_bf16
def test_split_operands_are_nearly_as_exact_as_float32(M, K, N, layout, shared_pack, rng):
    x, y = operands(rng, layout, M, K, N)
    out, expected = np.empty((M, N), np.float32), x.astype(float) @ y.astype(float)
    with computing_in("bf16x3"):
        product(x, y, out)
    assert np.sqrt(np.mean((out - expected) ** 2)) < SPLIT_ERROR * expected.std()
    with computing_in("bf16"):  # the same bound does not hold for what is only rounded
        product(x, y, out)
    assert np.sqrt(np.mean((out - expected) ** 2)) > 50 * SPLIT_ERROR * expected.std()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_its_row_alone(coarse, bad, rng):
    x, y = operands(rng, "xy", 40, 50, 60)
    x[3, 5] = bad
    out = np.empty((40, 60), np.float32)
    with computing_in(coarse):
        product(x, y, out)
    assert not np.isfinite(out[3]).any()
    assert np.isfinite(np.delete(out, 3, 0)).all()


@pytest.mark.parametrize(
    "rows", [SHARED_PACK_MIN_ROWS - 56, SHARED_PACK_MIN_ROWS + 44, 2 * SHARED_PACK_MIN_ROWS + 188]
)
def test_a_product_is_the_same_on_any_number_of_threads(coarse, rows, rng, numba_threads):
    x, y = operands(rng, "xY", rows, 800, 700)
    results = []
    for count in (1, 2):
        numba_threads(count)
        out = np.empty((rows, 700), np.float32)
        with computing_in(coarse):
            product(x, y, out)
        results.append(out)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("hardware", ["avx512"], indirect=True)
@needs_bf16
def test_without_tiles_bf16x3_is_float32(params, state):
    def gradients(precision):
        model = npgpt.GPT2(params.config, params=params, precision=precision)
        model.forward_backward(state.x, state.y)
        return model.grads.flat

    np.testing.assert_array_equal(gradients("bf16x3"), gradients("fp32"))
    assert (gradients("bf16x3") != gradients("bf16")).any()


@pytest.mark.usefixtures("bf16_hardware")
@pytest.mark.parametrize("layout", ["x", "X"])
@pytest.mark.parametrize("n, K", [(16, 32), (48, 64), (50, 70), (7, 5)])
@pytest.mark.parametrize("transposed, panel_tiles", [(False, 1), (True, PANEL_TILES)])
@pytest.mark.parametrize("n_terms", [1, 2])
def test_panels_have_every_element_in_its_place(
    n, K, layout, transposed, panel_tiles, n_terms, rng
):
    x, _ = operands(rng, layout.replace("x", "xy"), n, K, 1)
    wide, steps = TILE_ROWS * panel_tiles, -(-K // 32)
    panels = np.full(-(-n // wide) * steps * TILE_PAIRS * panel_tiles * n_terms, 7, np.uint32)
    pack(x, panels, transposed, n_terms, panel_tiles)
    tiles = panels.view(np.uint16).reshape(-1, n_terms, steps, panel_tiles, TILE_ROWS, TILE_ROWS, 2)
    if transposed:  # [pair, row] -> [row, pair]
        tiles = tiles.swapaxes(4, 5)
    # panel, term, step, tile, row, pair, half -> term; panel, tile, row; step, pair, half
    bits = tiles.transpose(1, 0, 3, 4, 2, 5, 6).reshape(n_terms, -1, 32 * steps)
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    rest = x.copy()
    for term in values:
        np.testing.assert_array_equal(term[:n, :K], rounded(rest.copy()))
        rest -= term[:n, :K]
        assert not term[n:].any() and not term[:, K:].any()


@needs_bf16
def test_what_must_be_finer_than_bf16_is_bf16x3(rng):
    x, y = operands(rng, "xy", 40, 50, 60)

    def result(*contexts):
        out = np.empty((40, 60), np.float32)
        with contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            product(x, y, out)
        return out

    split = result(computing_in("bf16x3"))
    np.testing.assert_array_equal(result(computing_in("bf16"), at_least_bf16x3()), split)
    np.testing.assert_array_equal(result(computing_in("bf16x3"), at_least_bf16x3()), split)
    np.testing.assert_array_equal(result(at_least_bf16x3()), result(computing_in("fp32")))
    assert (split != result(computing_in("bf16"))).any()
    assert (split != result(computing_in("fp32"))).any() == amx.available()


@needs_bf16
def test_queries_and_keys_are_finer_than_bf16(monkeypatch, params, state):
    """Without that, the loss in bf16 is another one."""
    model = npgpt.GPT2(params.config, params=params, precision="bf16")
    loss = model.loss(state.x, state.y)
    monkeypatch.setattr("npgpt.model.passes.at_least_bf16x3", contextlib.nullcontext)
    assert model.loss(state.x, state.y) != loss


@needs_bf16
def test_generation_multiplies_in_bf16x3_at_least(monkeypatch, params, state):
    model, seen = npgpt.GPT2(params.config, params=params, precision="bf16"), []

    def spied(self, tokens, kv, at, whole=Decoder.step):
        seen.append(current_bf16_terms())
        return whole(self, tokens, kv, at)

    monkeypatch.setattr(Decoder, "step", spied)
    prompt = np.tile(state.x[:1, :1], (GEMV_MAX_ROWS + 1, 1))  # (B, 1)
    model.generate(prompt, 1)
    with model.computing(1.0):
        assert current_bf16_terms() == 1  # elsewhere this model multiplies in bf16
    assert seen == [2]


def test_gradients_are_near_those_of_float32(coarse, params, state):
    bound = {"bf16x3": 1e-4, "bf16": 3e-2}[coarse]

    def gradients(**options):
        model = npgpt.GPT2(params.config, params=params, **options)
        model.forward_backward(state.x, state.y)
        return model.grads.flat

    exact = gradients()
    error = np.linalg.norm(gradients(precision=coarse) - exact) / np.linalg.norm(exact)
    assert 1e-7 < error < bound


def test_a_machine_without_bf16_hardware_refuses_it_in_a_sentence(monkeypatch, params):
    monkeypatch.setattr(amx, "available", lambda: False)
    monkeypatch.setattr(avx512_bf16, "available", lambda: False)
    with pytest.raises(ArgumentError, match="precision bf16 needs a CPU with AMX tiles or AVX-512"):
        npgpt.GPT2(params.config, precision="bf16")
    npgpt.GPT2(params.config, precision="fp32")


def test_an_unknown_precision_is_refused(params, monkeypatch):
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: True)
    with pytest.raises(ArgumentError, match="must be one of fp32, bf16x3, bf16, not 'fp16'"):
        npgpt.GPT2(params.config, precision="fp16")
    with pytest.raises(ArgumentError, match="precision bf16 needs backend numba, not numpy"):
        npgpt.GPT2(params.config, precision="bf16", backend="numpy")
