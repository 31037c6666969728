-- The whole record, and whether this has slid its expiry (1 or 0). The value is empty if there is none.
--
-- A value begins with a header of 33 bytes: "ts1", a kind, the id of the commit that wrote it (8 bytes of caller, 8 of
-- number), and the time of its creation in ms (13 digits). Kinds: "=" a record; "d" "o" "r" a tombstone, of a session
-- that was destroyed, orphaned, or replaced.
local function read(record, idle, absolute, touch)
  local value = redis.pcall('GET', record)
  if not value then return {'', 0} end
  if type(value) == 'table' then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then return value end
    return {'ts1?' .. string.rep('?', 16) .. string.rep('0', 13), 0}
  end
  if string.sub(value, 1, 4) ~= 'ts1=' or #value < 33 then return {value, 0} end
  local whole = span(absolute < 0 and 0 or tonumber(string.sub(value, 21, 33)) or now(), idle, absolute)
  local left = redis.call('PTTL', record)
  if whole < 0 then
    return {value, left < 0 and 0 or redis.call('PERSIST', record)}
  end
  -- Slid at most once per `touch`. More time left than the settings allow: they have changed.
  if whole - left >= touch or left < 0 or left > whole then
    return {value, redis.call('PEXPIRE', record, whole)}
  end
  return {value, 0}
end
