"""The host's evaluation of clauses."""
