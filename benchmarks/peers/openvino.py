"""OpenVINO: one request whose state holds the caches, weights compressed by nncf."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino

from benchmarks.peers import candidates


def prepare(directory: Path, form: str, work: Path) -> None:
    """Translate the network and compress its matrices to int8 or int4."""
    import nncf

    from benchmarks.peers.openvino_graph import read

    mode = {"int8": nncf.CompressWeightsMode.INT8_ASYM, "int4": nncf.CompressWeightsMode.INT4_ASYM}
    if not (work / f"{form}.xml").is_file():
        compressed = nncf.compress_weights(read(directory), mode=mode[form])
        openvino.save_model(compressed, work / f"{form}.xml", compress_to_fp16=False)


class System:
    """One request, whose state holds the caches."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(work / f"{form}.xml", "CPU", config)
        self.request = compiled.create_infer_request()

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
        self.request.reset_state()
        ids, beams = np.array(prompts), np.arange(len(prompts), dtype=np.int32)
        for _ in range(tokens):
            self.request.infer({"ids": ids, "beam_idx": beams}, share_inputs=True)
            values, choices = (self.request.get_tensor(n).data for n in ("values", "candidates"))
            ids = candidates.draw(values, choices, top_k, random)
            for row in range(len(prompts)):
                arrived(row, int(ids[row, 0]))
