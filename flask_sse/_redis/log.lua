-- Finds out where the log of a channel ends. The other scripts begin with this part.
--
-- KEYS[1]  the log. It is a stream with an entry for each event, whose ids are 1-0, 2-0 and so on,
--          and whose fields are these, in this order:
--            epoch     identifies the log.
--            nonce     ten digits that identify the event.
--            previous  the nonce of the event before.
--            payload   the event. The end of a channel has the last key "ends_after", with the
--                      offset of the end before, or 0.
--            late      what is needed to recognize a repeated command if the log does not show it;
--                      append.lua describes it. It is missing if it would be empty, unless the
--                      next field is there.
--            ended     the offset of the last end before; missing if there was none.
--          Without events it is a string: the epoch, the offset of the last event, its nonce and,
--          if there is one, "late", with spaces in between. A stream would take 4 KiB more.
--
-- The key of a stream lives an hour longer than its events. If no more than this hour is left, the
-- events have expired, whatever SSE_HISTORY_TTL is now. If somebody reads the log in that hour, a
-- string takes the place of the events, for a week. If something else has written to this key, a
-- new log begins.
local log, spare = KEYS[1], 3600
local kind = redis.call('TYPE', log).ok
local epoch, top, nonce, late
local has_entries, has_expired = false, false
-- Whether the newest event is an end, and the offset of the end before.
local is_over, ended = false, '0'
local function is_end(payload) return string.find(string.sub(payload, -40), '", "ends_after": %d+}$') end
if kind == 'string' then
  epoch, top, nonce, late = string.match(redis.call('GET', log), '^(%w+) (%d+) (%w+) ?(.*)')
else
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local fields = newest and newest[2]
  if fields and fields[1] == 'epoch' and fields[7] == 'payload' then
    epoch, top, nonce, late = fields[2], string.match(newest[1], '^%d+'), fields[4], fields[10]
    local left = redis.call('PTTL', log)
    has_entries, has_expired = true, left >= 0 and left <= spare * 1000
    if not has_expired then is_over, ended = is_end(fields[8]), fields[12] or '0' end
  end
end
local earlier, repeated, since = string.match(late or '', '^(%w*) ?(%w*) ?(%d*)')

-- Returns the nonces of the newest events before the newest one, newest first, up to 31.
local function find_earlier()
  if earlier ~= '' or not has_entries then return earlier end
  local found = ''
  for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 32)) do
    local before = string.match(entry[2][10] or '', '^%w*')
    found = found .. entry[2][4] .. before
    if before ~= '' then break end
  end
  return string.sub(found, 11, 320)
end
