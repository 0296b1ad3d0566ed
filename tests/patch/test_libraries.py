"""Libraries that wait in C are told to wait otherwise: whether they are loaded before the patch or after it, and undone.

Whether they do wait otherwise is shown by the programs of tests/integration.
"""

from pathlib import Path

from support.process import run_python

LIBRARIES = """
import sys
from importlib.machinery import SourceFileLoader
import fibers.patch
if "early" in sys.argv:
    import psycopg, psycopg2.extensions
with fibers.patch.applied():
    import psycopg, psycopg2.extensions
    from psycopg import waiting
    assert waiting.wait is waiting.wait_poll, waiting.wait
    assert psycopg2.extensions.get_wait_callback() is not None
    for module in psycopg2.extensions, waiting:
        loader = module.__spec__.loader
        assert module.__loader__ is loader and isinstance(loader, SourceFileLoader), loader
assert waiting.wait is waiting.wait_c, waiting.wait
assert psycopg2.extensions.get_wait_callback() is None
assert not any(type(finder).__module__.startswith("fibers") for finder in sys.meta_path)

psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select if hasattr(psycopg2, "extras") else print)
mine = psycopg2.extensions.get_wait_callback()
with fibers.patch.applied():
    assert psycopg2.extensions.get_wait_callback() is mine
assert psycopg2.extensions.get_wait_callback() is mine
psycopg2.extensions.set_wait_callback(None)
with fibers.patch.applied(libraries=False):
    assert waiting.wait is waiting.wait_c, waiting.wait
    assert psycopg2.extensions.get_wait_callback() is None
"""

# A module that raises when it is loaded is not there, and is asked again; one that has been is told once.
IMPORTING = """
import importlib, importlib.util, sys
from fibers.patch.importing import when_imported
from fibers.patch.journal import Journal
told = []
journal = Journal()
for name in "fails", "works", "works.inside", "sys", "never":
    when_imported(journal, name, lambda journal, module: told.append(module.__name__))
for _ in range(2):
    try:
        import fails
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError
assert importlib.util.find_spec("works").name == "works"  # only looked for
import works.inside
importlib.reload(works)
print(told)
open("fails.py", "w").write("fine = True")
importlib.invalidate_caches()
import fails
journal.undo()
print(told, len(told), any(type(finder).__module__.startswith("fibers") for finder in sys.meta_path))
"""


def test_libraries_are_told_whenever_they_are_loaded_and_as_long_as_the_patch_holds(tmp_path: Path) -> None:
    for arguments in ([], ["early"]):
        child = run_python("-c", LIBRARIES, *arguments, cwd=tmp_path)
        assert child.returncode == 0, child.stderr


def test_what_is_done_to_a_module_is_done_once_it_has_been_loaded(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("1 / 0\n")
    (tmp_path / "works").mkdir()
    (tmp_path / "works" / "__init__.py").write_text("")
    (tmp_path / "works" / "inside.py").write_text("import works\n")
    child = run_python("-B", "-c", IMPORTING, cwd=tmp_path)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split("\n")[:2] == [
        "['sys', 'works', 'works.inside']",
        "['sys', 'works', 'works.inside', 'fails'] 4 False",
    ]
