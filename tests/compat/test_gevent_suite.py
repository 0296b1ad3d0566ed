"""A part of gevent's own tests, on our names: see tests/support/gevent_suite.py. `make test-gevent` runs all that count.

These are quick, and do not hang on how busy the machine is.
"""

from support.process import ROOT, run_python

FILES = ["test__joinall", "test__iwait", "test__greenlet", "test__pool", "test__event", "test__queue"]
CHOSEN = [
    "TestKill", "TestUnlink", "TestStr", "PoolBasicTests", "TestErrorIn", "AsLinkTarget", "SetThenClear",
    "TestQueue.test_sh", "test_max_size", "test_senders", "test_iwait", "Test.test",
]  # fmt: skip


def test_what_gevent_asks_of_itself() -> None:
    arguments = [argument for word in CHOSEN for argument in ("-k", word)]
    done = run_python(
        "-m", "support.gevent_suite", "--here", *FILES, *arguments,
        env={"PYTHONPATH": str(ROOT / "tests"), "CI": "1"},  # gevent is patient on CI
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if line.endswith("left out")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(told) == len(FILES)
    assert all(" 0 failed" in line and " 0 run" not in line for line in told), told
