"""llama.cpp through its C interface: its own batches, caches, flash attention and sampler chain.

f16, q8_0 and q4_0_ours are our export's; bf16 and q4_0 are made by llama.cpp's own quantizer, whose
q4_0 has a smaller output head.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import llama_cpp as lib

from benchmarks.peers import TEMPERATURE, Missing

EXPORTED = {"f16": "f16", "q8_0": "q8_0", "q4_0_ours": "q4_0"}
THEIRS = {"bf16": lib.LLAMA_FTYPE_MOSTLY_BF16, "q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0}


def prepare(directory: Path, form: str, work: Path) -> None:
    """Export the model, and let llama.cpp quantize the f16 file where the form is its own."""
    for kind in (form,) if form in EXPORTED else ("f16", form):
        path = work / f"{kind}.gguf"
        if path.is_file():
            continue
        if kind in THEIRS:
            params = lib.llama_model_quantize_default_params()
            params.ftype, params.nthread = THEIRS[kind], 1
            source = str(work / "f16.gguf").encode()
            assert not lib.llama_model_quantize(source, str(path).encode(), ctypes.byref(params))
        else:
            _export(directory, path, EXPORTED[kind])


def _export(directory: Path, path: Path, kind: str) -> None:
    """The export's tensors without its vocabulary: llama.cpp reads none of bytes or characters."""
    import gguf

    from storygen.checkpoints import export, load

    model, _ = load(directory)
    if not export._is_plain_gpt2(model.config):
        raise Missing("llama.cpp's gpt2 has a GELU and no output bias, and this model differs.")
    writer = gguf.GGUFWriter(path, export.ARCHITECTURE)
    export._describe(writer, model.config, kind, directory.name)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(model.config.vocab_size)
    export._add_tensors(writer, model, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class System:
    """A context with a sequence for each stream."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        lib.llama_backend_init()
        model = lib.llama_model_load_from_file(
            str(work / f"{form}.gguf").encode(), lib.llama_model_default_params()
        )
        assert model, "llama.cpp's log says why it could not load the model"
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = streams * lib.llama_model_n_ctx_train(model)
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        self.context = lib.llama_init_from_model(model, params)
        self.batch = lib.llama_batch_init(params.n_batch, 0, 1)

    def generate(
        self,
        prompts: list[list[int]],
        tokens: int,
        top_k: int,
        seed: int,
        arrived: Callable[[int, int], None],
    ) -> None:
        """All prompts in one batch, then a token of each in the next ones."""
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        samplers = [_sampler(top_k, seed + row) for row in range(len(prompts))]
        new, position = prompts, 0
        for _ in range(tokens):
            ends = self._decode(new, position)
            position += len(new[0])
            new = []
            for row, (sampler, end) in enumerate(zip(samplers, ends, strict=True)):
                token = lib.llama_sampler_sample(sampler, self.context, end)
                new.append([token])
                arrived(row, token)
        for sampler in samplers:
            lib.llama_sampler_free(sampler)

    def _decode(self, rows: list[list[int]], position: int) -> list[int]:
        """Read each row's new tokens; the index in the batch of each row's last."""
        batch, n, ends = self.batch, 0, []
        for row, ids in enumerate(rows):
            for place, token in enumerate(ids, start=position):
                batch.token[n], batch.pos[n], batch.logits[n] = token, place, 0
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, row
                n += 1
            batch.logits[n - 1] = 1
            ends.append(n - 1)
        batch.n_tokens = n
        assert lib.llama_decode(self.context, batch) == 0
        return ends


def _sampler(top_k: int, seed: int) -> ctypes.c_void_p:
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(top_k))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(TEMPERATURE))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))
    return chain
