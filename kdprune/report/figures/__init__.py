"""The figures of a report, each a function from a section to what is to be drawn, or to why there is nothing."""
