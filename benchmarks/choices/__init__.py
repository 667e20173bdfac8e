"""Small measurements behind docs/decisions: each sets what was chosen beside what could have been, in one run."""
