"""The vocabulary of the project: private words have a standard term in their place (docs/decisions/0011)."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# All Python and Markdown files. `test_words.py` is left out: it lists the private words themselves.
FILES = (
    "*.md",
    "*.py",
    ".github/*.md",
    "changelog.d/*.md",
    "docs/**/*.md",
    "docs/*.py",
    "src/**/*.md",
    "src/**/*.py",
    "scripts/*.py",
    "bench/*.py",
    "bench/peers/*.py",
    "examples/*.py",
    "tests/**/*.py",
)

# A private word, as a regular expression, and the terms to use instead. A blank also matches one line break.
PRIVATE = {
    r"anew": "again, from scratch",
    r"amid": "during, inside",
    r"meanwhile": "in the meantime, during",
    r"beside": "alongside, next to, with",
    r"whoever": "the caller, the waiter, the task that",
    r"nobody": "no task, no caller",
    r"go(?:es|ing)? on": "continue, resume",
    r"hand(?:s|ed|ing)? (?:on|over)": "deliver, dispatch, return, pass",
    r"on (?:its|their|the) way": "in flight, pending",
    r"under ?way": "in flight, running",
    r"(?:so|as) (?:many|much) as": "up to, maximum, the same number",
    r"so (?:many|much)": "maximum, up to, this number of",
    r"(?:is|are) (?-i:none)": "is not a valid ...",
    r"(?:send|sends|sent|sending) (?:\w+ )?again|resen(?:ds?|t|ding)": "retry",
    r"waits? for (?:company|room)|waiting for (?:company|room)": "linger; wait for space",
    r"rooms?": "capacity, space",
    r"in hand|in work|in (?:\w+'s|anybody's) hands": "being handled, running",
    r"crowded": "saturated",
    r"stray(?:s|ed)?|astray": "misrouted, wrong",
    r"well (?:where|there)": "accepted",
    r"elders?": "parent lanes",
    r"hurr(?:y|ies|ied)": "flush now",
    r"took notice": "noticed",
    r"lends?|lent|lending": "grant, credit",
    r"trouble": "last error, failure",
    r"unseen": "unobserved",
    r"bec(?:omes?|ame) of": "result, outcome",
    r"(?:write|writes|wrote|written|writing) (?:\w+ )?down": "checkpoint, store, persist",
    r"(?:take|takes|took|taken|taking) (?:\w+ )?apart": "deaggregate, split, parse",
    r"the program(?!'s name)(?:'s)?": "the application",
    r"say(?:s|ing)? not to|needs? it not": "state the negation early",
    r"^What": "the subject first: a sentence does not start with this",
}

THERE = re.compile(r"\bthere\s+\Z")
"""The word before a proper use of a private word: `there is none`."""

# Words that have a proper use: occurrences per 10,000 words of docstrings, comments and Markdown, over all files together.
AT_MOST = {
    r"what": (20, "name the noun"),
    r"where": (25, "if, when; where is for places"),
    r"who(?:se|m|ever)?": (4, "the caller, the task, the client"),
    r"tells?|told|telling": (4, "settle, notify, report, configure"),
}
AT_LEAST = {r"if": 50}

# A private word in the name of a test, as a regular expression over the words between underscores.
PRIVATE_IN_NAMES = (
    r"told|tells?|answer(?:s|ed)?|steer(?:s|ed)?|in_hand|whoever|nobody|meanwhile|anew|let_in|go(?:es)?_on|catch(?:es)?"
    r"|amid|beside|for_room|hand(?:s|ed)?_(?:on|over)|hurr(?:y|ies)|in_work|sent_again|so_many|taken_apart|that_is_none"
    r"|the_program|under_?way|written_down"
)

# Occurrences that stay for now, by file. Lower or remove an entry with its occurrence; never raise or add one.
# Those that are here are names: of two fields in their `Attributes:`, and of a profile that does not exist.
ALLOWED: dict[str, dict[str, int]] = {
    "tests/doubles/proxy.py": {"trouble": 1},
    "tests/simulation/reader.py": {"strays": 1},
    "tests/unit/aws/test_credentials.py": {"nobody": 2},
}


@dataclass(frozen=True)
class Passage:
    """A piece of text: a docstring, a run of comments, a Markdown page, or a string literal that holds words."""

    path: str
    line: int
    text: str
    prose: bool = True

    def line_of(self, offset: int) -> int:
        return self.line + self.text[:offset].count("\n")


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression of a word, as the group "word". A pattern that begins with ^ is the start of a sentence."""
    if pattern.startswith("^"):
        return re.compile(rf"(?:\A|[.:!?]\s|\n\n)\s*(?P<word>{pattern[1:]})\b")
    blank = r"(?:[ \t]+|[ \t]*\n[ \t>]*)"
    return re.compile(rf"\b(?P<word>{pattern.replace(' ', blank)})\b", re.IGNORECASE)


