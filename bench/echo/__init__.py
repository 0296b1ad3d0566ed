"""TCP echo: the server of one runtime in one process, the load in another, each on a core of its own."""
