-- Move the record to a new key, leave a tombstone, and give up the lock.
--
-- Nobody else knows the new key yet, so it needs no lock.
--
-- KEYS  record lock queue landed, new record
-- ARGV  1 who  2 grace  3 version that was read  4 id of this commit  5 data  6 idle  7 absolute
--       8 kind of the tombstone
-- Returns as commit.lua does: 1, 0, -1, or a kind.
local record, lock, queue, landed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mine, reason = ARGV[4], ARGV[8]
local kind, id, created = look(record)

local is_ours = redis.call('GET', lock) == ARGV[1]
if not is_ours or not is_living(kind, id, ARGV[3]) then
  if is_ours then pass_on(record, lock, queue, ARGV[2]) end
  if has_landed(landed, id, mine) then return 1 end
  if is_ours then return kind end
  return kind == '' and -1 or 0
end

if created == 0 or reason ~= 'r' then created = now() end
write_record(KEYS[5], mine, created, ARGV[5], span(created, tonumber(ARGV[6]), tonumber(ARGV[7])))
write_tombstone(record, mine, reason)
keep_answer(landed, kind, id, mine)
pass_on(record, lock, queue, ARGV[2])
return 1
