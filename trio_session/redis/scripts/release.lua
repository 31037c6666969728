-- Give up the lock, or the place in its queue; whichever `who` has, if any.
--
-- KEYS  record lock queue
-- ARGV  1 who  2 grace
local record, lock, queue = KEYS[1], KEYS[2], KEYS[3]
redis.call('LREM', queue, 0, ARGV[1])
if redis.call('GET', lock) == ARGV[1] then pass_on(record, lock, queue, ARGV[2]) end
return 1
