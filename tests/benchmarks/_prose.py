"""What the page says around its numbers. The numbers change with every run, so no sentence here names one of them."""

from __future__ import annotations

INTRODUCTION = """\
This library beside others that do the same job, measured over HTTP by `make bench`, which writes this page. Each runs
on the server that its users run it on, and is compared with *its own* bare application on that server: the question
is what sessions cost, not which server is fastest. Bold is what is better than trio_session. All numbers are medians;
the [raw ones](_static/benchmarks.json), round by round, are there too."""

QUICKLY = """\
> **A glance.** These numbers are from `make bench ARGS=--quick`: few rounds, short turns. Believe the order of
> magnitude, no more."""

BUSILY = """\
> **A busy machine.** Other work ran beside this measurement, as the load says. Believe the round trips and the lost
> updates; of all that is time, believe the order of magnitude."""

COSTS = """\
Sessions on Redis, {clients} clients at once, each with a session of its own that holds about 300 bytes. A *read*
answers with a number of the session, a *change* adds one to it: under the lock, where there is one. *Bare* is the
same application on the same server without sessions.

What is added is what a session takes from a core, whatever the server. Redis's own CPU is beside it, since a script on
its side may save a round trip on ours. The two rows with Starlette on Hypercorn's trio worker, trio_session's and
coredis's, differ in nothing but the session."""

RATES = """\
Requests per second of one worker tell above all how fast the server is: uvicorn and aiohttp parse HTTP in C, Hypercorn
on Trio does so in Python."""

CONTENDED = """\
{contenders} clients change one session for all they are worth: a browser with many tabs, or one page with many
requests. A lock is there so that none of these changes is lost. *Lost* are the changes that were answered with
success and that the session knows nothing of afterwards. A *share* is what one client got in a turn, where 1 is as
much as the others; with a fair queue all of them are near 1. A library without a lock is quick here because it does
not do the job."""

MEMORY = """\
The stores in one process's memory. A library that waits for nothing between reading and writing cannot lose an
update, and no handler is like that; so here the contended handler waits for a millisecond in between, as for a
database. With a lock that bounds the throughput: a thousand changes per second and not one more."""

BESIDE = "All of it, by the measures above, the best first."

METHOD = """\
- Every library has two servers in processes of their own: the bare application and the one with sessions. They are
  started with the command lines that their users write, one worker each, and one Redis server for all.
- In each of {rounds} rounds everybody has its turns: {seconds} s of bare requests, as long of reads and of changes,
  and twice as long contended. A machine that is slow for a while is slow for all of them, and the added CPU is the
  difference of two turns of the same round. Before each turn comes a short one that does not count.
- The clients are one process with one poll loop (`tests/benchmarks/_clients.py`). Each sends its next request when it
  has its answer. At the end they send no more and wait for what is under way, so that lost updates can be counted
  exactly.
- CPU is the user and system time of the server's processes, all children counted, by the kernel's clock for each of
  them, divided by all answers. Redis's own is counted separately.
- A round trip is what Redis reads at once (`total_reads_processed` of `INFO stats`), counted with a single client.
  The commands are those of `INFO commandstats`; those that run inside of scripts are among them.
- The two locks are written by hand around GET and SET, as the documentation of redis-py and coredis shows, with their
  default settings; there is no session library with a lock to measure.
- The applications are in `tests/benchmarks/peers`, a short file each."""

LIMITS = """\
- Not which server is fast, and not what TLS, HTTP/2, a proxy, a network between the server and Redis, or many cores
  change. With Redis on another host each round trip costs its latency, and the column of the round trips counts most.
- Server, clients and Redis share one machine. Wall times (requests per second, p50, p99) are those of this crowd; CPU
  and round trips are more robust.
- The bare application on Hypercorn's trio worker is not a clean zero. Handlers that wait for something are cheaper
  there than those that answer at once, since more requests are ready in each turn of the loop; so the added CPU can
  be small, or even below zero. Compare the rows on this server with each other.
- What is added is not the same everywhere: some libraries write with every request and so slide the expiry each time,
  some sign their cookies, some do not look after cookies at all (the two hand-made locks). trio_session reads the
  session before the handler runs, and once more under the lock; a route with `autoload=False` saves the first.
- One worker each. With several, locks in Redis still hold; a lock in one process's memory would not."""

REPEAT = """\
```console
$ make bench                        # this page and its plots, then the comparisons: a quarter of an hour
$ make bench ARGS=--quick           # all of it in a few minutes, roughly
$ make bench ARGS=document          # this page alone
$ make bench ARGS="--quick Redis"   # only the comparisons with the word in their name
$ make bench ARGS=--list            # what there is
```

It needs Linux, Python 3.11 or newer, and a Redis server: `redis-server` or `valkey-server` on `PATH`, or the one that
comes as a wheel. The other libraries are installed into an environment of their own (`.venv-bench`), in the newest
versions there are. A library that fails is a line of this page, and the others are measured all the same. Close what
else runs on the machine; the load at the start is told above."""
