-- Reads a part of the log of a channel, and begins a log if there is none. It begins with log.lua.
--
-- KEYS[1]  the log, as log.lua describes it.
-- ARGV[1]  the epoch of a new log.
-- ARGV[2]  the offset after which to read; -1 for no entry, -2 for the newest. If that
--          is an end, the entry before comes, too.
-- ARGV[3]  the part ends with the entry that reaches this number of bytes.
-- ARGV[4]  for how many seconds a log without events is kept at least.
--
-- Returns the epoch, the offset and the nonce of the newest entry, the entries, and if the newest
-- entry is an end, the offset of the end before, otherwise -1.
if not epoch then
  epoch, top, nonce = ARGV[1], '0', '0'
  redis.call('SET', log, epoch .. ' 0 0', 'EX', ARGV[4])
elseif has_expired then
  late = find_earlier() .. ' ' .. repeated .. ' ' .. since
  redis.call('SET', log, epoch .. ' ' .. top .. ' ' .. nonce .. ' ' .. late, 'EX', 604800)
  has_entries = false
elseif not has_entries then
  local left = redis.call('PTTL', log)
  if left >= 0 and left < ARGV[4] * 1000 then
    redis.call('EXPIRE', log, ARGV[4])
  end
end
local last, after = tonumber(top), tonumber(ARGV[2])
if after == -1 then after = last end
if after == -2 then after = math.max(last - (is_over and 2 or 1), 0) end
local entries, size, limit = {}, 0, tonumber(ARGV[3])
while has_entries and after < last and size < limit do
  local from = string.format('%.0f-0', after + 1)
  local some = redis.call('XRANGE', log, from, '+', 'COUNT', 32)
  for _, entry in ipairs(some) do
    entries[#entries + 1] = entry
    size = size + #(entry[2][8] or '')
    after = tonumber(string.match(entry[1], '^%d+'))
    if size >= limit then break end
  end
  if #some < 32 then break end
end
return {epoch, top, nonce, entries, is_over and tonumber(ended) or -1}
