"""A release builds, installs and works away from its sources.

The wheel is built from the sdist, as a downstream packager would, so a file forgotten in the sdist breaks the
wheel. Nothing here needs a network: the build runs without isolation, and the installing environment gets
greenlet as a link to the one that runs the tests. The wheel goes into an environment of its own, and is
imported from a folder that is not the repository, because an editable install or the current folder would
hide what the wheel lacks.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from support.once import once
from support.process import FAKE_KQUEUE, ROOT

pytestmark = once

BUILD_S = 110


def call(*command: str | os.PathLike[str], cwd: Path) -> str:
    """Run a command that must succeed, and return what it printed."""
    left_out = ["PYTHONPATH", "PYTHONHOME", *(["FIBERS_EVENTLOOP"] if FAKE_KQUEUE else [])]
    bare = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        cwd=cwd,
        env=bare,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist made from the repository and the wheel made from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("fibers_runtime-*-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel and greenlet, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    call(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python),
        *("install", "--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    greenlet = distribution("greenlet")
    for name in {file.parts[0] for file in greenlet.files or []} - {".."}:
        (packages / name).symlink_to(Path(str(greenlet.locate_file(name))))
    return python


def test_sdist_holds_what_a_packager_needs(dist: Path) -> None:
    (path,) = dist.glob("fibers_runtime-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {"fibers/py.typed", "fibers/__init__.py", "tests/conftest.py", "tests/support/process.py"}
    wanted |= {"docs/testing.md"}
    wanted |= {"pyproject.toml", "Makefile", "README.md", "RFC.md", "CHANGELOG.md", "LICENSE", ".ci/run"}
    assert wanted - names == set()
    assert [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/"))] == []


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "fibers").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == sources | {"fibers/py.typed"}


def test_metadata_says_what_is_needed(metadata: Message) -> None:
    assert metadata["Name"] == "fibers-runtime"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert needed == ["greenlet>=3.5.3"]
    extras = {"bench", "bench-http", "test", "dev", "websocket", "gunicorn", "celery", "integration"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras


def test_installed_package_runs_away_from_its_sources(installed: Path, metadata: Message, tmp_path: Path) -> None:
    code = (
        "import fibers, importlib.metadata as m\n"
        "print(fibers.__file__)\n"
        "print(fibers.__version__)\n"
        "print(m.version('fibers-runtime'))\n"
        "print(fibers.run(lambda: fibers.spawn(sum, (20, 22)).result()))\n"
    )
    file, version, of_metadata, answer = call(installed, "-I", "-c", code, cwd=tmp_path).splitlines()
    assert Path(file).is_relative_to(installed.parents[1])
    assert (Path(file).parent / "py.typed").is_file()
    assert version == of_metadata == metadata["Version"]
    assert answer == "42"


def test_the_testing_kit_needs_no_pytest_and_pytest_finds_its_plugin(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as m, importlib.util as u\n"
        "import fibers\n"
        "from fibers import testing\n"
        "print(testing.run(lambda: fibers.sleep(3600) or fibers.current_time(), clock=testing.VirtualClock()))\n"
        "print(u.find_spec('pytest'), [entry.value for entry in m.entry_points(group='pytest11')])\n"
    )
    hour, plugin = call(installed, "-I", "-c", code, cwd=tmp_path).splitlines()
    assert hour == "3600.0"
    assert plugin == "None ['fibers.testing.plugin']"


def test_installed_package_answers_on_the_command_line(installed: Path, tmp_path: Path) -> None:
    assert "greenlet" in call(installed, "-I", "-m", "fibers", "info", cwd=tmp_path)


def test_type_checkers_see_the_types_of_an_installed_package(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text("import fibers\n\nreveal_type(fibers.sleep)\n")
    said = call(
        *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"),
        *("--python-executable", installed, "user.py"),
        cwd=tmp_path,
    )
    assert 'Revealed type is "def (' in said
    assert "Any" not in said
