"""CTranslate2: its own converter, its own sampling."""

import json
from collections.abc import Callable
from pathlib import Path

import ctranslate2

from benchmarks.peers import TEMPERATURE, Missing


def prepare(directory: Path, form: str, work: Path) -> None:
    """Convert the model, quantized if the form is."""
    from ctranslate2.converters import TransformersConverter

    if not (directory / "vocab.json").is_file():
        raise Missing("CTranslate2's converter knows no vocabulary of characters.")
    if not (work / form).is_dir():
        TransformersConverter(str(directory)).convert(str(work / form), quantization=form)
        vocabulary = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
        config = work / form / "config.json"
        values = json.loads(config.read_text())
        for name in ("bos_token", "eos_token", "unk_token"):  # null where no token ends a story
            values[name] = values[name] or next(iter(vocabulary))
        config.write_text(json.dumps(values))


class System:
    """The model as float32 or int8, oneDNN's products."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        self.generator = ctranslate2.Generator(
            str(work / form), compute_type=form, inter_threads=1, intra_threads=threads
        )
        ids = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
        self.spelling = sorted(ids, key=ids.__getitem__)

    def generate(
        self,
        prompts: list[list[int]],
        tokens: int,
        top_k: int,
        seed: int,
        arrived: Callable[[int, int], None],
    ) -> None:
        """All prompts as one batch; tokens go in by their spelling."""
        ctranslate2.set_random_seed(seed)

        def took(step: ctranslate2.GenerationStepResult) -> bool:
            arrived(step.batch_id, step.token_id)
            return False  # go on

        self.generator.generate_batch(
            [[self.spelling[token] for token in prompt] for prompt in prompts],
            max_length=tokens,
            end_token=[],
            sampling_topk=top_k,
            sampling_temperature=TEMPERATURE,
            include_prompt_in_result=False,
            callback=took,
        )
