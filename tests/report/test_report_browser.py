"""The report in a real browser: nothing overflows, nothing is fetched, and there is something to see."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sample_verdicts import verdicts

from mlcicd.report import report_html

pytestmark = pytest.mark.slow

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
MEASURE = """<!doctype html><iframe id=f src=report.html width={width} height=3000 style="border:0"></iframe>
<script>f.onload = () => {{
  const root = f.contentDocument.documentElement;
  const wide = [...root.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > {width} + 1);
  document.title = `scroll=${{root.scrollWidth}} wide=${{wide.length}} height=${{root.scrollHeight}}`;
}}</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder that is served on loopback, its URL, and the paths that were asked for."""
    asked: list[str] = []

    class Recording(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    page = report_html(verdicts(), title="flights", generated=datetime(2026, 3, 14, tzinfo=UTC))
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Recording, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def chromium(folder: Path, *arguments: str) -> str:
    binary = shutil.which("chromium")
    assert binary, "this test needs Debian's package chromium (tools/system_packages.sh installs it)"
    profile = folder / "profile"
    done = subprocess.run(
        [binary, *FLAGS, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(site: tuple[Path, str, list[str]], width: int) -> None:
    folder, url, asked = site
    (folder / "measure.html").write_text(MEASURE.format(width=width))
    dom = chromium(folder, "--virtual-time-budget=5000", "--dump-dom", f"{url}/measure.html")
    found = re.search(r"scroll=(\d+) wide=(\d+) height=(\d+)", dom)
    assert found, dom[:500]
    scroll, wide, height = map(int, found.groups())
    assert scroll <= width
    assert wide == 0
    assert height > 1000
    assert {path for path in asked if path != "/favicon.ico"} == {"/measure.html", "/report.html"}


def test_there_is_something_to_see(site: tuple[Path, str, list[str]]) -> None:
    folder, url, _asked = site
    picture = folder / "picture.png"
    chromium(folder, "--window-size=1200,1600", f"--screenshot={picture}", f"{url}/report.html")
    data = picture.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1200, 1600)
    body, position = b"", 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            body += data[position + 8 : position + 8 + length]
        position += 12 + length
    # A blank page compresses to nothing; text and plots do not.
    assert len(zlib.decompress(body)) > width * height
    assert len(body) > 40_000
