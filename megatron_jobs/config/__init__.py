"""Configuration: typed trees, read from YAML and `key=value` words, with all faults at once."""
