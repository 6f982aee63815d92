"""Reading of weight files whose memory and time are bounded by the bytes of the file."""
