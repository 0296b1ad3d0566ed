"""asyncio: the stdlib's loop, as it comes."""

from __future__ import annotations

import asyncio

from bench.runtimes import tasks, tasks_echo, tasks_tls

WORKLOADS = {**tasks.workloads(asyncio.new_event_loop), **tasks_tls.workloads(asyncio.new_event_loop)}
ECHO = tasks_echo.servers(asyncio.new_event_loop)
