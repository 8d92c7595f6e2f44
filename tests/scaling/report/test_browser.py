"""The page in a real browser: it opens without a fault, fits a phone, and its dark face is dark."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a headless Chromium")


def chromium(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def screenshot(page: Path, folder: Path, width: int, height: int, *more: str) -> numpy.ndarray:
    path = folder / f"{width}-{len(more)}.png"
    chromium(folder / "profile", f"--window-size={width},{height}", f"--screenshot={path}", *more, page.as_uri())
    return numpy.asarray(Image.open(path).convert("RGB")).astype(float)


def measured(page: Path, folder: Path, width: int) -> dict[str, float]:
    """Widths in pixels as the browser lays the page out in a frame of `width`."""
    frame = folder / f"frame-{width}.html"
    frame.write_text(
        f'<iframe id="page" src="{page.as_uri()}" style="width:{width}px;height:800px;border:0"></iframe>'
        "<pre id=answer></pre><script>onload = () => { const d = document.getElementById('page').contentDocument;"
        "const edges = [...d.querySelectorAll('figure svg, td, h1, p')].map(e => e.getBoundingClientRect().right);"
        "const figures = [...d.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().width);"
        "document.getElementById('answer').textContent = "
        "`scroll=${d.documentElement.scrollWidth} widest=${Math.max(...edges)} "
        "figures=${figures.length} narrowest=${Math.min(...figures)}` }</script>"
    )
    page_text = chromium(folder / "profile", "--allow-file-access-from-files", "--dump-dom", frame.as_uri()).stdout
    answer = re.search(r'<pre id="answer">([^<]*)</pre>', page_text)
    assert answer is not None, page_text[-500:]
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", answer[1])}


def test_the_page_fits_a_phone_a_desk_and_a_wall(out: Path, tmp_path: Path) -> None:
    for width in (360, 1200, 2400):
        found = measured(out / "index.html", tmp_path, width)
        assert found["figures"] == 7
        assert found["scroll"] <= width, f"at {width} px the page must not scroll sideways"
        assert found["widest"] <= width
        assert found["narrowest"] >= min(300, width - 70)


def test_light_is_light_and_dark_is_dark(out: Path, tmp_path: Path) -> None:
    light = screenshot(out / "index.html", tmp_path, 1200, 1600)
    dark = screenshot(out / "index.html", tmp_path, 1200, 1600, *DARK)
    assert light.mean() > 200
    assert dark.mean() < 70
    assert dark.max() > 200, "text on a dark page is bright"


def test_it_prints_on_paper(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    chromium(tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={path}", (out / "index.html").as_uri())
    data = path.read_bytes()
    assert data.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 2 <= pages <= 8
