"""From pictures of an object to a file with its mesh: query, six views, surface, texture."""
