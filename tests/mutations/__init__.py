"""Proof that the tests would notice: each promise broken on purpose, and the tests that fail then."""
