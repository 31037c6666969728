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
local who, grace, version, mine, data = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local heir = ARGV[8]
local kind, id, created = look()

local function done()
  if heir ~= '' and redis.call('GET', lock) == heir then return 2 end
  return 1
end

if redis.call('GET', lock) ~= who then
  if has_landed(id, mine) then return done() end
  return kind == '' and -1 or 0
end
if id ~= version or (kind ~= '=' and kind ~= '?' and kind ~= '') then
  pass_on(grace)
  return kind
end

if created == 0 then created = now() end
-- The first write of a script is the one that Redis refuses when it is short of memory: nothing has happened then.
write(record, header('=', mine, created) .. data, span(created, tonumber(ARGV[6]), tonumber(ARGV[7])))
keep_answer(kind, id, mine)

if heir ~= '' then
  local others = redis.call('LLEN', queue)
  if others == 0 or ARGV[10] == '1' then
    redis.call('SET', lock, heir, 'PX', ARGV[9])
    return others == 0 and 2 or 3
  end
end
pass_on(grace)
return 1
