"""Applications that the tests run in a server's process."""
