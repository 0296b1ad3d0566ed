"""Gives a Linux that has no kqueue the fake one, in this process and in each child: for `make test-fake-kqueue`.

Python imports a module of this name at its start, if it is found; the folder is on PYTHONPATH there, and nowhere else. So
what is tested is the package as it is, which finds `select.kqueue` as on macOS and the BSDs.
"""

import importlib.util
import os
import select
import sys
from pathlib import Path


def _install() -> None:
    import selectors  # noqa: F401 - now, so that it keeps to epoll: the fake has only what the kqueue poller needs

    path = Path(__file__).parents[1] / "fake_kqueue.py"
    spec = importlib.util.spec_from_file_location("support.fake_kqueue", path)
    assert spec is not None
    assert spec.loader is not None
    fake = sys.modules["support.fake_kqueue"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    for name in ("kqueue", "kevent", *(name for name in vars(fake) if name.startswith("KQ_"))):
        setattr(select, name, getattr(fake, name))


if os.environ.get("FIBERS_TEST_FAKE_KQUEUE") == "1" and not hasattr(select, "kqueue"):
    _install()
