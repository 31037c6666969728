-- Replace the record, if the lock is ours and the record is the one we read; and give up the lock.
--
-- Sent again, it tells what became of the first time. So a lost reply leaves nothing in doubt.
--
-- KEYS  record lock queue landed
-- ARGV  1 who  2 grace  3 version that was read  4 id of this commit  5 data  6 idle  7 absolute
--       8 heir, or empty  9 lease for it  10 may it go before those who wait: 0 or 1
-- Returns 1 done; 2 done, the heir has the lock; 3 the same, though others wait;
--         0 lock lost, not written; -1 lock lost and no record there, so who knows if this was sent before;
--         or the kind of what is there instead of our version; the lock was given up.
local record, lock, queue, landed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mine, heir = ARGV[4], ARGV[8]
local kind, id, created = look(record)

local is_ours = redis.call('GET', lock) == ARGV[1]
if not is_ours or not is_living(kind, id, ARGV[3]) then
  if is_ours then pass_on(record, lock, queue, ARGV[2]) end
  if has_landed(landed, id, mine) then
    return heir ~= '' and redis.call('GET', lock) == heir and 2 or 1
  end
  if is_ours then return kind end
  return kind == '' and -1 or 0
end

if created == 0 then created = now() end
-- The first write of a script is the one that Redis refuses when it is short of memory: nothing has happened then.
write_record(record, mine, created, ARGV[5], span(created, tonumber(ARGV[6]), tonumber(ARGV[7])))
keep_answer(landed, kind, id, mine)

if heir ~= '' then
  local others = redis.call('LLEN', queue)
  if others == 0 or ARGV[10] == '1' then
    redis.call('SET', lock, heir, 'PX', ARGV[9])
    return others == 0 and 2 or 3
  end
end
pass_on(record, lock, queue, ARGV[2])
return 1
