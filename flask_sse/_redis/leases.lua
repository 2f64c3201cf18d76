-- Changes and renews the leases of one process on the members of a channel.
--
-- KEYS[1]  the members, a hash. A process has a lease on the channel, and thereby on all members
--          with streams in it. The field "" names the processes, each like this:
--            <process> <end of the lease> <revision>;
--          Each other field is a client, with the processes that have streams of it:
--            <process> <since> <streams>;
--          Times are milliseconds of the clock of Redis, and no other clock matters. The revision
--          is a number that counts the changes by the process. It is "-" if the lease has run
--          out, and "?" if Redis has lost changes and the process does not know it yet.
-- ARGV[1]  the process.
-- ARGV[2]  for how many milliseconds the lease is valid; 0 if the process has no members any more.
-- ARGV[3]  the revision before; 0 before the first change, or nothing if it does not matter.
-- ARGV[4]  the revision after.
-- Then, three at a time: a client, its number of streams in the process, and 1 if it has come, or,
-- without streams, if it is to be announced that it has left even if Redis does not know it.
--
-- Returns what Redis knew of the process ("known", "again" if it has had the same command before,
-- "missing", "stale" or "expired"), the clients that have joined, those that have left, and in
-- how many milliseconds the next lease of another process runs out, or -1.
local members, me = KEYS[1], ARGV[1]
local lease, before, after = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local remembered = 600000
local joined, left = {}, {}
-- Clients that had streams in processes that have died, and nowhere else, with the time at which
-- they had come. Those that come back right now have not left.
local gone = {}

local rows, alive, revision = {}, {[me] = true}, nil
local dead = {}
local found = redis.call('HGET', members, '') or ''
for process, ends, counted in string.gmatch(found, '(%S+) (%d+) (%S+);') do
  ends = tonumber(ends)
  if process == me then
    revision = counted
  elseif counted ~= '-' and ends > now then
    rows[#rows + 1], alive[process] = {process, ends, counted}, true
  elseif ends > now - remembered then
    rows[#rows + 1] = {process, ends, '-'}
  end
  if process ~= me and counted ~= '-' and ends <= now then dead[#dead + 1] = process end
end

if #dead > 0 then
  local function is_in_dead(value)
    for _, process in ipairs(dead) do
      if string.find(value, process, 1, true) then return true end
    end
  end
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do
    local client, value = all[i], all[i + 1]
    if client ~= '' and is_in_dead(value) then
      local kept = string.gsub(value, '(%S+) %d+ %d+;', function(process)
        if not alive[process] then return '' end
      end)
      if kept == '' then
        redis.call('HDEL', members, client)
        gone[client] = now
        for from in string.gmatch(value, '%S+ (%d+) %d+;') do
          gone[client] = math.min(gone[client], tonumber(from))
        end
      elseif kept ~= value then
        redis.call('HSET', members, client, kept)
      end
    end
  end
end

local state = 'known'
if before == '' then
  state = 'known'
elseif revision == after then
  state = 'again'
elseif not revision or revision == '-' then
  if before ~= '0' then state = revision and 'expired' or 'missing' end
elseif revision ~= before then
  state = 'stale'
end

for i = 5, #ARGV, 3 do
  local client, streams, is_news = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1'
  local others, is_mine, since = '', false, gone[client] or now
  local value = redis.call('HGET', members, client) or ''
  for process, from, number in string.gmatch(value, '(%S+) (%d+) (%d+);') do
    if alive[process] then since = math.min(since, tonumber(from)) end
    if process == me then
      is_mine = true
    elseif alive[process] then
      others = others .. process .. ' ' .. from .. ' ' .. number .. ';'
    end
  end
  if streams ~= '0' then
    local mine = string.format('%s %.0f %s;', me, since, streams)
    redis.call('HSET', members, client, others .. mine)
    if gone[client] then
      gone[client] = nil
    elseif is_news and others == '' and (not is_mine or state == 'again') then
      joined[#joined + 1] = client
    end
  elseif others ~= '' then
    redis.call('HSET', members, client, others)
  else
    redis.call('HDEL', members, client)
    if not gone[client] and (is_mine or is_news or state == 'again') then
      left[#left + 1] = client
    end
  end
end

for client in pairs(gone) do left[#left + 1] = client end

if lease > 0 then
  local is_complete = state == 'known' or state == 'again'
  rows[#rows + 1] = {me, now + lease, is_complete and after or '?'}
end
local text, last, soonest = {}, 0, nil
for _, row in ipairs(rows) do
  text[#text + 1] = string.format('%s %.0f %s;', row[1], row[2], row[3])
  if row[3] ~= '-' then
    last = math.max(last, row[2])
    if row[1] ~= me then soonest = math.min(soonest or row[2], row[2]) end
  end
end
if last == 0 then
  redis.call('DEL', members)
else
  redis.call('HSET', members, '', table.concat(text))
  redis.call('PEXPIRE', members, last - now)
end
return {state, joined, left, soonest and soonest - now or -1}
