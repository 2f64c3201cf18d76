"""What must hold when Redis, a connection or a process fails."""
