-- Adds an event to the log of a channel, and publishes it. It begins with log.lua.
--
-- KEYS[1]  the log, as log.lua describes it. If fewer than 32 events are kept, the first part of
--          "late" is the nonces of up to 31 events before, newest first. One entry in the log is
--          enough: the one whose offset is a multiple of the number, or the first one. After a
--          space come the nonces that repeated commands have added, since the first command may
--          arrive after its repetition. After another space comes the offset of the newest of these.
-- ARGV[1]  the channel.
-- ARGV[2]  a new epoch, of which a new log takes the name, and the event its nonce.
-- ARGV[3]  how many events are kept. The end of a channel takes the place of none.
-- ARGV[4]  for how many seconds.
-- ARGV[5]  the payload up to the event's id.
-- ARGV[6]  the payload after it. The offset in an end is filled in here.
-- ARGV[7]  "again" if the same command may have been executed before.
-- ARGV[8]  the command that publishes, which is SPUBLISH in a cluster; PUBLISH if it is missing.
--
-- Returns how many connections are subscribed to the channel. If the command has been executed
-- before, or would end a channel that has ended, nothing else happens. Events larger than 64 KiB are read from the log by each process,
-- once, so that only their ids are published.
if not epoch then epoch, top, nonce = ARGV[2], '0', '0' end
local previous, offset, length = nonce, top + 1 .. '', ARGV[3] + 0
local is_repetition, publish = ARGV[7] == 'again', ARGV[8] or 'PUBLISH'
local count = publish == 'SPUBLISH' and 'SHARDNUMSUB' or 'NUMSUB'
local kept, tail = ARGV[3], ARGV[6]
-- Old versions of fakeredis can't answer this in a script.
local function subscribed() return redis.pcall('PUBSUB', count, ARGV[1])[2] or 0 end
if is_end(tail) then
  if is_over then return subscribed() end
  kept, tail = length + 1, '", "ends_after": ' .. ended .. '}'
end
if is_over then ended = top end
nonce = string.sub(ARGV[2], 1, 10)
if repeated ~= '' and top - since > 100000 then repeated = '' end
if is_repetition then
  local found = string.find(previous .. find_earlier(), nonce, 1, true)
  if has_entries and not found then
    for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 4096)) do
      if entry[2][4] == nonce then found = true end
    end
  end
  if found then return subscribed() end
  repeated, since = nonce .. string.sub(repeated, 1, 310), offset
elseif repeated ~= '' and string.find(repeated, nonce, 1, true) then
  return subscribed()
end
local is_first = not has_entries or has_expired
late = ''
if length < 32 and (is_first or offset % length == 0) then
  late = string.sub(previous .. find_earlier(), 1, 310)
end
if repeated ~= '' then late = late .. ' ' .. repeated .. ' ' .. since end
if is_first then
  -- If Redis is out of memory, it refuses this, and nothing is deleted.
  redis.call('SET', log, '', 'NX')
  redis.call('DEL', log)
end
local fields, id, payload, added
repeat
  id = epoch .. '.' .. offset .. '.' .. nonce .. '.' .. previous
  payload = ARGV[5] .. id .. tail
  fields = {'epoch', epoch, 'nonce', nonce, 'previous', previous, 'payload', payload}
  if late ~= '' or ended ~= '0' then fields[9], fields[10] = 'late', late end
  if ended ~= '0' then fields[11], fields[12] = 'ended', ended end
  added = redis.pcall('XADD', log, 'MAXLEN', kept, offset .. '-0', unpack(fields))
  local failed = type(added) == 'table'
  if failed then
    if offset == '1' or not string.find(tostring(added.err), 'smaller') then return added end
    -- Somebody has deleted the newest entries, and Redis refuses to use their ids again.
    redis.call('DEL', log)
    epoch, offset, previous, late, ended = ARGV[2], '1', '0', '', '0'
  end
until not failed
redis.call('EXPIRE', log, ARGV[4] + spare)
if #payload > 65536 then
  payload = '{"data": null, "id": "' .. id .. '.large"}'
end
return redis.call(publish, ARGV[1], payload)
