-- job, event id → 'again' (due now, with all its attempts), 'sending' (somebody is just at it), 'unknown'
local id, event_id = unpack(ARGV)
local all, member = PREFIX .. 'deliveries', ARGV[1] .. ' ' .. ARGV[2]
if not get(id, 'webhook') then return 'unknown' end
local due = redis.call('ZSCORE', all, member)
if due then
  local _, _, lease = delivery(id, event_id)
  if lease == tonumber(due) then return 'sending' end
  redis.call('ZADD', all, now(), member)
  unset(id, 'hook_gone')
  return 'again'
end
for _, text in ipairs(redis.call('LRANGE', deliveries_key(id), 0, -1)) do
  local entry = cjson.decode(text)
  if entry.delivery == event_id then
    set(id, 'delivery:' .. event_id, entry.state .. ' 0 0')
    redis.call('ZADD', all, now(), member)
    unset(id, 'hook_gone') -- the receiver is to be tried again
    return 'again'
  end
end
return 'unknown'
