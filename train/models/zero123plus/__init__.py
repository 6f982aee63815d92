"""Zero123++ v1.2: one picture of an object to six views of it."""
