-- job, event id, lease, ms until the next attempt or '' for none, entry of the log (JSON), its longest length
-- → 1 when it counted, 0 when somebody else has the delivery by now. An attempt is written down here, once.
local id, event_id, lease, pause, entry, longest = unpack(ARGV)
local all, member = PREFIX .. 'deliveries', ARGV[1] .. ' ' .. ARGV[2]
if tonumber(redis.call('ZSCORE', all, member) or '0') ~= tonumber(lease) then return 0 end
local state, attempts = delivery(id, event_id)
if not state then return 0 end
seen()
entry = cjson.decode(entry)
entry.at, entry.attempt = now(), attempts + 1
if pause == '' then
  redis.call('ZREM', all, member)
  unset(id, 'delivery:' .. event_id)
  if entry.outcome == 'gone' then -- the receiver wants no more of this job: neither what waits nor what comes
    set(id, 'hook_gone', 1)
    for other in string.gmatch(get(id, 'announced') or '', '%S+') do redis.call('ZREM', all, id .. ' ' .. other) end
  end
else
  entry.next_at = now() + pause
  redis.call('ZADD', all, entry.next_at, member)
  set(id, 'delivery:' .. event_id, state .. ' ' .. entry.attempt .. ' 0')
end
redis.call('LPUSH', deliveries_key(id), cjson.encode(entry))
redis.call('LTRIM', deliveries_key(id), 0, longest - 1)
return 1
