"""What mpiexec or srun tells the processes that it starts, without MPI itself."""

import os

# of a launcher: the variables with the rank, with the number of ranks
LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE"),
    "Slurm": ("PMIX_RANK", "SLURM_NTASKS"),
}


def launched_as(environ=os.environ):
    """The rank of this process and the number of ranks; (0, 1) where none of LAUNCHERS started it.

    A batch job has Slurm's SLURM_NTASKS too, but a rank only in what srun starts.
    """
    for rank, size in LAUNCHERS.values():
        if environ.get(rank, "").isdigit() and environ.get(size, "").isdigit():
            return int(environ[rank]), int(environ[size])
    return 0, 1
