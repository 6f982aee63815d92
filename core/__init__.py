"""What every package needs: errors, configuration, options, storage, locks, safe text."""
