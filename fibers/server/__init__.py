"""Servers: connections accepted in fibers, one loop per thread."""
