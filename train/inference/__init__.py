"""From six views of an object to a file with its mesh."""
