"""Pages that stand alone: what they show, what they obey, how a browser sees it."""

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffreward import files
from diffreward.report import Gallery, Picture, markdown, write_report
from diffreward.report import page as pages

HOSTILE = '<script>alert("x")</script>'


def png(colour: tuple[int, int, int], side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "png")
    return out.getvalue()


def pictures(text: str = "a bear", side: int = 16, count: int = 6) -> list[Picture]:
    image = lambda i: np.full((side, side, 3), i / count)
    facts = lambda i: {"model": ("base", "expert")[i % 2], "only": "one"}
    return [Picture(image(i), f"{text} {i}", float(i), facts(i)) for i in range(count)]


def write(folder: Path, text: str, found: list[Picture] | None = None) -> str:
    gallery = None if found is None else Gallery("Pictures", "All of them.", found)
    write_report(folder, text, gallery)
    return (folder / "report.html").read_text()


def test_a_page_has_its_pictures_inside_and_loads_nothing(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(png((255, 0, 0)))
    text = "# Of *this*\n\n![all of it](figures/a.png)\n\n" + markdown(("n",), [("1",)])
    found = write(tmp_path, text, pictures())
    assert (tmp_path / "report.md").read_text() == text
    assert "<title>Of this</title>" in found
    encoded = base64.b64encode(png((255, 0, 0))).decode()
    assert f'src="data:image/png;base64,{encoded}" alt="all of it"' in found
    assert set(re.findall(r'(?:src|href)="(\w+):', found)) == {"data"}
    assert "default-src 'none'" in found


def test_words_of_others_are_words(tmp_path):
    found = write(tmp_path, f"# A {HOSTILE}\n\n{HOSTILE}\n", pictures(HOSTILE))
    assert found.count("<script>") == 1
    assert HOSTILE not in found


@pytest.mark.parametrize(
    "name", ["absent.png", "../a.png", "/etc/hostname", "http://a/b.png"]
)
def test_a_picture_from_elsewhere_is_named_not_read(tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "a.png").write_bytes(png((0, 0, 255)))
    found = write(folder, f"![a]({name})")
    assert f"{name} is not here" in found
    assert "<img" not in found


def test_what_has_no_room_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "ROOM", 100)
    (tmp_path / "a.png").write_bytes(png((0, 0, 255), 200))
    assert "a.png lies beside this page" in write(tmp_path, "![a](a.png)")
    assert "names a.png" in capsys.readouterr().out


def test_every_picture_can_be_filtered(tmp_path):
    found = write(tmp_path, "# A", pictures())
    assert found.count("<figure") == 6
    assert 'data-fact="model"' in found
    assert 'data-fact="only"' not in found  # one value is no choice
    odd = [*pictures(), Picture(np.zeros((8, 8, 1)), "", 0.0, {"other": "x"})]
    with pytest.raises(ValueError, match="facts of the same names"):
        write(tmp_path, "# A", odd)


@pytest.mark.parametrize(("side", "kind", "shown"), [(32, "png", 32), (512, "jpeg", 192)])
def test_thumbnails(side, kind, shown):
    found = pages._thumbnail(np.linspace(0, 1, side * side * 3).reshape(side, side, 3))
    name, data = found.split(";base64,")
    assert name == f"data:image/{kind}"
    made = Image.open(io.BytesIO(base64.b64decode(data)))
    assert made.size == (shown, shown)
    assert np.asarray(made).mean() == pytest.approx(127.5, abs=3)


def test_hundreds_of_pictures_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(0.5, 0.2, (16, 16, 3)).repeat(32, 0).repeat(32, 1), 0, 1)
    one = Picture(image, "a", 0.0, {"model": "base"})
    write(tmp_path, "# A", [one] * 400)
    assert (tmp_path / "report.html").stat().st_size < 10 * files.MIB


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium here")


def look(*options: str) -> bytes:
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", *options]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


@pytest.mark.slow
def test_a_browser_filters_and_orders(tmp_path):
    write(tmp_path, "# A\n\n" + markdown(("n", "m"), [("1", "2"), ("3", "4")]), pictures())
    address = (tmp_path / "report.html").as_uri()
    whole = look("--dump-dom", address).decode()
    assert "6 of 6 pictures" in whole
    assert whole.count("<th><button>") == 2
    order = lambda dom: re.findall(r"<b>(\d)\.00</b>", dom)
    assert order(whole) == list("543210")
    some = look("--dump-dom", f"{address}#model=expert&order=1").decode()
    assert "3 of 6 pictures" in some
    assert len(re.findall(r"<figure[^>]* hidden", some)) == 3
    assert order(some) == list("012345")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(tmp_path, width, dark):
    red = Picture(np.array([1.0, 0, 0]) * np.ones((16, 16, 1)), "red", 1.0, {"model": "a"})
    write(tmp_path, "# A\n\nWords.\n", [red])
    told = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    size, shot = f"--window-size={width},800", f"--screenshot={tmp_path / 'shot.png'}"
    look(*told, size, shot, "--hide-scrollbars", (tmp_path / "report.html").as_uri())
    seen = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert seen.shape == (800, width, 3)
    corner = seen[-1, -1].mean()
    assert corner < 60 if dark else corner > 200
    places = np.argwhere((seen - [255, 0, 0] == 0).all(-1))
    assert len(places) > 80 * 80  # the picture, enlarged
    assert places[:, 1].max() < width - 5
