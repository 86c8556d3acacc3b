"""The reader of examples finds what a document promises, and refuses what it cannot hold it to."""

import pytest

from tests.unit.docs.examples import BadDocument, Example, examples, missing, pieces

DOCUMENT = """
Text.

<!-- run: place, for 3 s -->
```bash
curl here
```

and then

<!-- output: place -->
```text
one  line ... more
another
```
"""


def test_commands_come_with_the_output_that_is_promised() -> None:
    assert examples(DOCUMENT) == [Example("place", "curl here\n", 3, ("oneline", "more", "another"))]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (DOCUMENT.replace("```bash", "\n```bash"), "no fenced block"),
        (DOCUMENT + DOCUMENT, "stands twice"),
        (DOCUMENT.replace("output: place", "output: other"), "outputs of no example"),
    ],
)
def test_a_document_that_promises_nothing_that_can_be_checked_is_refused(document: str, complaint: str) -> None:
    with pytest.raises(BadDocument, match=complaint):
        examples(document)


def test_an_output_is_found_in_order_with_gaps_and_whatever_its_blanks() -> None:
    wanted = pieces('{"a": "...",\n "c": 1}', by_line=False)
    assert missing(wanted, '{ "a":"x", "c":1 }') is None
    assert missing(pieces('{"a": 1, ..."c": 1}', by_line=False), '{"a":1,"b":2,"c":1}') is None
    assert missing(wanted, '{"a":"x","c":2}') == '","c":1}'
    assert missing(pieces("b\na", by_line=True), "a then b") == "a"
