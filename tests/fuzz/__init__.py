"""Nasty input from everywhere: never a 500, never a leak, never a hang.

Each kind has a corpus, `corpus/<kind>.txt`, whose every line was trouble somewhere once, to us or to others: it is
tried as it stands, and then broken further at random. Where an input has a grammar, Hypothesis tries that as well. What
is found goes into the corpus. `make test` tries ten thousand inputs, `make soak` a million.
"""
