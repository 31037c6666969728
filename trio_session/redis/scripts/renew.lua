-- Extend a lease, if it is still ours. One script per lock: locks of many slots need no batch of their own.
--
-- KEYS  lock
-- ARGV  1 who  2 lease in ms
-- Returns 1 if it is ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
