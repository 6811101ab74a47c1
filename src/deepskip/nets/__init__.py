"""Networks as PyTorch modules: the parts, the block, the network, its initial values, and the builder."""
