"""The systems that decode, each in a file of its own.

Each file has a class System:

    System(directory, form, work, threads, streams)
        loads the model of a Hugging Face GPT-2 directory. `work` is a folder of its own for that
        model and file, in which `prepare` has left what the form needs.
    generate(prompts, tokens, top_k, seed, arrived)
        continues each prompt (token ids, all of one length) by `tokens` tokens at temperature 0.8,
        whatever they are, and calls arrived(row, token) as each comes.

and, where the model has to be translated first, a function

    prepare(directory, form, work)

which runs in a process of its own, so that it counts neither as load time nor as memory.
"""

from typing import NamedTuple

TEMPERATURE = 0.8


class Missing(Exception):
    """Why a system cannot run here, in a sentence."""


class Peer(NamedTuple):
    """Where a system is, and the bits of a weight of its blocks and of its output head."""

    file: str
    form: str
    blocks: float
    head: float


# q8_0: 32 numbers and a scale of 16 bits; q4_0 likewise. llama.cpp's own q4_0 has a head of q6_K,
# or of q8_0 where the width is no multiple of 256.
PEERS = {
    "storygen torch": Peer("storygen", "torch", 32, 32),
    "storygen torch int8": Peer("storygen", "torch-int8", 8, 8),
    "storygen fp32": Peer("storygen", "fp32", 32, 32),
    "storygen bf16": Peer("storygen", "bf16", 16, 16),
    "storygen int8": Peer("storygen", "int8", 8.5, 8.5),
    "storygen int4": Peer("storygen", "int4", 4.5, 8.5),
    "llama.cpp f16": Peer("llama_cpp", "f16", 16, 16),
    "llama.cpp bf16": Peer("llama_cpp", "bf16", 16, 16),
    "llama.cpp q8_0": Peer("llama_cpp", "q8_0", 8.5, 8.5),
    "llama.cpp q4_0": Peer("llama_cpp", "q4_0", 4.5, 6.5625),
    "llama.cpp q4_0, head q8_0": Peer("llama_cpp", "q4_0_ours", 4.5, 8.5),
    "CTranslate2 fp32": Peer("ctranslate2", "float32", 32, 32),
    "CTranslate2 int8": Peer("ctranslate2", "int8", 8, 8),
    "onnxruntime fp32": Peer("onnxruntime", "fp32", 32, 32),
    "onnxruntime int8": Peer("onnxruntime", "int8", 8, 8),
    "OpenVINO int8": Peer("openvino", "int8", 8, 8),
    "OpenVINO int4": Peer("openvino", "int4", 4.16, 8),
    "transformers fp32": Peer("transformers", "float32", 32, 32),
    "transformers bf16": Peer("transformers", "bfloat16", 16, 16),
}
