"""Training: settings, a run's folder, the trainer and its loop, schedules, progress, curves."""
