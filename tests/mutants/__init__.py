"""Do the tests notice when the code breaks? `python -m tests.mutants` breaks it on purpose, once per mutant."""
