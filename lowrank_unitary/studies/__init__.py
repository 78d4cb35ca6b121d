"""Studies that use the library the way a reader would: from its public names only."""
