"""uvloop: the asyncio programs on libuv."""

from __future__ import annotations

import uvloop

from bench.runtimes import tasks, tasks_echo, tasks_tls

WORKLOADS = {**tasks.workloads(uvloop.new_event_loop), **tasks_tls.workloads(uvloop.new_event_loop)}
ECHO = tasks_echo.servers(uvloop.new_event_loop)
