"""The commands as design and README promise them: what they print, and their exit codes."""

import json
import re
import shutil

import pytest
from safetensors.torch import save_file

from storygen.cli import main
from tests.reference.lecture import GPTLanguageModel


@pytest.fixture
def cli(tiny_weights, monkeypatch, capsys):
    """Run a command on the tiny models; exit code, standard output, standard error."""
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tiny_weights))

    def run(*arguments):
        try:
            code = main(arguments)
        except SystemExit as exit:  # argparse
            code = exit.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write(cli, *arguments):
    code, out, err = cli("write", "--model", "tiny", "--prompt", "the owl", "--json", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_models_lists_every_model(cli, tiny_weights):
    code, out, _ = cli("models")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["letters", "tiny"]
    code, out, _ = cli("models", "--json")
    assert code == 0
    assert [(m["name"], m["block_size"]) for m in json.loads(out)] == [
        ("letters", 64),
        ("tiny", 32),
    ]


def test_models_says_what_to_do_when_there_are_none(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    code, out, _ = cli("models")
    assert code == 0
    assert "python -m storygen.train" in out


def test_write_prints_the_continuation_only(cli):
    written = write(cli, "--seed", "7", "--max-new-tokens", "12")
    code, out, err = cli(
        *("write", "--model", "tiny", "--prompt", "the owl"),
        *("--seed", "7", "--max-new-tokens", "12"),
    )
    assert (code, out, err) == (0, written["text"] + "\n", "")


def test_write_json_has_exactly_the_promised_keys(cli):
    written = write(cli, "--seed", "7", "--max-new-tokens", "12")
    assert list(written) == ["text", "finish_reason", "tokens", "seed", "tokens_per_second"]
    assert written["finish_reason"] == "length"
    assert written["tokens"] == 12
    assert written["seed"] == 7
    assert written["tokens_per_second"] > 0


def test_a_drawn_seed_is_told_and_gives_the_passage_again(cli):
    first = write(cli, "--max-new-tokens", "20")
    again = write(cli, "--max-new-tokens", "20", "--seed", str(first["seed"]))
    assert again["text"] == first["text"]
    assert write(cli, "--max-new-tokens", "20")["text"] != first["text"]


def test_a_stop_text_ends_the_passage_before_it(cli):
    written = write(cli, "--seed", "7", "--max-new-tokens", "30")
    middle = written["text"][10:12]
    stopped = write(cli, "--seed", "7", "--max-new-tokens", "30", "--stop", middle)
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == written["text"][: written["text"].index(middle)]


def test_a_banned_word_is_not_written(cli):
    options = ("--seed", "7", "--max-new-tokens", "40")
    text = write(cli, *options)["text"]
    word = max(re.findall(r"[a-zA-Z]+", text), key=len)
    banned = write(cli, *options, "--banned", word.upper())["text"]
    assert word.lower() not in re.findall(r"[a-z]+", banned.lower())
    assert banned.startswith(text[: text.index(word)].rstrip())


def test_penalties_and_dry_change_the_passage(cli):
    plain = write(cli, "--seed", "7", "--max-new-tokens", "30", "--temperature", "0")
    for option in ("--frequency-penalty", "--presence-penalty", "--dry-multiplier"):
        other = write(
            cli, "--seed", "7", "--max-new-tokens", "30", "--temperature", "0", option, "2"
        )
        assert other["text"] != plain["text"]


def test_a_passage_that_loops_is_ended_unless_told_otherwise(cli):
    greedy = ("--temperature", "0", "--max-new-tokens", "300")
    assert write(cli, *greedy)["finish_reason"] == "loop"
    assert write(cli, *greedy, "--no-loop-guard")["finish_reason"] == "length"


def test_a_passage_may_end_with_its_sentence(cli):
    options = ("--seed", "3", "--max-new-tokens", "300")
    written = write(cli, *options, "--end-at-sentence")
    assert written["finish_reason"] in ("stop", "length")
    assert written["text"] == written["text"].rstrip() or written["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("The owl and the hen. " * 50_000, True),
        ("a" * 1_000_000, True),
        (" " * 1_000_000 + "x", False),
        ("the \ud800 owl", False),
        ("<|endoftext|>", False),
        ("\x00\x07\u202e\u200b", False),
    ],
    ids=["a-million-characters", "one-word", "spaces", "lone-surrogate", "special", "controls"],
)
def test_any_text_is_a_prompt_and_a_cut_is_told(cli, prompt, cut):
    arguments = ("--prompt", prompt, "--max-new-tokens", "3", "--seed", "5", "--json")
    code, out, err = cli("write", "--model", "tiny", *arguments)
    assert code == 0
    assert json.loads(out)["finish_reason"] in ("length", "stop")
    assert ("tiny does not see the beginning of the prompt" in err) is cut


def test_score_agrees_with_the_log_probabilities_of_the_model(cli, tiny_model, tmp_path):
    text = "The owl and the hen — 1984.\r\n"
    (tmp_path / "t.txt").write_bytes(text.encode())
    code, out, _ = cli("score", "--model", "tiny", str(tmp_path / "t.txt"), "--json")
    assert code == 0
    score = json.loads(out)
    assert list(score) == ["tokens", "bytes", "nats", "bits_per_byte", "perplexity"]
    assert score["bytes"] == len(text.encode())
    assert score["bits_per_byte"] == pytest.approx(score["nats"] / 0.6931472 / score["bytes"])
    assert score["perplexity"] == pytest.approx(2.7182818 ** (score["nats"] / score["tokens"]))
    code, out, _ = cli("score", "--model", "tiny", str(tmp_path / "t.txt"))
    assert f"{score['bits_per_byte']:.4f} bits per byte" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["write", "--model", "poet", "--prompt", "a"], "There is no model 'poet'"),
        (["write", "--model", "../tiny", "--prompt", "a"], "There is no model '../tiny'"),
        (["write", "--model", "tiny", "--prompt", ""], "The prompt is empty"),
        (["write", "--model", "tiny", "--prompt", "a", "--temperature", "9"], "temperature is 9.0"),
        (["write", "--model", "tiny", "--prompt", "a", "--top-k", "-1"], "top_k is -1"),
        (["write", "--model", "tiny", "--prompt", "a", "--top-p", "nan"], "top_p must be a number"),
        (["write", "--model", "tiny", "--prompt", "a", "--stop", ""], "stop has ''"),
        (["write", "--model", "tiny", "--prompt", "a", "--banned", " "], "banned has ' '"),
        (["write", "--model", "tiny", "--prompt", "a", "--dry-base", "0"], "dry_base is 0.0"),
        (["write", "--model", "letters", "--prompt", "caf\u00e9"], "has never seen 'é'"),
        (["score", "--model", "tiny", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["score", "--model", "poet", "nowhere.txt"], "There is no model 'poet'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(cli, arguments, sentence):
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "is empty"), (b"\xff\xfe\xff", "is not UTF-8")]
)
def test_a_file_that_cannot_be_scored_is_named(cli, tmp_path, content, sentence):
    (tmp_path / "t.txt").write_bytes(content)
    code, _, err = cli("score", "--model", "tiny", str(tmp_path / "t.txt"))
    assert code == 1
    assert sentence in err


