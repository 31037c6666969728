-- Remove the record, leave a tombstone, and give up the lock.
--
-- KEYS  record lock queue landed
-- ARGV  1 who  2 grace  3 id of this commit  4 kind of the tombstone
-- Returns 1 done; 0 lock lost, nothing was done.
local who, grace, mine, reason = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local kind, id = look()

if redis.call('GET', lock) ~= who then
  if kind == '' or has_landed(id, mine) then return 1 end
  return 0
end
if kind == '=' or kind == '?' then
  redis.call('SET', record, header(reason, mine, 0), 'PX', TOMBSTONE)
  keep_answer(kind, id, mine)
end
pass_on(grace)
return 1
