"""What finished and unfinished runs say, together."""
