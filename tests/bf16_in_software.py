"""A plugin of pytest: the tests of bf16 on a CPU with AVX-512 that lacks the hardware, or some.

NUMBA_CACHE_DIR=$(mktemp -d) PYTHONPATH=tests python -m pytest --slow -p bf16_in_software

Where a kernel has an instruction of AMX, or of AVX-512 for bf16, that the CPU lacks, it is compiled
with others that compute the same, but for the order of some sums, denormals and the bits of nan. So
a kernel's packing, indices and sums are tested, and that it has configured its tiles; not how, nor
the instructions themselves, nor the speed.
"""

import os

import pytest
from llvmlite import ir
from numba.core import cgutils

from npgpt.kernels.codegen.vectors import broadcast, cpu_features, fma_of, shuffle
from npgpt.kernels.products import amx, avx512_bf16
from npgpt.kernels.products.pack_bf16 import Bfloat
from npgpt.model import second_compiler

HARDWARE = {"hardware", "bf16_hardware", "coarse"}  # fixtures that ask for it
ASKING = {"test_tables.py", "test_bench_products.py"}  # files with tests that ask by themselves

LANES, N_TILES = 16, 8
WORDS = ir.VectorType(ir.IntType(32), LANES)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
BITS = ir.VectorType(ir.IntType(16), 2 * LANES)
HALVES = ir.VectorType(Bfloat(), 2 * LANES)
TILES = ir.ArrayType(ir.ArrayType(WORDS, LANES), N_TILES)
INT64, FLAG = ir.IntType(64), ir.IntType(1)


def pytest_configure():
    features = cpu_features()
    if "avx512f" not in features or {"avx512bf16", "amx-bf16"} <= features:
        raise pytest.UsageError("bf16 in software is for a CPU with AVX-512, but not with AMX")
    if "NUMBA_CACHE_DIR" not in os.environ:
        raise pytest.UsageError(
            "set NUMBA_CACHE_DIR to an empty folder: what is compiled must not be taken for"
            " the hardware's later"
        )
    amx.available, amx.emit = lambda: True, emit
    if "avx512bf16" not in features:
        avx512_bf16.available = lambda: True
        cgutils.get_or_insert_function = get_or_insert_function
    second_compiler._started = True  # for it would be a process without this plugin


def pytest_collection_modifyitems(config, items):
    others = [item for item in items if not needs_bf16(item)]
    items[:] = [item for item in items if needs_bf16(item)]
    config.hook.pytest_deselected(items=others)


def needs_bf16(item):
    """Whether it is a test that is skipped without the hardware; they start no processes."""
    asks = item.path.name in ASKING and "bf16" in item.nodeid
    return asks or bool(HARDWARE.intersection(item.fixturenames))


def all_of(number):
    """A vector with the same number in every lane."""
    return ir.Constant(WORDS, [number] * LANES)


# AVX-512's two instructions, as functions that are inlined where they are called.


def get_or_insert_function(module, kind, name, original=cgutils.get_or_insert_function):
    """As Numba's, but for the instructions for bf16 a function with a body."""
    body = {
        "llvm.x86.avx512bf16.dpbf16ps.512": dot_pairs,
        "llvm.x86.avx512bf16.cvtne2ps2bf16.512": round_two,
    }.get(name)
    if body is None:
        return original(module, kind, name)
    name = name.replace("llvm", "software")
    if name not in module.globals:
        function = ir.Function(module, kind, name)
        function.linkage = "internal"
        function.attributes.add("alwaysinline")
        builder = ir.IRBuilder(function.append_basic_block())
        builder.ret(body(builder, *function.args))
    return module.globals[name]


def dot_pairs(builder, total, x, y):
    """total (16,) + the products of the pairs of bf16 in x and y (32,)."""
    x, y = builder.bitcast(x, WORDS), builder.bitcast(y, WORDS)
    for half in (upper_halves, lower_halves):
        factors = [builder.bitcast(half(builder, z), FLOATS) for z in (x, y)]
        total = builder.call(fma_of(builder, FLOATS, 32), [*factors, total])
    return total


def upper_halves(builder, words):
    return builder.and_(words, all_of(0xFFFF0000))


def lower_halves(builder, words):
    return builder.shl(words, all_of(16))


def round_two(builder, high, low):
    """Two vectors of 16 float32 -> one of their nearest bf16, low first; ties go to the even."""
    rounded = []
    for x in (low, high):
        bits = builder.bitcast(x, WORDS)
        even = builder.and_(builder.lshr(bits, all_of(16)), all_of(1))
        up = builder.lshr(builder.add(bits, builder.add(even, all_of(0x7FFF))), all_of(16))
        is_nan = builder.fcmp_unordered("uno", x, x)
        rounded.append(builder.select(is_nan, all_of(0x7FC0), up))
    words = shuffle(builder, *rounded, [*range(2 * LANES)])
    return builder.bitcast(builder.trunc(words, BITS), HALVES)


# The tiles of AMX, on the stack of the kernel that uses them. Unless configured they store nan.


def emit(builder, name, *values):
    """Write what an instruction does, instead of the instruction."""
    tiles, configured = tiles_of(builder)
    if name in ("ldtilecfg", "tilerelease"):
        builder.store(FLAG(name == "ldtilecfg"), configured)
        return

    def row_of(tile, i):
        assert tile.constant < N_TILES
        return builder.gep(tiles, [INT64(0), INT64(tile.constant), i])

    with cgutils.for_range(builder, INT64(LANES)) as loop:
        i = loop.index
        if name == "tilezero":
            builder.store(all_of(0), row_of(values[0], i))
        elif name == "tdpbf16ps":
            add_products(builder, row_of, i, *values)
        else:
            tile, pointer, stride = values
            outside = builder.gep(pointer, [builder.mul(i, stride)])
            outside = builder.bitcast(outside, WORDS.as_pointer())
            if name == "tileloadd64":
                builder.store(builder.load(outside, align=4), row_of(tile, i))
            else:
                assert name == "tilestored64", name
                row, nan = builder.load(row_of(tile, i)), all_of(0xFFFFFFFF)
                row = builder.select(builder.load(configured), row, nan)
                builder.store(row, outside, align=4)


def tiles_of(builder):
    """The tiles of the function that is being written, and whether they are configured."""
    if not hasattr(builder.function, "tiles"):
        configured = cgutils.alloca_once_value(builder, FLAG(0))
        builder.function.tiles = cgutils.alloca_once(builder, TILES), configured
    return builder.function.tiles


def add_products(builder, row_of, i, c, a, b):
    """Row i of tile c += row i of a @ b, of pairs of bf16."""
    total = cgutils.alloca_once(builder, FLOATS)
    builder.store(builder.bitcast(builder.load(row_of(c, i)), FLOATS), total)
    pairs = builder.bitcast(row_of(a, i), ir.IntType(32).as_pointer())
    with cgutils.for_range(builder, INT64(LANES)) as loop:
        pair = broadcast(builder, builder.load(builder.gep(pairs, [loop.index])), WORDS)
        factors = [builder.bitcast(z, HALVES) for z in (pair, builder.load(row_of(b, loop.index)))]
        builder.store(dot_pairs(builder, builder.load(total), *factors), total)
    builder.store(builder.bitcast(builder.load(total), WORDS), row_of(c, i))
