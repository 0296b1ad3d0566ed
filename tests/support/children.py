"""The children of this process, zombies too: servers that live as long as the run are among them."""

import os
from pathlib import Path

from support.process import run_python


def child_pids() -> set[int]:
    """Their process ids."""
    if not Path("/proc/self/stat").exists():
        script = (
            "import os, subprocess\n"
            f"for pid in subprocess.check_output(['pgrep', '-P', '{os.getpid()}'], text=True).split():\n"
            "    if int(pid) != os.getpid():\n"
            "        print(pid)\n"
        )
        return {int(pid) for pid in run_python("-c", script).stdout.split()}
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if int(fields[1]) == os.getpid():
            found.add(int(folder.name))
    return found
