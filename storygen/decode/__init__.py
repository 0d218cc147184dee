"""How a model computes tokens: by native code on a CPU, or by PyTorch."""

from storygen.decode.interface import Decoder, Token

__all__ = ["Decoder", "Token"]
