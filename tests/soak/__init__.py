"""Everything fails in random order under load, and each client's record is checked."""
