"""What a build would lose or redo, said before anything is written."""
