"""An HTTP/1.1 server in plain blocking handlers."""
