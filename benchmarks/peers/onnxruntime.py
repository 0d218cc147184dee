"""onnxruntime: our graph, fp32 or with dynamic int8 products, caches that stay where they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.peers import candidates


def prepare(directory: Path, form: str, work: Path) -> None:
    """Write the graph, and quantize its products."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from benchmarks.peers import onnx_graph

    if not (work / "fp32.onnx").is_file():
        onnx_graph.write(directory, work / "fp32.onnx")
    if form == "int8" and not (work / "int8.onnx").is_file():
        quantize_dynamic(
            work / "fp32.onnx",
            work / "int8.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of operators not ONNX's
        )


class System:
    """One session; keys and values in buffers that the graph reads and writes in place."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(
            work / f"{form}.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.caches = {i.name: i.shape[1:] for i in self.session.get_inputs()[4:]}
        self.buffers: dict[str, onnxruntime.OrtValue] = {}

    def generate(
        self,
        prompts: list[list[int]],
        tokens: int,
        top_k: int,
        seed: int,
        arrived: Callable[[int, int], None],
    ) -> None:
        """All prompts as one batch; the draw among the candidates is numpy's."""
        random = np.random.default_rng(seed)
        rows, past = len(prompts), 0
        ids = np.array(prompts)
        binding = self._bind(rows)
        for _ in range(tokens):
            total = past + ids.shape[1]
            positions = np.broadcast_to(np.arange(past, total), ids.shape)
            binding.bind_cpu_input("ids", ids)
            binding.bind_cpu_input("positions", np.ascontiguousarray(positions))
            binding.bind_cpu_input("last", np.full(rows, total - 1, np.int32))
            binding.bind_cpu_input("total", np.array(total, np.int32))
            self.session.run_with_iobinding(binding)
            values, choices = (output.numpy() for output in binding.get_outputs()[:2])
            ids, past = candidates.draw(values, choices, top_k, random), total
            for row in range(rows):
                arrived(row, int(ids[row, 0]))

    def _bind(self, rows: int) -> onnxruntime.IOBinding:
        binding = self.session.io_binding()
        binding.bind_output("values")
        binding.bind_output("candidates")
        for name, shape in self.caches.items():
            buffer = self.buffers.get(name)
            if buffer is None or buffer.shape()[0] != rows:
                zeros = np.zeros((rows, *shape), np.float32)
                buffer = self.buffers[name] = onnxruntime.OrtValue.ortvalue_from_numpy(zeros)
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(f"new_{name}", buffer)
        return binding
