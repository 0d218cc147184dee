"""GPT-2 as OpenVINO's model: our network traced, its caches made the model's state.

The forms that OpenVINO's processor plugin looks for: attention as one operation, each cache read
from the state, ordered by `beam_idx` and joined with what is new.
"""

from pathlib import Path

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import Tensor
from torch.nn import functional as F

from storygen.checkpoints import load
from storygen.model import GPT, GPTConfig

CANDIDATES = 50  # what top-k leaves


def read(directory: Path) -> openvino.Model:
    """The model of a directory, with inputs `ids` (B, T) and `beam_idx` (B,) and outputs `values`
    and `candidates` (B, 50), the largest logits of the last position and their ids."""
    network, _ = load(directory)
    config = network.config
    past = [torch.zeros(2, config.n_head, 3, config.head_size)] * (2 * config.n_layer)
    with torch.no_grad():
        ids = torch.ones(2, 4, dtype=torch.long)
        model = openvino.convert_model(Step(network), example_input=(ids, *past))
    model.inputs[0].tensor.set_names({"ids"})
    model.inputs[0].node.set_partial_shape(openvino.PartialShape([-1, -1]))
    states = _order_caches(model, config)
    _end_in_candidates(model, config.vocab_size)
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, states)
    _begin_empty(model, config)
    return model


class Step(torch.nn.Module):
    """The forward pass with keys and values as arguments and results, each (B, nh, S, hs)."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """ids (B, T), the cache of each layer -> logits of the last position (B, V), the caches."""
        model, before, T = self.model, past[0].shape[2], ids.shape[1]
        positions = torch.arange(before, before + T)
        mask = torch.arange(before + T) <= positions[:, None]  # (T, S)
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)
        x = model.wte(ids) + model.wpe(positions)
        present = []
        for n, block in enumerate(model.h):
            B, _, C = x.shape
            heads = (B, T, block.attn.n_head, C // block.attn.n_head)
            q, k, v = block.attn.c_attn(block.ln_1(x)).split(C, dim=2)
            q, k, v = (t.view(heads).transpose(1, 2) for t in (q, k, v))
            k = torch.cat([past[2 * n], k], dim=2)
            v = torch.cat([past[2 * n + 1], v], dim=2)
            present += [k, v]
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None, None])
            x = x + block.attn.c_proj(y.transpose(1, 2).reshape(B, T, C))
            x = x + block.mlp(block.ln_2(x))
        return model.lm_head(model.ln_f(x[:, -1])), *present


def _order_caches(model: openvino.Model, config: GPTConfig) -> dict[str, str]:
    """Read each cache through beam_idx; the names of caches as they come in and as they go out."""
    beams = ops.parameter([-1], openvino.Type.i32, name="beam_idx")
    beams.output(0).tensor.set_names({"beam_idx"})
    names = {}
    for n, (given, taken) in enumerate(zip(model.inputs[1:], model.outputs[1:], strict=True)):
        given.tensor.set_names({f"past{n}"})
        taken.tensor.set_names({f"present{n}"})
        shape = openvino.PartialShape([-1, config.n_head, -1, config.head_size])
        given.node.set_partial_shape(shape)
        readers = given.get_target_inputs()
        chosen = ops.gather(given.node, beams, ops.constant(0))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
        names[f"past{n}"] = f"present{n}"
    model.add_parameters([beams])
    return names


def _end_in_candidates(model: openvino.Model, vocab_size: int) -> None:
    """Put the largest logits and their ids in the place of all logits."""
    logits = model.outputs[0].node
    k = ops.constant(min(CANDIDATES, vocab_size))
    top = ops.topk(logits.input_value(0), k, -1, "max", "value", index_element_type="i64")
    results = [ops.result(output) for output in top.outputs()]
    for result, name in zip(results, ("values", "candidates"), strict=True):
        result.output(0).tensor.set_names({name})
    model.add_results(results)
    model.remove_result(logits)


def _begin_empty(model: openvino.Model, config: GPTConfig) -> None:
    """Let each state begin as a cache of no tokens, for as many rows as ids has."""
    rows = ops.gather(ops.shape_of(model.input("ids"), "i64"), ops.constant([0]), ops.constant(0))
    rest = ops.constant(np.array([config.n_head, 0, config.head_size]))
    empty = ops.broadcast(ops.constant(np.float32(0)), ops.concat([rows, rest], 0))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([empty.output(0)])
    model.validate_nodes_and_infer_types()
