-- The lock of a session and the queue for it.
--
-- "Who" is 16 hex digits that name a process's channel, followed by the token of one acquisition.

-- Offer the lock to `who`, for `grace` ms. False if nobody listens for it: then its process is gone.
local function offer(record, lock, who, grace)
  local channel = string.match(record, '^[^{]*') .. 'p:' .. string.sub(who, 1, 16)
  local heard = redis.pcall('PUBLISH', channel, record .. ' ' .. who)  -- an error: the user may not publish
  if type(heard) == 'table' or heard == 0 then return false end
  redis.call('SET', lock, who, 'PX', grace)
  return true
end

-- Give up the lock: to the first in the queue that is alive, else to whoever comes.
local function pass_on(record, lock, queue, grace)
  local who = redis.call('LPOP', queue)
  while who do
    if offer(record, lock, who, grace) then return end
    who = redis.call('LPOP', queue)
  end
  redis.call('DEL', lock)
end
