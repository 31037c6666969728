-- How long a record lives. Durations are ms, and -1 is for ever.

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- How long a record that was created then may live from now on. At least 1, as Redis refuses less.
local function span(created, idle, absolute)
  if absolute < 0 then return idle end
  local rest = math.max(1, created + absolute - now())
  if idle >= 0 and idle < rest then return idle end
  return rest
end
