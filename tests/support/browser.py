"""A real browser without a screen, for pages that people look at."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fibers.threads.to_thread import to_thread

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def look_at(url: str, folder: Path, name: str, width: int, height: int) -> str:
    """The text that is shown there. FIBERS_TEST_PICTURES is a folder for its picture."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        if os.environ.get("CI"):
            pytest.fail("CI looks at the page in a browser, and there is none: .ci/debian.sh installs it")
        pytest.skip(f"none of these browsers is installed: {', '.join(BROWSERS)} (.ci/debian.sh)")
    picture = folder / "page.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", f"--screenshot={picture}",
        "--dump-dom", url,
    ]  # fmt: skip
    done = to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (width, height)
    if keep := os.environ.get("FIBERS_TEST_PICTURES"):
        shutil.copy(picture, Path(keep) / f"{name}.png")
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", done.stdout))
