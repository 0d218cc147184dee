"""How a model computes tokens: by native code on a CPU, or by PyTorch."""
