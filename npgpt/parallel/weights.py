"""Weights that rank 0 has read, at all ranks: only its host needs the file."""

import dataclasses

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters


def read_at_rank_0(comm, read, *arguments):
    """What read(*arguments) returns at rank 0, Parameters and what JSON can hold, at all ranks."""
    params, rest = read(*arguments) if comm.rank == 0 else (None, None)
    config, rest = comm.broadcast_json([params and dataclasses.asdict(params.config), rest])
    if comm.rank > 0:
        params = Parameters(GPT2Config(**config))
    comm.broadcast(params.flat)
    return params, rest
