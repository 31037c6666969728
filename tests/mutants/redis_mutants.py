"""Mutants of the Redis driver: its scripts, its link, its store."""

from __future__ import annotations

from ._runner import Mutant

_SCRIPTS = "trio_session/redis/scripts"
_LINK = "trio_session/redis/_link.py"
_STORE = "trio_session/redis/_store.py"
_SERVER = "trio_session/redis/_server.py"

REDIS_MUTANTS: tuple[Mutant, ...] = (
    # -- scripts
    Mutant(
        name="a commit does not look at the version",
        file=f"{_SCRIPTS}/_writing.lua",
        old="return id == version and (kind == '=' or kind == '?' or kind == '')",
        new="return kind == '=' or kind == '?' or kind == ''",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="a commit does not look at the lock",
        file=f"{_SCRIPTS}/commit.lua",
        old="if redis.call('GET', lock) ~= ARGV[1] then",
        new="if false then",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="a rotation does not look at the lock",
        file=f"{_SCRIPTS}/rotate.lua",
        old="if redis.call('GET', lock) ~= ARGV[1] then",
        new="if false then",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="the lock is passed on before the data is written",
        file=f"{_SCRIPTS}/commit.lua",
        old="if created == 0 then created = now() end\n",
        new="if created == 0 then created = now() end\nif heir == '' then pass_on(record, lock, queue, ARGV[2]) end\n",
        tests=("tests/test_fake_redis_faults.py::test_out_of_memory",),
    ),
    Mutant(
        name="nobody looks whether a waiter is alive",
        file=f"{_SCRIPTS}/_queue.lua",
        old="record .. ' ' .. who) == 0 then",
        new="record .. ' ' .. who) == -1 then",
        tests=("tests/test_redis_locks.py::test_a_process_that_died_in_the_queue",),
    ),
    Mutant(
        name="a commit sent again does not find itself",
        file=f"{_SCRIPTS}/_writing.lua",
        old="return id == mine or redis.call(",
        new="return redis.call(",
        tests=("tests/test_fake_redis_faults.py::test_lost_on_the_way",),
    ),
    Mutant(
        name="the answer to a commit is forgotten when another process overwrites it",
        file=f"{_SCRIPTS}/commit.lua",
        old="keep_answer(landed, kind, id, mine)\n",
        new="",
        tests=("tests/test_redis_store.py::test_what_another_process_overwrote",),
    ),
    Mutant(
        name="who comes now goes before those who wait",
        file=f"{_SCRIPTS}/acquire.lua",
        old="  while first and first ~= who do",
        new="  while false do",
        tests=("tests/test_redis_locks.py::test_the_queue_comes_first",),
    ),
    Mutant(
        name="an acquisition sent again waits for itself",
        file=f"{_SCRIPTS}/acquire.lua",
        old="if holder == who then",
        new="if false then",
        tests=("tests/test_redis_outcomes.py::test_a_lock_whose_grant_got_lost_is_had_at_once",),
    ),
    Mutant(
        name="a destroyed session leaves no tombstone",
        file=f"{_SCRIPTS}/destroy.lua",
        old="  write_tombstone(record, mine, ARGV[4])\n",
        new="  redis.call('DEL', record)\n",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="a new id starts the absolute lifetime anew on the server",
        file=f"{_SCRIPTS}/rotate.lua",
        old="if created == 0 or reason ~= 'r' then",
        new="if true then",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="every read of the record on the server slides the expiry",
        file=f"{_SCRIPTS}/_reading.lua",
        old="if whole - left >= touch or",
        new="if true or",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="a lost lease is renewed",
        file=f"{_SCRIPTS}/renew.lua",
        old="if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n",
        new="",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    Mutant(
        name="a release takes a stranger's lock away",
        file=f"{_SCRIPTS}/release.lua",
        old="if redis.call('GET', lock) == ARGV[1] then pass_on",
        new="if true then pass_on",
        tests=("tests/test_fake_redis.py::test_store_keeps_its_promises",),
    ),
    # -- link
    Mutant(
        name="the reply of a cancelled caller goes to the next",
        file=_LINK,
        old="                command = sent.popleft()\n",
        new="                while (command := sent.popleft()).withdrawn and sent:\n                    pass\n",
        tests=("tests/test_redis_link.py::test_a_late_reply_reaches_nobody",),
    ),
    Mutant(
        name="a caller cancelled in time speaks all the same",
        file=_LINK,
        old="                if not command.withdrawn:\n                    self._note_sent",
        new="                if True:\n                    self._note_sent",
        tests=("tests/test_redis_link.py::test_a_caller_cancelled_in_time_says_nothing",),
    ),
    Mutant(
        name="what was not answered is not sent again",
        file=_LINK,
        old="            elif not command.withdrawn:\n",
        new="            elif False:\n",
        tests=("tests/test_redis_link_losses.py::test_what_was_not_answered_is_sent_again",),
    ),
    Mutant(
        name="what was not answered is sent again in another order",
        file=_LINK,
        old="                self._queued.appendleft(command)\n",
        new="                self._queued.append(command)\n",
        tests=("tests/test_redis_link_losses.py::test_what_was_not_answered_is_sent_again",),
    ),
    Mutant(
        name="who insists is not waited for",
        file=_LINK,
        old="if command.insists and command.sends and not for_good:",
        new="if False:",
        tests=("tests/test_redis_link_losses.py::test_who_insists_waits_on",),
    ),
    Mutant(
        name="a silent server is waited for",
        file=_LINK,
        old="if self._sent and self._heard_at + _SILENCE <= trio.current_time():",
        new="if False:",
        tests=("tests/test_redis_link_losses.py::test_a_silent_server_is_taken_for_dead",),
    ),
    Mutant(
        name="a reply that nobody has asked for is ignored",
        file=_LINK,
        old='                    raise redis.exceptions.InvalidResponse("a reply that nobody has asked for")',
        new="                    continue",
        tests=("tests/test_redis_link.py::test_a_reply_that_nobody_has_asked_for",),
    ),
    Mutant(
        name="a command that kills connections is sent for ever",
        file=_LINK,
        old="            if command.sends >= _MOST_SENDS:",
        new="            if False:",
        tests=("tests/test_redis_link_losses.py::test_a_command_that_connections_die_of",),
    ),
    # -- store and server
    Mutant(
        name="an unknown outcome is called a refusal",
        file=_SERVER,
        old="        if command.insists and command.sends:",
        new="        if False:",
        tests=("tests/test_redis_outcomes.py::test_a_commit_that_no_connection_survives_has_an_unknown_outcome",),
    ),
    Mutant(
        name="scripts that the server has forgotten are not taught again",
        file=_SERVER,
        old="                payload = script.teach_and_call(*arguments)",
        new="                pass",
        tests=("tests/test_fake_redis_faults.py::test_flushed_scripts",),
    ),
    Mutant(
        name="heirs go on for ever while other processes wait",
        file=_STORE,
        old="return reign is None or (reign[0] < _MOST_HEIRS and",
        new="return True or (reign is not None and",
        tests=("tests/test_redis_locks.py::test_heirs_while_others_wait",),
    ),
    Mutant(
        name="a late offer gives up a lock that is held",
        file=_STORE,
        old="        if who not in self._held:\n",
        new="        if True:\n",
        tests=("tests/test_redis_locks.py::test_an_offer_that_comes_after_the_fact",),
    ),
    Mutant(
        name="an offer that nobody claims is kept",
        file=_STORE,
        old="        self._waiters = Waiters(self._refuse_offer)",
        new="        self._waiters = Waiters(lambda record, who: None)",
        tests=("tests/test_redis_locks.py::test_an_offer_nobody_claims",),
    ),
    Mutant(
        name="a process that cannot hear gets in line",
        file=_STORE,
        old="queue_life = _QUEUE_LIFE if self._control.listening else 0",
        new="queue_life = _QUEUE_LIFE",
        tests=("tests/test_fake_redis_faults.py::test_no_subscription",),
    ),
    Mutant(
        name="a lock that a commit gave up is released once more",
        file="trio_session/_locks.py",
        old="            if not released:\n",
        new="            if True:\n",
        tests=("tests/test_redis_outcomes.py::test_a_commit_gives_up_the_lock_by_itself",),
    ),
    Mutant(
        name="a release that the server does not know is forgotten",
        file=_SERVER,
        old="        self.link.post(script.call(*arguments), on_reply=teach)",
        new="        self.link.post(script.call(*arguments))",
        tests=("tests/test_redis_outcomes.py::test_a_release_that_the_server_does_not_know_is_taught",),
    ),
    Mutant(
        name="a repeated commit without a record is called a refusal",
        file=_STORE,
        old="        case -1 if command.sends == 1:",
        new="        case -1:",
        tests=("tests/test_redis_outcomes.py::test_a_record_that_vanished_leaves_a_repeated_commit_unknown",),
    ),
)
