-- age in ms, how many at most → how many ended jobs were removed: archived ones with no delivery under way that ended
-- longer ago than that
local before, limit = now() - ARGV[1], tonumber(ARGV[2])
local ended = PREFIX .. 'ended'

-- An earlier version kept no list of what has ended.
local known = 0
for state in pairs(TERMINAL) do known = known + redis.call('ZCARD', state_key(state)) end
if redis.call('ZCARD', ended) < known then
  for state in pairs(TERMINAL) do
    for _, id in ipairs(redis.call('ZRANGE', state_key(state), 0, -1)) do
      redis.call('ZADD', ended, get(id, 'finished_at') or now(), id)
    end
  end
end

local function needed(id)
  if redis.call('ZSCORE', PREFIX .. 'unarchived', id) then return true end
  for event_id in string.gmatch(get(id, 'announced') or '', '%S+') do
    if redis.call('ZSCORE', PREFIX .. 'deliveries', id .. ' ' .. event_id) then return true end
  end
  return false
end

local removed, skipped = 0, 0
while removed < limit and skipped < 1000 do
  local id = redis.call('ZRANGEBYSCORE', ended, '-inf', before, 'LIMIT', skipped, 1)[1]
  if not id then break end
  if needed(id) then
    skipped = skipped + 1
  else
    forget(id)
    removed = removed + 1
  end
end
return removed