def files() -> list[Path]:
    return [path for pattern in FILES for path in sorted(ROOT.glob(pattern)) if path != Path(__file__)]


def passages(path: Path, root: Path = ROOT) -> Iterator[Passage]:
    """Yield the passages of a file. Code in backticks is left out, and so is text that is generated from other files."""
    name, source = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        source = re.sub(
            r"^```.*?^```$|<!-- file map -->.*<!-- end of file map -->", _blank, source, flags=re.MULTILINE | re.DOTALL
        )
        yield Passage(name, 1, _without_code(re.sub(r"^#+ ", "", source, flags=re.MULTILINE)))
        return
    yield from _comments(name, source)
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = None if id(node) in inner else _literal(node)
        if text is not None and isinstance(node, ast.expr) and (id(node) in docstrings or " " in text):
            yield Passage(name, node.lineno, _without_code(text), prose=id(node) in docstrings)


def _literal(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return None


def _comments(name: str, source: str) -> Iterator[Passage]:
    """Yield comments, with those on lines that follow each other as one passage."""
    begin = 0
    lines: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if lines and token.start[0] != begin + len(lines):
                yield Passage(name, begin, "\n".join(lines))
                lines = []
            begin = begin if lines else token.start[0]
            lines.append(_without_code(token.string.lstrip("# ")))
    if lines:
        yield Passage(name, begin, "\n".join(lines))


def _without_code(text: str) -> str:
    return re.sub(r"``?[^`]+``?", _blank, text)


def _blank(found: re.Match[str]) -> str:
    return "`" + "\n" * found[0].count("\n") + "`"


def private_words(found: list[Passage], allowed: Mapping[str, Mapping[str, int]] = ALLOWED) -> list[str]:
    """Return a complaint for each private word that is not allowed, and for each entry of `allowed` that is too high."""
    seen: dict[str, Counter[str]] = {path: Counter() for path in allowed}
    complaints = []
    for pattern, instead in PRIVATE.items():
        compiled = _compiled(pattern)
        for passage in found:
            for match in compiled.finditer(passage.text):
                if THERE.search(passage.text, 0, match.start("word")):
                    continue
                word = " ".join(match["word"].lower().split())
                counter = seen.setdefault(passage.path, Counter())
                counter[word] += 1
                if counter[word] > allowed.get(passage.path, {}).get(word, 0):
                    line = passage.line_of(match.start("word"))
                    complaints.append(f"{passage.path}:{line}: {word!r}: write {instead}")
    complaints += [
        f"{path}: {word!r} occurs {seen[path][word]} times, and {count} are allowed: lower the entry in ALLOWED"
        for path, words in allowed.items()
        for word, count in words.items()
        if seen[path][word] < count
    ]
    return complaints


def rate(pattern: str, found: list[Passage]) -> float:
    """Return how often a word occurs in 10,000 words of prose."""
    words = sum(len(re.findall(r"[A-Za-z][A-Za-z'-]*", passage.text)) for passage in found if passage.prose)
    return len(lines_with(pattern, found)) / max(words, 1) * 10_000


def lines_with(pattern: str, found: list[Passage]) -> list[str]:
    """Return the place of each occurrence of a word in prose."""
    return [
        f"{passage.path}:{passage.line_of(match.start('word'))}"
        for passage in found
        if passage.prose
        for match in _compiled(pattern).finditer(passage.text)
    ]


@pytest.fixture(scope="module")
def found() -> list[Passage]:
    return [passage for path in files() for passage in passages(path)]


def test_every_entry_of_the_list_of_files_is_there() -> None:
    assert [pattern for pattern in FILES if not list(ROOT.glob(pattern))] == []


def test_no_private_word_is_used(found: list[Passage]) -> None:
    complaints = private_words(found)
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("word", AT_MOST)
def test_a_word_with_a_standard_term_in_its_place_is_rare(word: str, found: list[Passage]) -> None:
    most, instead = AT_MOST[word]
    assert rate(word, found) <= most, f"{word}: write {instead}\n" + "\n".join(lines_with(word, found))


@pytest.mark.parametrize("word", AT_LEAST)
def test_conditions_are_stated_with_if(word: str, found: list[Passage]) -> None:
    assert rate(word, found) >= AT_LEAST[word], f"{word!r} is too rare: it is the word for a condition"


BAD = '''"""Hand the record on, and resend it.

What is none goes
on its way.
"""

# Nobody takes this anew,
# meanwhile.
TEXT = "there is no room, meanwhile"
ERROR = f"{TEXT} was sent again: the program must hurry"
quiet = "anew"
'''


def bad_page(folder: Path, name: str, text: str) -> list[Passage]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return list(passages(path, folder))


def test_private_words_are_found_in_docstrings_comments_and_string_literals(tmp_path: Path) -> None:
    complaints = private_words(bad_page(tmp_path, "bad.py", BAD), {})
    assert sorted(complaint.split(": write ")[0] for complaint in complaints) == [
        "bad.py:10: 'hurry'",
        "bad.py:10: 'sent again'",
        "bad.py:10: 'the program'",
        "bad.py:1: 'resend'",
        "bad.py:3: 'goes on'",
        "bad.py:3: 'is none'",
        "bad.py:3: 'what'",
        "bad.py:4: 'on its way'",
        "bad.py:7: 'anew'",
        "bad.py:7: 'nobody'",
        "bad.py:8: 'meanwhile'",
        "bad.py:9: 'meanwhile'",
        "bad.py:9: 'room'",
    ]
    assert "bad.py:1: 'resend': write retry" in complaints


def test_private_words_are_found_in_markdown_but_not_in_code_or_generated_text(tmp_path: Path) -> None:
    page = "# Room\n\nA `room` is\nnone.\n\n```python\nanew = 1\n```\n\n"
    page += "<!-- file map -->\namid\n<!-- end of file map -->\nCrowded\n"
    complaints = private_words(bad_page(tmp_path, "bad.md", page), {})
    assert sorted(complaint.split(": write ")[0] for complaint in complaints) == [
        "bad.md:13: 'crowded'",
        "bad.md:1: 'room'",
        "bad.md:3: 'is none'",
    ]


def test_proper_uses_of_a_private_word_pass(tmp_path: Path) -> None:
    page = "None if there\n  is none, or there are none. The program's name. If the value is None.\n"
    assert private_words(bad_page(tmp_path, "good.md", page), {}) == []


def test_an_allowed_word_passes_and_an_entry_that_is_not_needed_fails(tmp_path: Path) -> None:
    page = bad_page(tmp_path, "old.md", "It begins anew, and anew.\n")
    assert private_words(page, {"old.md": {"anew": 2}}) == []
    assert len(private_words(page, {"old.md": {"anew": 1}})) == 1
    assert private_words(page, {"old.md": {"anew": 3}}) == [
        "old.md: 'anew' occurs 2 times, and 3 are allowed: lower the entry in ALLOWED"
    ]
    assert len(private_words([], {"gone.md": {"anew": 1}})) == 1


def test_rates_count_prose_and_not_string_literals(tmp_path: Path) -> None:
    page = bad_page(tmp_path, "some.py", '"""Return what is read, if any."""\nTEXT = "what, if, what"\n')
    assert rate("what", page) == rate("if", page) == pytest.approx(10_000 / 6)
    assert lines_with("what", page) == ["some.py:1"]


def private_names(name: str, source: str) -> list[str]:
    """Return a complaint for each test in a file whose name has a private word."""
    word = re.compile(rf"_(?:{PRIVATE_IN_NAMES})(?:_|$)")
    tests = re.findall(r"def (test_\w+)", source)
    return [f"{name}: {test} has a private word" for test in tests if word.search(test)]


def test_names_of_tests_have_no_private_words() -> None:
    tests = [path for path in files() if path.suffix == ".py" and path.name.startswith("test_")]
    assert len(tests) > 40
    assert [c for path in tests for c in private_names(path.name, path.read_text(encoding="utf-8"))] == []


def test_private_words_are_found_in_names_of_tests() -> None:
    source = (
        "def test_caller_is_told() -> None: ...\nasync def test_answer_is_empty(): ...\ndef test_retold_story(): ...\n"
    )
    assert private_names("bad.py", source) == [
        "bad.py: test_caller_is_told has a private word",
        "bad.py: test_answer_is_empty has a private word",
    ]
