-- What the scripts below share; it stands in front of each of them but renew.lua.
--
-- KEYS, all of one session and so of one slot:
local record = KEYS[1]   -- STRING  header and data, or a tombstone; expires with the session
local lock = KEYS[2]     -- STRING  who holds the lock; expires with the lease
local queue = KEYS[3]    -- LIST    who waits for it, one entry per process
local landed = KEYS[4]   -- HASH    the last commit of each process that another process has overwritten
--
-- "Who" is 16 hex digits that name a process's channel, followed by the token of one acquisition.
--
-- A value begins with a header: "ts1", a kind, the id of the commit that wrote it (8 bytes of process, 8 of number),
-- and the time of creation in ms. The kinds: "=" a record; "d" "o" "r" a tombstone: destroyed, orphaned, replaced.
local HEADER = 33        -- bytes
local TOMBSTONE = 60000  -- ms; TOMBSTONE_LIFETIME in trio_session.abc

-- What is stored: its kind ("" nothing, "?" not ours), the id of its commit, and when it was created.
local function look()
  local head = redis.pcall('GETRANGE', record, 0, HEADER - 1)
  if type(head) == 'table' then return '?', string.rep('?', 16), 0 end   -- WRONGTYPE: not even a string
  if head == '' then return '', '', 0 end
  local kind = string.match(head, '^ts1([=dor])')
  if not kind or #head < HEADER then return '?', redis.sha1hex(redis.call('GET', record)), 0 end
  return kind, string.sub(head, 5, 20), tonumber(string.sub(head, 21, 33))
end

local function header(kind, id, created)
  return 'ts1' .. kind .. id .. string.format('%013.0f', created)
end

local function now()  -- ms
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- How long a record may live from now on, in ms; -1: for ever. It is at least 1, as Redis refuses less.
local function span(created, idle, absolute)
  if absolute < 0 then return idle end
  local rest = math.max(1, created + absolute - now())
  if idle >= 0 and idle < rest then return idle end
  return rest
end

local function write(key, value, ms)
  if ms < 0 then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ms) end
end

-- Slide the expiry, if that was not done for `touch` ms. Returns 1 if it was done now.
local function slide(created, idle, absolute, touch)
  local left = redis.call('PTTL', record)
  local whole = span(created, idle, absolute)
  if whole < 0 then
    return left < 0 and 0 or redis.call('PERSIST', record)
  end
  if left < 0 or left > whole or whole - left >= touch then
    return redis.call('PEXPIRE', record, whole)
  end
  return 0
end

-- The whole record and whether its expiry was slid, as both ways of reading return them.
local function read(idle, absolute, touch)
  local value = redis.pcall('GET', record)
  if type(value) == 'table' then return {header('?', string.rep('?', 16), 0), 0} end
  if not value then return {'', 0} end
  if string.sub(value, 1, 4) ~= 'ts1=' or #value < HEADER then return {value, 0} end
  return {value, slide(tonumber(string.sub(value, 21, 33)), idle, absolute, touch)}
end

-- Offer the lock to `who` for `grace` ms: true if its process has been told. One that nobody listens for is dead.
local function offer(who, grace)
  local prefix = string.match(record, '^[^{]*')
  if redis.call('PUBLISH', prefix .. 'p:' .. string.sub(who, 1, 16), record .. ' ' .. who) == 0 then return false end
  redis.call('SET', lock, who, 'PX', grace)
  return true
end

-- Give up the lock: to the first in the queue that is alive, else to whoever comes.
local function pass_on(grace)
  local who = redis.call('LPOP', queue)
  while who do
    if offer(who, grace) then return end
    who = redis.call('LPOP', queue)
  end
  redis.call('DEL', lock)
end

-- A record of another process was overwritten. Its owner may still be asking whether it ever landed: keep the answer.
local function keep_answer(kind, id, mine)
  local process = string.sub(id, 1, 8)
  if kind ~= '' and kind ~= '?' and process ~= string.sub(mine, 1, 8) then
    redis.call('HSET', landed, process, id)
    redis.call('PEXPIRE', landed, TOMBSTONE)
  end
end

-- Has the commit `mine` landed before, and only its answer been lost?
local function has_landed(id, mine)
  return id == mine or redis.call('HGET', landed, string.sub(mine, 1, 8)) == mine
end
