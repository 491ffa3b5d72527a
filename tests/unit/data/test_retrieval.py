"""BM25 over passages: the ranking by hand, ties, files, and what cannot be used."""

import json
import math

import pytest

from safeladder.data.retrieval import Document, PassageIndex, read_documents
from safeladder.errors import DataError, MissingExtra, ToolError
from safeladder.tools import SearchTool

THREE = [Document("Aldor", "river Sil"), Document("Bordor", "river Ond river Sil"),
         Document("Calton", "crop oats")]


def test_the_scores_are_those_of_bm25():
    """Lucene's BM25, k1 = 1.5, b = 0.75; 3 passages of 3, 5 and 3 words, mean 11/3.

    "ond": in one passage of three, idf = ln(1 + (3 - 1 + 0.5) / (1 + 0.5)) = ln(8/3); once in
    Bordor (5 words): tf = 1 / (1 + 1.5 (0.25 + 0.75 * 5 / (11/3))).
    """
    (hit,) = PassageIndex(THREE).search("Ond?", 3)
    by_hand = math.log(8 / 3) / (1 + 1.5 * (0.25 + 0.75 * 15 / 11))
    assert (hit.number, hit.title) == (1, "Bordor")
    assert hit.score == pytest.approx(by_hand, rel=1e-5)


def test_ties_keep_the_order_and_strangers_are_no_results():
    index = PassageIndex([Document(f"t{i}", "same words" if i % 3 else "same same words words")
                          for i in range(90)] + [Document("other", "nothing")])
    better, worse = list(range(0, 90, 3)), [i for i in range(90) if i % 3]
    assert [hit.number for hit in index.search("same words", 4)] == [0, 3, 6, 9]
    assert [hit.number for hit in index.search("same words", 95)] == better + worse
    assert index.search("unheard of", 3) == [] == index.search("?!", 3)


def test_a_result_shows_the_title_and_the_beginning():
    (hit,) = PassageIndex(THREE, abstract_words=2).search("Bordor", 1)
    assert (hit.title, hit.abstract) == ("Bordor", "river Ond")


def test_a_passage_is_read_by_number_or_title():
    tool = SearchTool(PassageIndex([*THREE, Document("aldor", "later")]))
    assert tool.read(1) == THREE[1]
    assert tool.read(" ALDOR ") == THREE[0]  # the first of a title
    for missing in (4, -1, "Dunvik"):
        with pytest.raises(ToolError, match="no passage"):
            tool.read(missing)


def test_a_failing_index_is_a_tool_error():
    class Broken(PassageIndex):
        def search(self, query, k):
            raise IndexError("gone")

    with pytest.raises(ToolError, match="search: IndexError: gone"):
        SearchTool(Broken(THREE)).search("x", 1)


def test_passages_come_from_json_lines(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text("\n".join(json.dumps(document._asdict()) for document in THREE))
    assert read_documents(path) == THREE
    path.write_text('{"title": "a", "text": "b"}\n{"title": "a"}\n')
    with pytest.raises(DataError, match=r"passages.jsonl:2: a passage needs 'title' and 'text'"):
        read_documents(path)
    with pytest.raises(DataError, match="no such file of passages"):
        read_documents(tmp_path / "none.jsonl")


@pytest.mark.parametrize("documents", [[], [Document("?", "!")]])
def test_no_passages_is_one_clear_line(documents):
    with pytest.raises(DataError, match="no passages to search"):
        PassageIndex(documents)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"pip install 'safeladder\[search\]'"):
        PassageIndex(THREE)
