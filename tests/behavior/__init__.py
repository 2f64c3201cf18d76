"""What the package does, in one process and with a Redis, real or embedded."""
