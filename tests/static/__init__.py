"""What can be told without serving anybody: types, signatures, completion, the wheel."""
