from diffreward.report import Markup, interval, markdown


def test_markdown_cells():
    text = markdown(["a", "b", "c"], [(True, 0.5, [1.0, 0.5, 2.0])])
    assert text.splitlines()[2] == "| yes | 0.50 | 1.00 [0.50, 2.00] |"


def test_our_own_markup_is_obeyed_and_foreign_text_is_shown():
    foreign = "[a](b) `c`"
    header = [foreign, Markup("score [95 %]")]
    table = markdown(header, [[foreign, interval([0.5, -1, None], "+.1f")]]).splitlines()
    shown = r"\[a\]\(b) \`c\`"
    assert table[0] == f"| {shown} | score [95 %] |"
    assert table[2] == f"| {shown} | +0.5 [-1.0, –] |"
