"""The whole report on tiny random models, and the page that is in docs."""

import re

import pytest

from storygen import checkpoints
from storygen.catalogue import Catalogue
from storygen.engine.interface import TokenScore
from storygen.report.__main__ import main, write_report
from storygen.report.held_out import excerpts
from storygen.report.measure import Sizes
from storygen.report.page import MATRIX_PNG, TEMPERATURE_PNG
from storygen.report.passages import write_passages
from storygen.report.pictures import at_temperature
from storygen.report.score import score_excerpts
from storygen.settings import ROOT

SIZES = Sizes(excerpt_bytes=600, passages=5, baseline_bytes=10_000)
PAGE = ROOT / "docs" / "models.md"


def tables(page):
    """Every table as rows of cells, without the line below its head."""
    blocks = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)
    rows = [[[c.strip() for c in r.split("|")[1:-1]] for r in b.splitlines()] for b in blocks]
    return [[table[0], *table[2:]] for table in rows]


@pytest.fixture(scope="module")
def report(tmp_path_factory, weights, corpora):
    out = tmp_path_factory.mktemp("docs") / "models.md"
    told = []
    write_report(Catalogue(weights).models(), corpora, out, SIZES, told.append)
    return out, told


def test_the_page_has_every_model_on_every_genre(report, weights, genres):
    sizes, matrix, quality = tables(report[0].read_text(encoding="utf-8"))
    assert [row[0] for row in sizes[1:]] == ["`letters`", "`tiny`"]
    assert matrix[0] == ["", "on letters", "on tiny"]
    for row in matrix[1:3]:
        model, tokenizer = checkpoints.load(weights / row[0].strip("`"))
        for cell, genre in zip(row[1:], genres, strict=True):
            found = score_excerpts(model, tokenizer, excerpts(genre, 600)).bits_per_byte
            assert cell.strip("*") == f"{found:.3f}"
    assert [row[0] for row in matrix[3:]] == ["order-5 characters", "xz"]
    assert [row[0] for row in quality[1::2]] == ["`letters`", "`tiny`"]
    assert {row[0] for row in quality[2::2]} == {"its authors"}


def test_the_best_model_of_each_genre_is_bold(report):
    matrix = tables(report[0].read_text(encoding="utf-8"))[1]
    for column in (1, 2):
        cells = [row[column] for row in matrix[1:3]]
        bold = [cell.startswith("**") for cell in cells]
        assert bold.index(True) == min((0, 1), key=lambda n: float(cells[n].strip("*")))
        assert sum(bold) == 1


def test_pictures_are_beside_the_page_and_in_it(report):
    out, told = report
    for name in (MATRIX_PNG, TEMPERATURE_PNG):
        assert (out.parent / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in out.read_text(encoding="utf-8")
    assert told[-1] == f"{out} is written."


def test_a_second_run_gives_the_same_files(report, tmp_path, weights, corpora):
    again = tmp_path / "models.md"
    write_report(Catalogue(weights).models(), corpora, again, SIZES, lambda _: None)
    for name in ("models.md", MATRIX_PNG, TEMPERATURE_PNG):
        assert (tmp_path / name).read_bytes() == (report[0].parent / name).read_bytes()


def test_each_passage_is_the_one_of_its_seed_alone(weights):
    info = Catalogue(weights).get("tiny")
    prompts = [f"It was the {n}th night and" for n in range(20)]
    together = write_passages(info, prompts)
    assert len(set(together)) == 20
    assert write_passages(info, prompts[:1]) == together[:1]


def test_temperature_sharpens_and_flattens():
    scores = [TokenScore("a", -0.5), TokenScore("b", -1.0), TokenScore("c", -2.0)]
    # At 0.5 the log-probabilities double: e^-1, e^-2 and e^-4 over their sum.
    assert at_temperature(scores, 0.5) == pytest.approx([0.705385, 0.259496, 0.035119], abs=1e-6)
    assert at_temperature(scores, 1.0).sum() == pytest.approx(1)
    assert at_temperature(scores, 1e-4) == pytest.approx([1, 0, 0])


def test_what_is_missing_is_said_in_a_sentence(tmp_path, weights, capsys):
    for args, sentence in [
        (["--weights", str(tmp_path)], "train one with python -m storygen.train"),
        (["--weights", str(weights), "--models", "nobody"], "no model 'nobody'"),
        (["--weights", str(weights), "--corpora", str(tmp_path)], "no prepared corpora"),
    ]:
        assert main([*args, "--out", str(tmp_path / "page.md")]) == 1
        said = capsys.readouterr()
        assert sentence in said.err
        assert said.out == ""
    assert not (tmp_path / "page.md").exists()


def test_the_page_in_docs_speaks_of_the_models_that_ship():
    page = PAGE.read_text(encoding="utf-8")
    shipped = {
        f"`{info.name}`": f"{info.bits_per_byte:.3f} (its card)"
        for info in Catalogue(ROOT / "weights").models()
    }
    assert {row[0]: row[-1] for row in tables(page)[0][1:]} == shipped
    for name in re.findall(r"\]\(([^)]+\.png)\)", page):
        assert (PAGE.parent / name).is_file()
