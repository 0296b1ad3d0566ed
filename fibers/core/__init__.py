"""What a fiber is, how it waits and ends, and the scheduler that runs the fibers of a thread.

    fiber        one fiber: its result, its scopes, what interrupts it
    standby      something that waits for a file without being a fiber
    waitqueue    where fibers wait: a place that is left exactly once
    guard        the one lock for changes of several steps
    carrierpool  the greenlets that run fibers, and are used again
    tracebacks   without the frames of this package
    courtesy     a busy loop lets other threads have the interpreter
    choosing     what `select` and its cases agree upon
    carriers     a carrier's life: next fiber, its end, what is thrown into it
    endings      who is told that a fiber has ended
    scheduler    park, wake, the turn of the loop
    runtime      `spawn`, `sleep`, `current`
    local        `Local`
    cancel       scopes, deadlines, shields
    lifecycle    how a scheduler comes up, ends, and survives fork
    dump         a picture of all fibers

They stand in the order in which they may import one another.
"""
