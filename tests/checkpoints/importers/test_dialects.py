"""Every dialect gives its author's logits: against twins of the authors' own networks."""

import json
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from storygen.catalogue import Catalogue
from storygen.checkpoints import load
from storygen.checkpoints.importers import Asked, import_model
from storygen.errors import CheckpointError
from tests.checkpoints.importers.conftest import scramble
from tests.reference import lecture, nanogpt, raschka

pytestmark = pytest.mark.usefixtures("in_process")

TEXT = "The owl and the hen.\n"
CHARACTERS = sorted(set(TEXT))
IDX = torch.randint(0, len(CHARACTERS), (3, 9), generator=torch.Generator().manual_seed(5))
BOOK = {
    "vocab_size": len(CHARACTERS),
    "context_length": 12,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 2,
    "qkv_bias": False,
}
SIZES = {
    "vocab_size": len(CHARACTERS),
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 2,
    "block_size": 12,
}


@pytest.fixture
def chars(tmp_path):
    path = tmp_path / "training.txt"
    path.write_text(TEXT)
    return path


def imported(tmp_path, path, **asked):
    """Import path as the model `m`; what the catalogue then finds, loaded."""
    import_model(str(path), "m", tmp_path / "weights", Asked(**asked))
    (info,) = Catalogue(tmp_path / "weights").models()
    assert info.name == "m"
    return load(info.directory)


