"""Books in markup come out as our form of text: a paragraph a line, nothing around the story."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.corpora.markup import html_text, markdown_text, tei_text
from storygen.tokenizers import END_OF_TEXT

PAGE = '<html xmlns:epub="x"><head><title>No</title></head><body>{}</body></html>'


def page(body):
    return html_text(PAGE.format(body))


def test_each_paragraph_is_one_line_with_a_blank_line_between():
    assert page("<p>The  owl\n\tslept.</p><p>It <em>was</em> late.</p>") == (
        "The owl slept.\n\nIt was late.\n"
    )


def test_characters_are_those_that_entities_name():
    assert page("<p>&ldquo;Fish &amp; caf&#233;&rdquo;</p>") == "“Fish & café”\n"


@pytest.mark.parametrize(
    "heading",
    [
        "<h2>I. The Library</h2>",
        '<hgroup><h2 epub:type="ordinal">I</h2><p epub:type="title">The Library</p></hgroup>',
        "<hgroup>\n<h2>I</h2>\n<h3>The Library</h3>\n</hgroup>",
    ],
)
def test_a_number_and_its_title_are_one_heading(heading):
    assert page(f"<section>{heading}<p>He came.</p></section>") == "I. The Library\n\nHe came.\n"


def test_an_act_with_its_number_is_one_heading():
    assert page("<h2>\n<span>Act</span>\n<span>III</span>\n</h2>") == "Act III\n"


def test_scene_breaks_and_lines_of_verse_stay():
    assert page("<p>One.</p><hr/><p>A rose<br/>is a rose</p>") == (
        "One.\n\n* * *\n\nA rose\nis a rose\n"
    )


def test_notes_contents_and_title_pages_go():
    body = (
        '<section epub:type="titlepage"><h1>Title</h1></section><nav><p>Contents</p></nav>'
        '<p>Told<a epub:type="noteref" href="#n">1</a> once.</p>'
        '<section epub:type="endnotes"><ol><li>A note.</li></ol></section>'
        '<section id="pg-footer"><p>Licence</p></section><p>End.</p>'
    )
    assert page(body) == "Told once.\n\nEnd.\n"


def test_each_story_of_a_collection_begins_with_the_token():
    story = '<article epub:type="se:short-story"><h2>{0}</h2><p>It was {0}.</p></article>'
    assert page(story.format("Red") + story.format("Blue")) == (
        f"{END_OF_TEXT}\n\nRed\n\nIt was Red.\n\n{END_OF_TEXT}\n\nBlue\n\nIt was Blue.\n"
    )


def test_a_play_is_one_speech_a_line():
    rows = (
        '<p>A room.</p><table><tr><td/><td><i epub:type="z3998:stage-direction">Enter '
        '<b epub:type="z3998:persona">Ann</b>.</i></td></tr>'
        '<tr><td epub:type="z3998:persona">Ann</td><td>Late <i epub:type="z3998:stage-direction">'
        "Sits.</i> again!</td></tr>"
        '<tr><td epub:type="z3998:persona">Ben</td><td><p>Not I.</p><p>Never.</p></td></tr></table>'
    )
    assert page(rows) == ("A room.\n\n[Enter Ann.]\nANN: Late (Sits.) again!\nBEN: Not I. Never.\n")


def test_a_tei_edition_loses_its_header_and_notes():
    tei = (
        "<TEI><teiHeader><title>T</title></teiHeader><text><front><p>By A.</p></front><body>"
        "<div><head>I</head><p>The <hi>Rome</hi> train<note>a note</note>\nleft.</p>"
        "<milestone unit='x'/><lg><l>A rose</l><l>is red</l></lg></div></body>"
        "<back><p>End</p></back></text></TEI>"
    )
    assert tei_text(tei) == "I\n\nThe Rome train left.\n\n* * *\n\nA rose\nis red\n"


def test_markdown_becomes_plain_paragraphs():
    markdown = (
        "---\ntitle: T\n---\n\n### I \n\nThe *old* man's __hand__--it *was* cold. \n"
        "He [left](http://x.org).[^1]\n\n***\n\n> Quoted\\*  \n> lines\n\n"
        "[^1]: A note\nover lines\n"
        "\n2 * 3 * 4 and snake_case_name\n"
    )
    assert markdown_text(markdown) == (
        "I\n\nThe old man's hand--it was cold. He left.\n\n* * *\n\nQuoted*\nlines\n\n"
        "2 * 3 * 4 and snake_case_name\n"
    )


@given(st.text(alphabet="<>/ab ph\n&;*_[]()#\\!=\"'i0-", max_size=300))
def test_no_markup_is_too_broken_to_read(text):
    for read in (html_text, tei_text, markdown_text):
        assert read(text).endswith("\n")


@given(st.lists(st.text(alphabet="abc dé“”—.,!?", min_size=1).filter(str.strip), min_size=1))
def test_words_of_paragraphs_survive_in_order(paragraphs):
    words = " ".join(paragraphs).split()
    assert html_text("".join(f"<p>{p}</p>" for p in paragraphs)).split() == words


def test_html_that_closes_no_paragraph_is_read_all_the_same():
    assert page("<p>One.<p>Two.<div>Three.") == "One.\n\nTwo.\n\nThree.\n"


@pytest.mark.parametrize(
    "piece", ["<p>", "<b>", "<", "[", "![a](", "<!--", "*a", "_ a", "<a ", "- "]
)
def test_reading_takes_a_time_that_grows_as_the_text_does(piece):
    for read in (html_text, markdown_text):  # minutes if it grew with the square
        read(piece * 20_000)
