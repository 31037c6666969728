-- Read a record without its lock.
--
-- KEYS  record
-- ARGV  1 idle  2 absolute  3 touch interval: ms, -1 for ever
-- Returns {value, slid}; the value is empty if there is none.
return read(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
