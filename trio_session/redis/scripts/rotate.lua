-- Move the record to a new key, leave a tombstone, and give up the lock.
--
-- Nobody else knows the new key yet, so it needs no lock.
--
-- KEYS  record lock queue landed, new record
-- ARGV  1 who  2 grace  3 version that was read  4 id of this commit  5 data  6 idle  7 absolute
--       8 kind of the tombstone
-- Returns as commit.lua does: 1, 0, -1, or a kind.
local who, grace, version, mine, data = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local reason = ARGV[8]
local kind, id, created = look()

if redis.call('GET', lock) ~= who then
  if has_landed(id, mine) then return 1 end
  return kind == '' and -1 or 0
end
if id ~= version or (kind ~= '=' and kind ~= '?' and kind ~= '') then
  pass_on(grace)
  return kind
end

if created == 0 or reason ~= 'r' then created = now() end
write(KEYS[5], header('=', mine, created) .. data, span(created, tonumber(ARGV[6]), tonumber(ARGV[7])))
redis.call('SET', record, header(reason, mine, 0), 'PX', TOMBSTONE)
keep_answer(kind, id, mine)
pass_on(grace)
return 1
