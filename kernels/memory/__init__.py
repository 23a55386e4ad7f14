"""Where arrays live: buffers that are used again, and what is prefetched into the caches."""
