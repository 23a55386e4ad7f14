"""Timings of npgpt beside PyTorch and beside what the machine allows."""
