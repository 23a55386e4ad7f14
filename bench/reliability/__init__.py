"""Damaged files, failing disks, killed processes: what npgpt promises, tried out and counted."""
