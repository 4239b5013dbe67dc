-- limit, ms until an unfinished one is due again → {{job, event id, state, attempts so far, lease}, …}
-- The lease is the moment at which it is due again, and the proof of having taken it: the next taker gets a later one.
local limit, visible = tonumber(ARGV[1]), tonumber(ARGV[2])
local all, taken = PREFIX .. 'deliveries', {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', all, '-inf', now(), 'LIMIT', 0, limit)) do
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
