"""The benchmark suite: `fibers` against its peers, on the same work, in the same run.

How the numbers are kept honest:

* A shared machine drifts by a factor of two within minutes -> absolute numbers from different minutes
  cannot be compared -> every (workload, runtime) runs in a process of its own, the processes alternate A B
  C ... A B C ..., and a ratio is the median over the rounds of ratios taken *inside* one round.
* Wall time on a shared machine counts the neighbours -> micro-benchmarks and servers are charged in CPU
  time, user and system apart. The kernel splits the two by sampling ticks (often 4 ms), so short samples
  have an exact sum and a rough split: workloads whose budget is about user time run longer, and ratios of
  user time are good to about a tenth in three rounds. Before arguing about less, `--rounds 9`.
* A peer in a slow mode proves nothing -> each runtime is written the way its own users write it (`sock_*`,
  streams and Protocol are separate flavours), with TCP_NODELAY, the same message sizes and the default
  garbage collector.
* A load generator that cannot keep up measures itself -> the echo client is C where a compiler is present,
  in another process on another core, and the server's CPU per request is the figure; requests per second
  stand beside it.

`python -m bench` runs it, `python -m bench.syscalls` counts system calls, `bench/test_micro.py` is the same
work under pytest-benchmark.
"""
