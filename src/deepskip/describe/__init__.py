"""Networks as values: what they are, which ones the papers describe, and what they cost. No tensors here."""
