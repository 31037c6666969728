-- Read a record without its lock.
--
-- KEYS  record
-- ARGV  1 idle  2 absolute  3 touch interval
-- Returns {value, slid}.
return read(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
