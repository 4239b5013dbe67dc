-- id, kind, lane, spec, idempotency key or '', digest of the request, time to live of the key in ms
-- → {id, 'created' | 'known' | 'conflict'}
local id, kind, lane, spec, key, digest, ttl = unpack(ARGV)
if redis.call('EXISTS', job_key(id)) == 1 then return { id, 'created' } end
if key ~= '' then
  local known = redis.call('GET', PREFIX .. 'idempotency:' .. key)
  if known then
    local known_id, known_digest = string.match(known, '^(%S+) (%S+)$')
    return { known_id, known_digest == digest and 'known' or 'conflict' }
  end
  redis.call('SET', PREFIX .. 'idempotency:' .. key, id .. ' ' .. digest, 'PX', ttl)
end
-- Thousandths of a millisecond keep the order of jobs that come in the same one.
local last = tonumber(redis.call('GET', PREFIX .. 'last_created') or '0')
local created = string.format('%.3f', math.max(now(), last + 0.001))
redis.call('SET', PREFIX .. 'last_created', created)
set(id, 'id', id, 'kind', kind, 'lane', lane, 'spec', spec, 'created_at', created, 'claim', 0, 'crashes', 0, 'crashes_since_checkpoint', 0)
redis.call('ZADD', PREFIX .. 'jobs', created, id)
queue(id, created, '{}')
return { id, 'created' }
