"""What pruners share."""
