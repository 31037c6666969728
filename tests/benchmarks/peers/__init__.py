"""One small application per library, written as that library's documentation shows, and served as its users do.

Each has the same routes: `/read` answers with a number of the session, `/change` adds one to it, and so does `/slow`,
where there is a store in memory, with a millisecond in between. `/bare` answers alike and needs no session.
"""
