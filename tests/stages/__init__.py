"""Stages for tests of the job layer alone; named in plans by their dotted module name."""
