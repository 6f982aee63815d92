"""Access to remote services: notices of long waits, and limits of clients of object stores."""
