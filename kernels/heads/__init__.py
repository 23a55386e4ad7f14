"""One head of attention, forward, backward and for a single position, in each precision."""
