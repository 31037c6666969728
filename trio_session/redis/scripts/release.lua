-- Give up the lock, or the place in its queue; whichever `who` has, if any.
--
-- KEYS  record lock queue landed
-- ARGV  1 who  2 grace
redis.call('LREM', queue, 0, ARGV[1])
if redis.call('GET', lock) == ARGV[1] then pass_on(tonumber(ARGV[2])) end
return 1
