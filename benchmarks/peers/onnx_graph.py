"""GPT-2 as an ONNX graph with the operators onnxruntime is fastest with.

Attention is GroupQueryAttention, which keeps keys and values in one buffer that grows in place; the
tanh GELU is FastGelu; the last position alone goes through the head; TopK leaves the candidates.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import Missing
from storygen.checkpoints import load
from storygen.model import GPT

CANDIDATES = 50  # what top-k leaves


class Graph:
    """Nodes and constants, each with a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        """A tensor of the file."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def op(
        self, kind: str, *inputs: str, outputs: int | list[str] = 1, domain: str = "", **attributes
    ) -> str:
        """Add a node; the name of its first output."""
        names = outputs
        if isinstance(names, int):
            names = [f"n{len(self.nodes)}_{i}" for i in range(names)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0]

    def linear(self, x: str, layer) -> str:
        """x times the layer's matrix, plus its bias where it has one."""
        y = self.op("MatMul", x, self.constant(layer.weight.numpy().T))
        return y if layer.bias is None else self.op("Add", y, self.constant(layer.bias.numpy()))

    def norm(self, x: str, layer) -> str:
        """The layer norm of x."""
        scale, bias = self.constant(layer.weight.numpy()), self.constant(layer.bias.numpy())
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=layer.eps)


def write(directory: Path, out: Path) -> None:
    """The model of a directory as an ONNX file in fp32."""
    model, _ = load(directory)
    onnx.save(graph(model), out)


def graph(model: GPT) -> onnx.ModelProto:
    """Inputs: ids and positions (B, T), the index of the last token (B,), the length so far,
    each layer's cache. Outputs: the largest logits and their ids (B, 50), the caches."""
    config = model.config
    if config.activation != "gelu_new":
        raise Missing(f"The ONNX graph here has the tanh GELU and no {config.activation}.")
    g = Graph()
    size = ["B", config.n_head, config.block_size, config.head_size]
    inputs = {
        "ids": (TensorProto.INT64, ["B", "T"]),
        "positions": (TensorProto.INT64, ["B", "T"]),
        "last": (TensorProto.INT32, ["B"]),
        "total": (TensorProto.INT32, []),
    }
    outputs = {
        "values": (TensorProto.FLOAT, ["B", "K"]),
        "candidates": (TensorProto.INT64, ["B", "K"]),
    }
    words, places = (g.constant(t.weight.numpy()) for t in (model.wte, model.wpe))
    x = g.op("Add", g.op("Gather", words, "ids"), g.op("Gather", places, "positions"))
    for n, block in enumerate(model.h):
        cache = [f"key{n}", f"value{n}"]
        inputs |= dict.fromkeys(cache, (TensorProto.FLOAT, size))
        outputs |= {f"new_{name}": (TensorProto.FLOAT, size) for name in cache}
        attention = [f"attention{n}", *(f"new_{name}" for name in cache)]
        qkv = g.linear(g.norm(x, block.ln_1), block.attn.c_attn)
        shape = {"num_heads": config.n_head, "kv_num_heads": config.n_head}
        y = g.op(
            "GroupQueryAttention",
            *(qkv, "", "", *cache, "last", "total"),
            outputs=attention,
            domain="com.microsoft",
            **shape,
        )
        x = g.op("Add", x, g.linear(y, block.attn.c_proj))
        y = g.linear(g.norm(x, block.ln_2), block.mlp.c_fc)
        y = g.op("FastGelu", y, domain="com.microsoft")
        x = g.op("Add", x, g.linear(y, block.mlp.c_proj))
    end = g.op("Gather", x, g.constant(np.array(-1)), axis=1)  # (B, C)
    logits = g.linear(g.norm(end, model.ln_f), model.lm_head)
    k = g.constant(np.array([min(CANDIDATES, config.vocab_size)]))
    g.op("TopK", logits, k, outputs=["values", "candidates"])
    return helper.make_model(
        helper.make_graph(
            g.nodes,
            "gpt2",
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
            g.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
