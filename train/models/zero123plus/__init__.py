"""Zero123++ v1.2: generates six views of an object from one picture."""
