"""The steady state of a server."""
