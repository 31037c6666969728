-- What is written, and how it is known later that it was. _reading.lua has the format.

-- What is stored: its kind ("" nothing, "?" not ours), the id of its commit, and when it was created (0: unknown).
local function look(record)
  local head = redis.pcall('GETRANGE', record, 0, 32)
  if head == '' then return '', '', 0 end
  if type(head) == 'table' then
    if not string.find(head.err, 'WRONGTYPE', 1, true) then error(head.err) end
    return '?', string.rep('?', 16), 0
  end
  local kind = #head == 33 and string.match(head, '^ts1([=dor])')
  if not kind then return '?', redis.sha1hex(redis.call('GET', record)), 0 end
  return kind, string.sub(head, 5, 20), tonumber(string.sub(head, 21, 33)) or 0
end

-- May `version` be replaced? What has ended may not.
local function is_living(kind, id, version)
  return id == version and (kind == '=' or kind == '?' or kind == '')
end

local function write_record(key, mine, created, data, ms)
  local value = 'ts1=' .. mine .. string.format('%013.0f', created) .. data  -- %s would stop at a zero byte
  if ms < 0 then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ms) end
end

local TOMBSTONE = 60000  -- ms; TOMBSTONE_LIFETIME in trio_session.abc
local ANSWER = 300000    -- ms; longer than anybody asks what became of a commit

local function write_tombstone(key, mine, reason)
  redis.call('SET', key, 'ts1' .. reason .. mine .. string.rep('0', 13), 'PX', TOMBSTONE)
end

-- The commit `id`, if it was another caller's, has been overwritten. Its owner may still be asking whether it ever
-- landed, if the answer was lost: `landed` keeps the last one of each. (A caller has one commit per key at a time.)
local function keep_answer(landed, kind, id, mine)
  local caller = string.sub(id, 1, 8)
  if kind ~= '' and kind ~= '?' and caller ~= string.sub(mine, 1, 8) then
    redis.call('HSET', landed, caller, id)
    redis.call('PEXPIRE', landed, ANSWER)
  end
end

-- Has the commit `mine` landed before, and only its answer been lost?
local function has_landed(landed, id, mine)
  return id == mine or redis.call('HGET', landed, string.sub(mine, 1, 8)) == mine
end
