"""Input and output that suspends the fiber and not the thread, under the standard library's names.

`from fibers.io import socket` is a drop-in for `import socket`.
"""
