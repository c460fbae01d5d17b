from diffreward.report import markdown


def test_markdown_cells():
    text = markdown(["a", "b", "c"], [(True, 0.5, [1.0, 0.5, 2.0])])
    assert text.splitlines()[2] == "| yes | 0.50 | 1.00 [0.50, 2.00] |"
