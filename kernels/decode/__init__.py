"""A token through all blocks in one kernel, for sampling: it calls the twins of the layers."""
