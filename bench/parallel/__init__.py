"""Training on several ranks: its times, its losses beside one rank's, kills, a limited network."""
