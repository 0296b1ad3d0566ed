"""`python -m fibers info --backends`: what each event loop that is usable here costs, measured on the same programs.

    figures     what is measured, as data; ratios and medians
    rounds      the timing: servers under load, in rounds, the loops taking turns
    counts      the counting: system calls and registrations of operations that wait
    table       the table

How the figures are kept honest:

* One machine's speed drifts by a factor of two within minutes, so no figure here is absolute. In each round every loop
  has its turn, in a fresh process, the order moving on by one; a ratio is taken inside one round, and the median of the
  rounds is shown.
* The clients are the same for every loop: one process, on the default loop, whatever loop this process is told to use.
  What their work costs is part of requests/s, and hides differences there. CPU time is the server's alone.
* What is counted is not timed, and what is timed is not traced.
* A wake-up is counted by the loop and by the kernel, and the greater number stands: a loop could wake up inside C without
  its own counter noticing, and a loop that never sleeps would not be noticed by the kernel's count of sleeps.

`make bench-backends` is the same at greater length.
"""
