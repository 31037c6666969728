"""Mutants of what finds the right server, and of the encryption."""

from __future__ import annotations

from ._runner import Mutant

TOPOLOGY_MUTANTS: tuple[Mutant, ...] = (
    # -- who has what
    Mutant(
        name="a slot table forgets the last slot of a range",
        file="trio_session/redis/_slots.py",
        old="owners[first : last + 1] = [endpoints[0]] * (last + 1 - first)",
        new="owners[first:last] = [endpoints[0]] * (last - first)",
        tests=("tests/test_redis_slots.py::test_a_table",),
    ),
    Mutant(
        name="a node that does not tell its host is called ?",
        file="trio_session/redis/_slots.py",
        old='if name not in {b"", b"?"}:',
        new='if name != b"":',
        tests=("tests/test_redis_slots.py::test_a_table",),
    ),
    Mutant(
        name="a slot that is on the move is taken for one that has moved",
        file="trio_session/redis/_slots.py",
        old='return cls(found[1] == "ASK",',
        new="return cls(False,",
        tests=("tests/test_redis_slots.py::test_redirections",),
    ),
    Mutant(
        name="a redirection may name any slot",
        file="trio_session/redis/_slots.py",
        old="if found is None or int(found[2]) >= SLOTS:",
        new="if found is None:",
        tests=("tests/test_redis_slots.py::test_redirections",),
    ),
    Mutant(
        name="connections to a node without slots are kept",
        file="trio_session/redis/_cluster.py",
        old='            node.stop(GoneError(f"{node.name} has no slots any more"))\n',
        new="            del node\n",
        tests=("tests/test_redis_topology.py::test_a_node_without_slots_is_let_go",),
    ),
    # -- who is the primary
    Mutant(
        name="the answer before the last election counts",
        file="trio_session/redis/_sentinel.py",
        old="_, host, port = max(await ask_all(",
        new="_, host, port = min(await ask_all(",
        tests=("tests/test_redis_sentinel.py::test_the_last_election_counts",),
    ),
    Mutant(
        name="elections of other services are heeded",
        file="trio_session/redis/_sentinel.py",
        old="if service == self._destination.service and primary",
        new="if primary",
        tests=("tests/test_redis_sentinel.py::test_news_that_change_nothing",),
    ),
    Mutant(
        name="news of an election are not heeded",
        file="trio_session/redis/_sentinel.py",
        old='            self._node.link.leave(redis.exceptions.ConnectionError(f"the primary is {primary} now"))',
        new="            pass",
        tests=("tests/test_redis_sentinel.py::test_news_of_an_election",),
    ),
    Mutant(
        name="Sentinels that will not tell are asked for ever",
        file="trio_session/redis/_asking.py",
        old="    kind = RefusedError if refusals else redis.exceptions.ConnectionError",
        new="    kind = redis.exceptions.ConnectionError",
        tests=("tests/test_redis_topology.py::test_one_who_will_not_tell_counts_more_than_those_who_are_away",),
    ),
    # -- encryption
    Mutant(
        name="an unknown key is taken for an altered record",
        file="trio_session/_encryption.py",
        old="cipher = self._ring.get(head[len(ENCRYPTED) :])",
        new="cipher = self._ring.get(head[len(ENCRYPTED) :], self._ring[self._first])",
        tests=("tests/test_encryption.py::test_a_lost_key_is_named",),
    ),
    Mutant(
        name="a roll-out begins with records that others cannot read",
        file="trio_session/_encryption.py",
        old='if self._plaintext == "write":',
        new="if False:",
        tests=("tests/test_encryption.py::test_encryption_is_rolled_out_under_users_who_are_logged_in",),
    ),
)
