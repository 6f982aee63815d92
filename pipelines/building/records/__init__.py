"""The records of builds: that of the last one in build.json, and one of each in builds/."""
