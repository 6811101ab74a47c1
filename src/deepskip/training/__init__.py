"""Training: what is done (recipe), at which rate (schedule), in which numbers (precision), and the engine."""
