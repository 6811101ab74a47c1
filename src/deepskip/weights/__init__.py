"""Networks on disk: one safetensors file with the Spec, classes and preprocessing in its header."""
