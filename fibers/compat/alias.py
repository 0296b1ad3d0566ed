"""Other people's names for our modules."""

import sys


def stand_in(package: str, name: str) -> None:
    """Make `import name` mean our package, and its modules those of the package, in this process.

    Raises RuntimeError if a package of that name has been imported before.
    """
    there = sys.modules.get(name)
    if there is sys.modules[package]:
        return
    if there is not None:
        raise RuntimeError(f"{name} has been imported before: call install() first thing in the program")
    for each, module in list(sys.modules.items()):
        if each == package or each.startswith(f"{package}."):
            sys.modules[name + each.removeprefix(package)] = module
