"""The doors to the screen and to pages."""

import pytest

from diffreward import text

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202eevil\x85\u2028\x7f"


def test_control_characters_stay_visible():
    shown = text.printable("a\n\tb" + ESCAPES)
    assert shown.startswith("a\n\tb\\x1b]0;owned")
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert text.printable("größer 猫 🐈") == "größer 猫 🐈"
    assert "\n" not in text.one_line("a\nb" + ESCAPES)


@pytest.mark.parametrize(
    "evil",
    [
        "none\n\n# Verified",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "![y](../../x)",
        "0.99 |\n| forged | 0.00",
        "`</code><script>`",
        "# heading",
        "--- ",
    ],
)
def test_words_on_a_page_are_no_markup(evil):
    words = text.markdown_text(evil)
    assert "\n" not in words
    for mark in "<>[]|`":
        assert mark not in words.replace("\\" + mark, "")
    assert not words.startswith(("#", "---"))
    code = text.markdown_code(evil)
    assert "\n" not in code
    fence = len(code) - len(code.lstrip("`"))
    assert "`" * fence not in code[fence:-fence]


def test_plain_words_are_left_alone():
    assert (
        text.markdown_text("gradient_alignment 0.98 [0.9")
        == "gradient_alignment 0.98 \\[0.9"
    )
    assert text.markdown_text("-0.5") == "-0.5"
    assert text.markdown_code("a b") == "`a b`"


def test_a_narrow_terminal_gets_escapes(tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as stream:
        text.say("größer\x1b", stream)
    assert (tmp_path / "out").read_bytes() == b"gr\\xf6\\xdfer\\x1b\n"
