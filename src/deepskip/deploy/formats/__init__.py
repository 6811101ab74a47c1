"""The kinds of file that a net is exported to: each writes one, reads what it says, and runs it."""