def assert_same_logits(model, twin):
    with torch.inference_mode():
        torch.testing.assert_close(model(IDX), twin(IDX), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("form", ["book", "fast", "wrapper"])
def test_raschka(tmp_path, chars, form, qkv_bias):
    twin = scramble(raschka.GPTModel(BOOK | {"qkv_bias": qkv_bias, form: True}))
    torch.save(twin.state_dict(), tmp_path / "model.pth")
    n_head = None if form == "wrapper" else 3  # a module for each head says how many there are
    model, _ = imported(tmp_path, tmp_path / "model.pth", chars=chars, n_head=n_head)
    assert_same_logits(model, twin)
    assert not model.config.tied


def test_raschka_with_the_optimizer_beside_it(tmp_path, chars):
    twin = scramble(raschka.GPTModel(BOOK))
    optimizer = torch.optim.AdamW(twin.parameters())
    twin(IDX).sum().backward()
    optimizer.step()
    saved = {"model_state_dict": twin.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(saved, tmp_path / "model_and_optimizer.pth")
    model, _ = imported(tmp_path, tmp_path / "model_and_optimizer.pth", chars=chars, n_head=3)
    assert_same_logits(model, twin)


def test_a_head_equal_to_the_embedding_is_kept_once(tmp_path, chars):
    twin = scramble(raschka.GPTModel(BOOK))
    with torch.no_grad():  # as the book does it with GPT-2's weights
        twin.out_head.weight.copy_(twin.tok_emb.weight)
    torch.save(twin.state_dict(), tmp_path / "model.pth")
    model, _ = imported(tmp_path, tmp_path / "model.pth", chars=chars, n_head=3)
    assert_same_logits(model, twin)
    assert model.config.tied


@pytest.mark.parametrize("scale", ["head", "embd"])
@pytest.mark.parametrize("movie_plots", [False, True])
def test_lecture_and_movie_plots(tmp_path, chars, scale, movie_plots):
    twin = scramble(lecture.GPTLanguageModel(**SIZES, scale=scale, movie_plots=movie_plots))
    torch.save(twin.state_dict(), tmp_path / "checkpoint.pth")
    asked = {"chars": chars, "attention_scale": scale}
    model, tokenizer = imported(tmp_path, tmp_path / "checkpoint.pth", **asked)
    assert_same_logits(model, twin)
    assert (model.config.activation, model.config.output_bias) == ("relu", True)
    assert tokenizer.characters == CHARACTERS


def test_the_last_norm_may_be_the_last_of_the_blocks(tmp_path, chars):
    """As the lecture has it before its last chapter; some make positions a parameter (1, T, C)."""
    twin = scramble(lecture.GPTLanguageModel(**SIZES))
    names = {"ln_f": f"blocks.{SIZES['n_layer']}", "position_embedding_table": "pos"}
    state = {
        ".".join([names.get(name.split(".")[0], name.split(".")[0]), *name.split(".")[1:]]): weight
        for name, weight in twin.state_dict().items()
    }
    state["positional_embedding"] = state.pop("pos.weight")[None]
    torch.save(state, tmp_path / "checkpoint.pth")
    asked = {"chars": chars, "attention_scale": "embd"}
    model, _ = imported(tmp_path, tmp_path / "checkpoint.pth", **asked)
    assert_same_logits(model, twin)


def test_the_attention_scale_is_asked_for(tmp_path, chars):
    twin = scramble(lecture.GPTLanguageModel(**SIZES))
    torch.save(twin.state_dict(), tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"add --attention-scale embd where .* MoviePlotGPT"):
        imported(tmp_path, tmp_path / "checkpoint.pth", chars=chars)
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_nanogpt(tmp_path, bias, flash, prefix):
    twin = scramble(nanogpt.GPT(**SIZES, bias=bias, flash=flash))
    optimizer = torch.optim.AdamW(twin.parameters())
    saved = {
        "model": {prefix + name: weight for name, weight in twin.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "model_args": twin.model_args,
        "iter_num": 3,
        "best_val_loss": torch.tensor(1e9),
        "config": {"out_dir": "out", "eval_interval": 2000, "compile": True},
    }
    torch.save(saved, tmp_path / "ckpt.pt")
    stoi = {c: n for n, c in enumerate(CHARACTERS)}
    meta = {"vocab_size": len(stoi), "itos": {n: c for c, n in stoi.items()}, "stoi": stoi}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta))
    model, tokenizer = imported(tmp_path, tmp_path / "ckpt.pt")
    assert_same_logits(model, twin)
    assert (model.config.activation, model.config.tied) == ("gelu", True)
    assert tokenizer.characters == CHARACTERS


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_head=st.integers(1, 5),
    head_size=st.integers(1, 7),
    n_layer=st.integers(1, 3),
    block_size=st.integers(9, 20),
    seed=st.integers(0, 99),
    scale=st.sampled_from(["head", "embd"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_shape_of_any_dialect(
    tmp_path_factory, n_head, head_size, n_layer, block_size, seed, scale, dtype
):
    n_embd, V = n_head * head_size, len(CHARACTERS)
    book = dict(BOOK, n_heads=n_head, emb_dim=n_embd, n_layers=n_layer, context_length=block_size)
    for twin, dialect in (
        (raschka.GPTModel(book), "raschka"),
        (lecture.GPTLanguageModel(V, n_embd, n_head, n_layer, block_size, scale), "char"),
        (nanogpt.GPT(V, n_embd, n_head, n_layer, block_size), "nanogpt"),
    ):
        directory = tmp_path_factory.mktemp(dialect)
        (directory / "training.txt").write_text(TEXT)
        scramble(twin, seed)
        state = {k: v.to(dtype).clone() for k, v in twin.state_dict().items()}
        save_file(state, directory / "any.safetensors")
        asked = {"n_head": n_head, "chars": directory / "training.txt"}
        asked |= {"attention_scale": scale} if dialect == "char" else {}
        model, _ = imported(directory, directory / "any.safetensors", **asked)
        assert_same_logits(model, twin)


def test_half_precision_stays_half(tmp_path, chars):
    twin = scramble(raschka.GPTModel(BOOK)).half()
    torch.save(twin.state_dict(), tmp_path / "model.pth")
    model, _ = imported(tmp_path, tmp_path / "model.pth", chars=chars, n_head=3)
    assert_same_logits(model, twin.float())
    saved = (tmp_path / "weights" / "m" / "model.safetensors").stat().st_size
    assert saved < 2.5 * model.n_params


@pytest.mark.parametrize("said", [{}, {"use_relu": True, "flash": False}])
def test_the_card_says_what_is_taken_for_granted(tmp_path, chars, said):
    """nanoGPT had GPT-2's GELU before June 2023, and those who have changed it say so here."""
    twin = scramble(nanogpt.GPT(**SIZES))
    torch.save(
        {"model": twin.state_dict(), "model_args": twin.model_args | said}, tmp_path / "m.pt"
    )
    imported(tmp_path, tmp_path / "m.pt", chars=chars)
    card = (tmp_path / "weights" / "m" / "README.md").read_text()
    assert "**Taken for granted:** the exact GELU that nanoGPT has had since June 2023" in card
    assert ("that use_relu of model_args change nothing" in card) is bool(said)


def test_what_cannot_be_so_of_a_network_is_refused(tmp_path, chars):
    twins = {
        "nanogpt": nanogpt.GPT(**SIZES),
        "char": lecture.GPTLanguageModel(**SIZES),
        "book": raschka.GPTModel(BOOK | {"wrapper": True}),
    }
    for name, twin in twins.items():
        said = {"model_args": twin.model_args} if name == "nanogpt" else {}
        torch.save({"model": scramble(twin).state_dict(), **said}, tmp_path / f"{name}.pt")
    for name in twins:
        asked = {"attention_scale": "embd"} if name == "char" else {}
        with pytest.raises(CheckpointError, match=r"has 3 attention heads: omit --n-head"):
            imported(tmp_path, tmp_path / f"{name}.pt", chars=chars, n_head=2, **asked)
        if name != "char":
            with pytest.raises(CheckpointError, match=r"omit --attention-scale"):
                imported(tmp_path, tmp_path / f"{name}.pt", chars=chars, attention_scale="head")


@pytest.mark.parametrize("name", ["m.new-7", "m.old", "m.", ".m", "a/b", "a" * 65, ""])
def test_a_name_that_marks_unfinished_work_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"cannot be a model's name"):
        import_model(str(tmp_path), name, tmp_path / "weights", Asked())


def test_the_card_says_where_it_came_from(tmp_path, chars):
    import hashlib

    torch.save(scramble(raschka.GPTModel(BOOK)).state_dict(), tmp_path / "model.pth")
    imported(tmp_path, tmp_path / "model.pth", chars=chars, n_head=3)
    card = (tmp_path / "weights" / "m" / "README.md").read_text()
    assert "Imported from `model.pth`" in card
    assert "GPTModel" in card
    assert hashlib.sha256((tmp_path / "model.pth").read_bytes()).hexdigest() in card
    assert json.loads((tmp_path / "weights" / "m" / "storygen.json").read_text())["genre"]
