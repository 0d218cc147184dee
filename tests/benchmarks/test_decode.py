"""What the decode benchmark counts, and that storygen's row is the engine."""

import numpy as np
import pytest
import torch

from benchmarks.models import SIZES, Subject, random_model, spelling, subject
from benchmarks.peers import Missing, candidates
from benchmarks.peers.storygen import System, prepare
from benchmarks.peers.worker import shuffled, turn
from benchmarks.results import Results
from storygen.checkpoints import load, save
from storygen.model import GPTConfig, generate


@pytest.fixture
def directory(tmp_path):
    config = GPTConfig(300, 64, n_layer=2, n_head=2, n_embd=16)
    save(tmp_path / "hf", random_model(config), spelling(config.vocab_size))
    return tmp_path / "hf"


@pytest.mark.parametrize(
    ("size", "bits", "megabytes"),
    [("gpt2", 32, 494), ("gpt2", 8.5, 131), ("small", 16, 58.7), ("tiny", 8, 10.7)],
)
def test_bytes_per_token_are_those_of_the_matrices(size, bits, megabytes, tmp_path):
    found = Subject(size, tmp_path, SIZES[size]).bytes_per_token(bits, bits)
    assert found / 1e6 == pytest.approx(megabytes, rel=0.005)


def test_a_passage_fits_its_context(tmp_path):
    assert [Subject(s, tmp_path, SIZES[s]).passage for s in SIZES] == [(128, 256)] * 2 + [(64, 191)]


@pytest.mark.parametrize("size", SIZES)
def test_the_vocabulary_has_a_spelling_for_every_row(size):
    tokenizer = spelling(SIZES[size].vocab_size)
    assert tokenizer.vocab_size == SIZES[size].vocab_size
    assert tokenizer.decode(tokenizer.encode("He had always been")) == "He had always been"


def test_a_shipped_model_is_a_subject_by_name(tmp_path):
    from storygen.settings import ROOT

    found = subject("base", tmp_path, ROOT / "weights")
    assert found.directory == ROOT / "weights/base"
    assert found.config.vocab_size == 8192
    adapter = subject("mystery", tmp_path, ROOT / "weights")  # whole, for peers
    ids = torch.arange(9)[None]
    whole, merged = (load(path)[0](ids) for path in (ROOT / "weights/mystery", adapter.directory))
    torch.testing.assert_close(merged, whole, atol=0.02, rtol=0)  # fp16 on disk


@pytest.mark.parametrize("form", ["torch", "fp32"])
def test_storygens_row_writes_what_the_oracle_writes(directory, tmp_path, form):
    try:
        prepare(directory, form, tmp_path)
    except Missing as why:
        pytest.skip(str(why))
    model, _ = load(directory)
    prompts = [[1, 2, 3], [250, 4, 9]]
    wanted = [
        generate(model, torch.tensor([p]), 12, lambda logits, _: int(logits.argmax()))
        for p in prompts
    ]
    written: list[list[int]] = [[], []]
    threads = torch.get_num_threads()
    System(directory, form, tmp_path, threads, 2).generate(
        prompts, 12, 1, 0, lambda row, token: written[row].append(token)
    )
    assert written == wanted


def test_a_turn_lasts_as_long_as_asked_and_says_when_each_token_came(directory, tmp_path):
    system = System(directory, "torch", tmp_path, torch.get_num_threads(), 2)
    reply = turn(system, [[1, 2, 3], [4, 5, 6]], tokens=5, top_k=50, seed=1, seconds=0.1)
    assert len(reply["passages"]) >= 1
    for passage in reply["passages"]:
        assert [len(row) for row in passage["times"]] == [5, 5]
        assert all(row == sorted(row) for row in passage["times"])
    assert reply["others"] >= 0
    assert reply["memory"] > 0


def test_each_passage_of_a_turn_has_a_prompt_of_its_own(tmp_path):
    read = []

    class Recorder:
        def generate(self, prompts, tokens, top_k, seed, arrived):
            read.extend(prompts)
            for _ in range(tokens):
                arrived(0, 1)

    prompt = list(range(16))
    turn(Recorder(), [prompt], tokens=1, top_k=1, seed=5, seconds=0.05)
    assert read[1] == prompt
    assert len({tuple(p) for p in read}) == len(read) > 2
    assert sorted(shuffled(prompt, 3)) == prompt


def test_candidates_are_drawn_by_their_probability():
    values = np.log(np.array([[8.0, 4.0, 2.0, 1.0]])) * candidates.TEMPERATURE
    ids = np.array([[70, 3, 9, 2]])
    random = np.random.default_rng(0)
    drawn = [int(candidates.draw(values, ids, 3, random)[0, 0]) for _ in range(14_000)]
    assert drawn.count(2) == 0
    for token, expected in ((70, 8000), (3, 4000), (9, 2000)):
        assert abs(drawn.count(token) - expected) < 5 * expected**0.5


def test_one_candidate_is_the_largest_logit():
    values, ids = np.array([[3.0, 1.0], [9.0, 8.0]]), np.array([[5, 6], [7, 8]])
    drawn = candidates.draw(values, ids, 1, np.random.default_rng(0))
    assert drawn.tolist() == [[5], [7]]


@pytest.fixture
def results():
    """Two systems in three rounds; the machine was twice as fast in the last; `fast` missed one."""
    results = Results(threads=1, base="slow")
    for n, (slow, fast) in enumerate([(100, 150), (110, None), (200, 320)]):
        results.add("tiny", "slow", "tokens/s", 0, n, slow)
        results.add("tiny", "disturbed", "bound, tokens/s", 0, n, 400)
        if fast is not None:
            results.add("tiny", "fast", "tokens/s", 0, n, fast)
            results.add("tiny", "fast", "bound, tokens/s", 0, n, 2 * fast)
    return results


def test_ratios_are_taken_round_by_round(results):
    assert results.ratio("tiny", "fast", "slow", "tokens/s") == pytest.approx((1.5 + 1.6) / 2)
    assert results.bound_share("tiny", "fast") == 0.5
    assert results.median("tiny", "slow", "tokens/s") == 110
    assert results.ratio("tiny", "slow", "none", "tokens/s") is None


def test_the_table_has_a_row_for_each_system_and_says_who_is_missing(results, tmp_path):
    results.leave_out("tiny", "other", "it is not installed")
    results.count(disturbed=True)
    results.count(disturbed=False)
    results.write(tmp_path, "decode")
    table = (tmp_path / "decode.md").read_text()
    assert "disturbed 1 of 2 turns" in table
    assert "| disturbed |  |  |  | 400 |  |  |  |  | 0 |" in table
    assert "| fast | 235 | 1.55 | 0.50 | 470 |" in table
    assert "tiny: no other: it is not installed" in table
    assert (tmp_path / "decode.csv").read_text().splitlines()[1] == "tiny,slow,tokens/s,0,0,100"
    assert (tmp_path / "decode.png").read_bytes().startswith(b"\x89PNG")
