-- Remove the record, leave a tombstone, and give up the lock.
--
-- KEYS  record lock queue landed
-- ARGV  1 who  2 grace  3 id of this commit  4 kind of the tombstone
-- Returns 1 done; 0 or -1 lock lost, as commit.lua does.
local record, lock, queue, landed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mine = ARGV[3]
local kind, id = look(record)

if redis.call('GET', lock) ~= ARGV[1] then
  if has_landed(landed, id, mine) then return 1 end
  return kind == '' and -1 or 0
end
if kind == '=' or kind == '?' then
  write_tombstone(record, mine, ARGV[4])
  keep_answer(landed, kind, id, mine)
end
pass_on(record, lock, queue, ARGV[2])
return 1
