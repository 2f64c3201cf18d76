-- Returns what Redis knows about the members of a channel, and the time in milliseconds.
--
-- KEYS[1]  the members, as leases.lua describes them.
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGETALL', KEYS[1])}
