"""Put to use: the net as a graph for other programs, the ways to run it, and what they are worth."""
