-- Take the lock and read the record; or, if somebody else has it, get in line.
--
-- Sent again with the same `who`, it finds what it did the first time: a lost reply does no harm. The same call also
-- claims a lock that was offered.
--
-- KEYS  record lock queue
-- ARGV  1 who  2 lease  3 grace  4 life of the queue, or 0: do not enter it  5 idle  6 absolute  7 touch interval
-- Returns {value, slid}, or for how many ms somebody else still holds the lock.
local record, lock, queue = KEYS[1], KEYS[2], KEYS[3]
local who, lease = ARGV[1], ARGV[2]

local function get_in_line()
  if ARGV[4] ~= '0' then
    if not redis.call('LPOS', queue, who) then redis.call('RPUSH', queue, who) end
    redis.call('PEXPIRE', queue, ARGV[4])
  end
  return redis.call('PTTL', lock)
end

local holder = redis.call('GET', lock)
if holder == who then
  redis.call('PEXPIRE', lock, lease)
elseif holder then
  return get_in_line()
else
  -- Free. Those in the queue come first, as far as they are alive.
  local first = redis.call('LPOP', queue)
  while first and first ~= who do
    if offer(record, lock, first, ARGV[3]) then return get_in_line() end
    first = redis.call('LPOP', queue)
  end
  redis.call('SET', lock, who, 'PX', lease)
end
return read(record, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
