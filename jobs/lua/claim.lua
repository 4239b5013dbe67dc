-- lane, owner, token of this attempt, lease in ms
-- → {id, claim, spec, kind, orders, ms that it ran, limit in s or '', job that it tries again or '',
--    result that is being published or '', deaths in a row, traceparent or ''}; {}: nothing due
local lane, owner, token, lease = unpack(ARGV)
local token_key = PREFIX .. 'claim:' .. token

local function first(queue, from, to) return redis.call('ZRANGEBYSCORE', queue, from, to, 'LIMIT', 0, 1)[1] end

-- Nothing waits longer than the longest pause: what seems to was put down before the clock was set back.
local function next_due()
  for _, priority in ipairs(PRIORITIES) do
    local queue = due_key(lane, priority)
    local id = first(queue, '-inf', latest() + 1) or first(queue, now() + LONGEST_PAUSE_MS + 1, '+inf')
    if id then return id end
  end
end

-- The same attempt again: it has what it got, unless that was taken away meanwhile.
local id, claim = string.match(redis.call('GET', token_key) or '', '^(%S+) (%d+)$')
if not id or not holds(id, claim) then
  id = next_due()
  if not id then return {} end
  set(id, 'place', redis.call('ZSCORE', queue_of(id), id))
  claim = redis.call('HINCRBY', job_key(id), 'claim', 1)
  redis.call('SET', token_key, id .. ' ' .. claim, 'PX', TOKEN_MS)
  redis.call('HSETNX', job_key(id), 'started_at', now())
  move(id, 'running', cjson.encode({ claim = claim, owner = owner }))
  set(id, 'owner', owner, 'claim_token', token, 'claimed_at', now(), 'counted_at', now())
  hold(id, lease)
end
local orders, ran, limit = get(id, 'orders') or '{}', get(id, 'ran_ms') or '0', get(id, 'max_seconds') or ''
local crashes = get(id, 'crashes_since_checkpoint') or '0'
return {
  id, tonumber(claim), get(id, 'spec'), get(id, 'kind'), orders, ran, limit, get(id, 'retry_of') or '',
  publishing(id) or '', crashes, get(id, 'traceparent') or '',
}
