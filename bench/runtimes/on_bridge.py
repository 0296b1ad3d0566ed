"""asyncio programs on the loop of `fibers.asyncio`: the same code as on_asyncio.py, another loop."""

from __future__ import annotations

from bench.runtimes import tasks, tasks_echo, tasks_tls
from fibers.asyncio import new_event_loop

WORKLOADS = {**tasks.workloads(new_event_loop), **tasks_tls.workloads(new_event_loop)}
ECHO = tasks_echo.servers(new_event_loop)
