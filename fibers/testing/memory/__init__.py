"""In-memory sockets: pairs, and a network of listeners, without file descriptors. See network.py, socket.py, flow.py."""

from .flow import Link
from .network import MemoryListener, MemoryNetwork, memory_network
from .socket import MemorySocket, memory_pair

__all__ = ["Link", "MemoryListener", "MemoryNetwork", "MemorySocket", "memory_network", "memory_pair"]
