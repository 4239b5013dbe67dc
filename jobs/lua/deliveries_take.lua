-- limit, ms until an unfinished one is due again → {{job, event id, state, attempts so far, lease}, …}
-- The lease is the moment at which it is due again, and the proof of having taken it: the next taker gets another one.
local limit, visible = tonumber(ARGV[1]), tonumber(ARGV[2])
local all, taken = PREFIX .. 'deliveries', {}
local due = redis.call('ZRANGEBYSCORE', all, '-inf', now(), 'LIMIT', 0, limit)

-- After the clock was set back: what was put down, taken or tried in what is now the future waits for nothing any more.
local function from_the_future(member)
  local id, event_id = string.match(member, '^(%S+) (%S+)$')
  local state, attempts, lease = delivery(id, event_id)
  if not state or attempts + lease == 0 then return true end
  if lease > 0 then return lease > now() + visible end
  for _, text in ipairs(redis.call('LRANGE', deliveries_key(id), 0, -1)) do
    local entry = cjson.decode(text)
    if entry.delivery == event_id then return entry.at > now() end
  end
end
if latest() > now() + 1000 then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', all, '(' .. now(), '+inf')) do
    if #due >= limit then break end
    if from_the_future(member) then table.insert(due, member) end
  end
end
seen()

for _, member in ipairs(due) do
  local id, event_id = string.match(member, '^(%S+) (%S+)$')
  local state, attempts = delivery(id, event_id)
  if state and get(id, 'webhook') and not get(id, 'hook_gone') then
    local lease = now() + visible
    redis.call('ZADD', all, lease, member)
    set(id, 'delivery:' .. event_id, state .. ' ' .. attempts .. ' ' .. lease)
    table.insert(taken, { id, event_id, state, attempts, lease })
  else
    redis.call('ZREM', all, member)
  end
end
return taken