@pytest.mark.parametrize(
    "arguments",
    [[], ["sing"], ["write"], ["write", "--model", "tiny", "--prompt", "a", "--seed", "many"]],
)
def test_wrong_usage_is_exit_code_2(cli, arguments):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "usage:" in err


def test_a_damaged_model_is_one_sentence(cli, tiny_weights, tmp_path, monkeypatch):
    shutil.copytree(tiny_weights / "tiny", tmp_path / "w" / "tiny")
    path = tmp_path / "w" / "tiny" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tmp_path / "w"))
    code, _, err = cli("write", "--model", "tiny", "--prompt", "a")
    assert code == 1
    assert "model.safetensors is missing or not as it was saved" in err


def test_a_setting_that_cannot_be_used_is_named(cli, monkeypatch):
    monkeypatch.setenv("STORYGEN_PORT", "eighty")
    code, _, err = cli("models")
    assert code == 1
    assert err.startswith("STORYGEN_PORT='eighty' cannot be used: ")


@pytest.fixture
def lecture_checkpoint(tmp_path):
    """A character-level checkpoint as safetensors, and the text it would have been trained on."""
    text = "The owl and the hen.\n"
    twin = GPTLanguageModel(len(set(text)), n_embd=12, n_head=3, n_layer=1, block_size=9)
    save_file(twin.state_dict(), tmp_path / "owl.safetensors")
    (tmp_path / "owl.txt").write_text(text)
    return tmp_path / "owl.safetensors", tmp_path / "owl.txt"


