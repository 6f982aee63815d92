"""Programs that also get the metrics and previews of a run, one file each."""