def test_an_imported_model_is_there_at_once(cli, lecture_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tmp_path / "w"))
    path, text = lecture_checkpoint
    arguments = ("--chars", str(text), "--attention-scale", "embd")
    code, out, err = cli("import", str(path), "owl", *arguments)
    assert (code, err) == (0, "")
    assert out == (
        "owl: character GPT of the lecture by Karpathy, 1 layers, 3 heads, width 12, "
        "context 9 tokens\n"
    )
    assert cli("models")[1].startswith("owl ")
    code, out, _ = cli("write", "--model", "owl", "--prompt", "The", "--max-new-tokens", "3")
    assert code == 0


def test_what_a_checkpoint_does_not_say_is_asked_for(cli, lecture_checkpoint):
    code, out, err = cli("import", str(lecture_checkpoint[0]), "owl")
    assert (code, out) == (1, "")
    assert "add --attention-scale" in err
    assert err.count("\n") == 1


def test_a_model_leaves_and_comes_back(cli, tmp_path, tiny_weights, monkeypatch):
    out = tmp_path / "tiny.gguf"
    code, shown, err = cli("export", "tiny", "--format", "gguf", "--out", str(out))
    assert (code, shown, err) == (0, f"tiny is now in {out}.\n", "")
    code, _, err = cli("export", "tiny", "--format", "hf", "--merge", "--out", str(tmp_path / "d"))
    assert (code, err) == (0, "")
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tmp_path / "w"))
    for source in (out, tmp_path / "d"):
        assert cli("import", str(source), source.stem)[0] == 0
    assert [line.split()[0] for line in cli("models")[1].splitlines()] == ["d", "tiny"]
    wrong = ("--type", "q8_0", "--format", "hf", "--out", str(tmp_path / "e"))
    assert cli("export", "tiny", *wrong)[0] == 1
    code, _, err = cli("export", "owl", "--format", "hf", "--out", str(tmp_path / "e"))
    assert code == 1
    assert "There is no model 'owl'" in err


@pytest.fixture
def own_weights(tiny_weights, tmp_path, monkeypatch):
    """A weights directory that a test may write in."""
    shutil.copytree(tiny_weights, tmp_path / "weights")
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_quantize_keeps_a_model_rounded_and_changes_nothing_that_it_writes(
    cli, own_weights, tmp_path
):
    before = write(cli, "--seed", "3", "--max-new-tokens", "20")["text"]
    code, out, _ = cli("quantize", "tiny")
    kept = own_weights / "tiny/packed/int8.safetensors"
    assert (code, out.split(" now ")[0]) == (0, f"tiny opens from {kept}")
    assert write(cli, "--seed", "3", "--max-new-tokens", "20")["text"] == before
    code, _, _ = cli("export", "tiny", "--format", "hf", "--out", str(tmp_path / "copy"))
    assert code == 0
    assert not (tmp_path / "copy/packed").exists()
    code, _, err = cli("quantize", "nobody")
    assert code == 1
    assert "no model 'nobody'" in err


def test_speculate_counts_texts_and_changes_nothing_that_a_model_writes(
    cli, own_weights, tmp_path, monkeypatch
):
    monkeypatch.setattr("storygen.engine.speculation.SHORTEST", 0)  # even so small a model guesses
    asked = "--seed", "3", "--max-new-tokens", "90"
    before = write(cli, *asked)["text"]
    books = tmp_path / "books"
    books.mkdir()
    (books / "a.txt").write_text(f"The night was dark. {before}\n" * 50)
    code, out, err = cli("speculate", "tiny", "--from", str(books))
    assert (code, err) == (0, "")
    assert f"are counted in {own_weights / 'tiny/ngrams.npy'}." in out
    assert write(cli, *asked)["text"] == before
    assert cli("export", "tiny", "--format", "hf", "--out", str(tmp_path / "copy"))[0] == 0
    assert not (tmp_path / "copy/ngrams.npy").exists()
    code, _, err = cli("speculate", "tiny", "--from", str(tmp_path / "nowhere"))
    assert code == 1
    assert "holds no" in err


def test_speculate_leaves_out_what_a_character_model_cannot_spell(cli, own_weights, tmp_path):
    (tmp_path / "book.txt").write_text("The caf\u00e9 was dark. \u201cYes,\u201d he said.\n" * 50)
    code, _, err = cli("speculate", "letters", "--from", str(tmp_path / "book.txt"))
    assert (code, err) == (0, "")
    assert (own_weights / "letters/ngrams.npy").is_file()
